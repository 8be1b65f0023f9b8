/**
 * Who is told of cancels besides those that are cancelled: metrics and spans.
 *
 * Invariants
 * 1. Nobody has to be there: a bundle that reads neither the metrics nor the spans carries nothing of them.
 * 2. What a witness does comes after every interrupt of a cancel is pending and before any finalizer runs.
 */
import type * as Fiber from "effect/Fiber"
import type { CancelReason } from "../CancelReason.ts"
import type { Cell } from "./cell.ts"

export interface Witness {
  /** A cancel is told: gives what is to be called for each fiber that it has reached. */
  readonly cancel: (
    reason: CancelReason,
    /** The cell that was cancelled, or took over a cancel. */
    cell: Cell
  ) => (kind: string, fiber: Fiber.Fiber<unknown, unknown>) => void
  /** Cancelled work, or clean-up, of this kind ended after so many milliseconds. */
  readonly ended: (kind: string, millis: number, fiber: Fiber.Fiber<unknown, unknown>) => void
}

export const witness: { current: Witness | undefined } = { current: undefined }
