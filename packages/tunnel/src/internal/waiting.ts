/**
 * Waiting for a tunnel with a limit: of a call, and of a program.
 *
 * **Invariants**
 * 1. Who stops waiting is forgotten at once.
 */
import { millisUnsafe } from "@curfew/scope/Argument"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { CallToPlace } from "../Picking.ts"
import { TunnelsNotReady } from "../TunnelError.ts"
import type { ClientEngine } from "./clientEngine.ts"

/** How a channel's source lets calls wait. */
export interface WaitSource {
  readonly limit: number
  readonly place: (
    call: CallToPlace,
    placed: (engine: ClientEngine) => void,
    failed: (error: unknown) => void
  ) => () => void
}

/** The part of a source that `wait` decides about. */
export const waitingFor = (
  wait: boolean | Duration.Input,
  enlist: (waiter: {
    readonly call: CallToPlace
    readonly place: (pooled: { readonly engine: ClientEngine }) => void
    readonly fail: (error: unknown) => void
  }) => () => void
): { readonly waits?: WaitSource } => {
  const limit =
    typeof wait === "boolean"
      ? wait
        ? Number.POSITIVE_INFINITY
        : 0
      : millisUnsafe("the wait of a channel", wait)
  if (limit <= 0) return {}
  return {
    waits: {
      limit,
      place: (call, placed, fail) => enlist({ call, place: ({ engine }) => placed(engine), fail })
    }
  }
}

/** Waits for readiness, with a typed failure at the limit. */
export const notReadyAfter = (
  limit: Duration.Input | undefined,
  what: string,
  ready: Effect.Effect<unknown, TunnelsNotReady>
): Effect.Effect<void, TunnelsNotReady> =>
  Effect.suspend(() => {
    const millis = millisUnsafe("the limit of awaitReady", limit ?? Duration.infinity)
    return Effect.asVoid(
      Effect.timeoutOrElse(ready, {
        duration: Math.max(0, millis),
        orElse: () => Effect.fail(new TunnelsNotReady({ what }))
      })
    )
  })
