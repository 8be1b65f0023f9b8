/**
 * The deadline of a call.
 *
 * Invariants
 * 1. It is kept on the monotonic clock; wall-clock time appears in the reason alone.
 * 2. Its reason names the method, so it is never confused with a deadline inside the handler.
 */
import { CancelReason } from "@curfew/reason"
import * as Instant from "@curfew/scope/Instant"
import type * as Clock from "effect/Clock"

/** Milliseconds from now to an instant. */
export const until = (clock: Clock.Clock, instant: number): number => instant - Instant.nowOf(clock)

export const deadlineReason = (
  clock: Clock.Clock,
  call: {
    readonly method: string
    readonly deadline?: number | undefined
    readonly deadlineOrigin?: "local" | "remote" | undefined
  }
): CancelReason =>
  CancelReason.Deadline({
    at: Math.round(clock.currentTimeMillisUnsafe() + until(clock, call.deadline as number)),
    origin: call.deadlineOrigin ?? "local",
    scope: call.method
  })
