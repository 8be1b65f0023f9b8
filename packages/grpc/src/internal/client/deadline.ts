/**
 * When a call has to be over.
 *
 * Invariants
 * 1. Inside, a deadline is an instant of the fiber's clock. It becomes wall-clock time only for the channel, which goes
 *    by the process's clock whatever clock the program has.
 * 2. Two deadlines are kept apart: the call's own ends the call with `DEADLINE_EXCEEDED`, a surrounding scope's cancels
 *    that scope. Inside a mask no scope's applies, since nothing of a scope reaches there.
 * 3. What goes over the wire never comes near 2^31 ms, where a grpc-js server ends the call at once.
 */
import { type Cell, CurrentCell, liveOf, startsApartUnsafe } from "@curfew/reason/CancelCell"
import { effectiveDeadlineOf } from "@curfew/reason/Outer"
import { Instant } from "@curfew/scope"
import { millisOf } from "@curfew/scope/Argument"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Fiber from "effect/Fiber"
import { GrpcError } from "../../GrpcError.ts"

/**
 * The longest time-out that is sent. grpc-js sends long ones in whole seconds, rounded up, so the limit stays a few
 * seconds below the 2^31 - 1 ms that a server's timer can hold.
 */
const longestSent = 2 ** 31 - 1 - 5_000

/** How much earlier than the scope's own timer a channel's or a server's may fire. */
export const jitter = 10

const noServices: Context.Context<never> = Context.empty()

export interface CallDeadline {
  /** The call's own, as an instant; infinity for none. */
  readonly own: number
  /** The surrounding scopes'. */
  readonly inherited: number
  /** The cell that the inherited one cancels. */
  readonly cell: Cell | undefined
  /** When it was read, where the clock had to be asked for that. */
  readonly now: number | undefined
}

const refused = (what: string, given: unknown, method: string): GrpcError =>
  GrpcError.make(
    "INVALID_ARGUMENT",
    `The ${what} of the call is not a time (${String(given)}): give ${
      what === "timeout"
        ? 'a duration such as "5 seconds", or leave it out for none'
        : "an instant such as Instant.after makes"
    }.`,
    { method }
  )

export const callDeadline = (
  fiber: Fiber.Fiber<unknown, unknown>,
  timeout: Duration.Input | undefined,
  deadline: number | undefined,
  method: string
): CallDeadline | GrpcError => {
  let own = deadline ?? Number.POSITIVE_INFINITY
  if (typeof own !== "number" || Number.isNaN(own)) return refused("deadline", own, method)
  let now: number | undefined
  if (timeout !== undefined) {
    const millis = typeof timeout === "number" && timeout >= 0 ? timeout : millisOf("timeout", timeout)
    if (typeof millis !== "number") return refused("timeout", timeout, method)
    if (millis !== Number.POSITIVE_INFINITY) {
      const start = Instant.nowUnsafe(fiber)
      now = start
      own = Math.min(own, start + millis)
    }
  }
  const cell = startsApartUnsafe(fiber) ? undefined : liveOf(fiber.getRef(CurrentCell))
  return {
    own,
    inherited: cell === undefined ? Number.POSITIVE_INFINITY : effectiveDeadlineOf(cell),
    cell,
    now
  }
}

/** Milliseconds until the first of the two. */
export const remaining = (deadline: CallDeadline, now: number): number =>
  Math.min(deadline.own, deadline.inherited) - now

/** Whether a `DEADLINE_EXCEEDED` that came now is the end of the scope and not of the call. */
export const isScopes = (deadline: CallDeadline, now: number): boolean =>
  deadline.inherited < deadline.own && deadline.inherited - now <= jitter

/** What the channel is told: wall-clock time, or infinity where it must not know. */
export const wireDeadline = (left: number): number => {
  if (left > longestSent) return Number.POSITIVE_INFINITY
  return Math.ceil(Context.get(noServices, Clock.Clock).currentTimeMillisUnsafe() + left)
}
