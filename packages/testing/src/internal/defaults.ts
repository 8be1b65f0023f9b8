/**
 * The options of a stage, from what a caller gave.
 *
 * Invariants
 * 1. Durations are milliseconds from here on.
 */
import * as Duration from "effect/Duration"
import type { StageOptions } from "./stage.ts"

export const defaults = (options: {
  readonly settle?: Duration.Input | undefined
  readonly patience?: Duration.Input | undefined
  readonly maxOperations?: number | undefined
  readonly young?: number | undefined
}): StageOptions => ({
  settle: options.settle === undefined ? 0 : Duration.toMillis(options.settle),
  patience: options.patience === undefined ? 0 : Duration.toMillis(options.patience),
  live: false,
  watchful: true,
  maxOperations: options.maxOperations ?? 1_000_000,
  maxJumps: 10_000,
  young: options.young ?? 0,
  quietTurns: 3,
  deadlockPatience: 0
})
