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
import { type CancelCell, CurrentCell, startsApartUnsafe } from "@curfew/reason/CancelCell"
import { Instant } from "@curfew/scope"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import type * as Fiber from "effect/Fiber"
import { GrpcError } from "../GrpcError.ts"

/**
 * The longest time-out that is sent. grpc-js sends long ones in whole seconds, rounded up, so the limit stays a few
 * seconds below the 2^31 - 1 ms that a server's timer can hold.
 */
const longestSent = 2 ** 31 - 1 - 5_000

/** How much earlier than the scope's own timer a channel's or a server's may fire. */
const jitter = 10

export interface CallDeadline {
  /** The call's own, as an instant; infinity for none. */
  readonly own: number
  /** The surrounding scopes'. */
  readonly inherited: number
  /** The cell that the inherited one cancels. */
  readonly cell: CancelCell | undefined
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

const millisOf = (timeout: Duration.Input, method: string): number | GrpcError => {
  if (typeof timeout === "number" && Number.isNaN(timeout)) return refused("timeout", timeout, method)
  try {
    return Duration.toMillis(Duration.fromInputUnsafe(timeout))
  } catch {
    return refused("timeout", timeout, method)
  }
}

export const callDeadline = (
  fiber: Fiber.Fiber<unknown, unknown>,
  limits: { readonly timeout?: Duration.Input | undefined; readonly deadline?: number | undefined },
  method: string
): CallDeadline | GrpcError => {
  let own = limits.deadline ?? Number.POSITIVE_INFINITY
  if (typeof own !== "number" || Number.isNaN(own)) return refused("deadline", own, method)
  if (limits.timeout !== undefined) {
    const millis = millisOf(limits.timeout, method)
    if (typeof millis !== "number") return millis
    if (millis !== Number.POSITIVE_INFINITY) own = Math.min(own, Instant.nowUnsafe(fiber) + millis)
  }
  let cell = startsApartUnsafe(fiber) ? undefined : fiber.getRef(CurrentCell)
  while (cell?.ended === true) cell = cell.parent
  return { own, inherited: cell?.effectiveDeadline() ?? Number.POSITIVE_INFINITY, cell }
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
  const wall = Context.get(Context.empty() as Context.Context<never>, Clock.Clock)
  return Math.ceil(wall.currentTimeMillisUnsafe() + left)
}
