/**
 * What `failAfter` and `moveOnAfter` share: a body under a deadline, and a receiver for what it produces too late.
 *
 * Invariants
 * 1. A result is late iff the deadline had passed when the body gave it: then the caller gets the time-out, never
 *    the result, and `onLate` gets the result, exactly once. What the body gave in time is the caller's, although
 *    children of the body may still have been cleaning up at the deadline.
 * 2. Without `onLate` a defect or failure that comes out of the cancelled body is the caller's.
 * 3. `onLate` runs masked, within the clean-up budget, before the caller goes on.
 */
import type { CancelReason } from "@curfew/reason"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { millisOf } from "../Argument.ts"
import { nowUnsafe } from "../Instant.ts"
import { receive } from "../LateResult.ts"
import { type Ended, endedByOwnCancel, runBody, withoutOwnInterrupt } from "./scoped.ts"
import { takePosition } from "./source.ts"

/** What `failAfter` and `moveOnAfter` can be told. */
export interface TimeLimitOptions<A, E, R> {
  /** Stands in the deadline's reason and error, and in the live tree. */
  readonly name?: string | undefined
  /** Receives what the work still produces after the deadline. Masked, within the clean-up budget. */
  readonly onLate?: ((exit: Exit.Exit<A, E>) => Effect.Effect<unknown, never, R>) | undefined
}

type DeadlineReason = Extract<CancelReason, { readonly _tag: "Deadline" }>
type AnyOptions = TimeLimitOptions<unknown, unknown, unknown>
type AnyWork = Effect.Effect<unknown, unknown, unknown>

/**
 * A time limit in both forms, with the work first or in a pipe. Not by `Fn.dual`: in a pipe its function is not on the
 * stack any more when the work is known, and the record of a receiver that gets stuck names the caller's line.
 */
export const timeLimited = (
  onTime: (value: unknown) => Effect.Effect<unknown>,
  onTimeout: (reason: DeadlineReason) => Effect.Effect<unknown, unknown>
): never => {
  const position = (options: AnyOptions | undefined) =>
    options?.onLate === undefined ? undefined : takePosition(limited)
  const limited = (
    first: AnyWork | Duration.Input,
    second?: Duration.Input | AnyOptions,
    third?: AnyOptions
  ) => {
    if (Effect.isEffect(first))
      return timeLimit(first, second as Duration.Input, third, onTime, onTimeout, position(third))
    const options = second as AnyOptions | undefined
    const source = position(options)
    return (self: AnyWork) => timeLimit(self, first as Duration.Input, options, onTime, onTimeout, source)
  }
  return limited as never
}

const timeLimit = <A, E, R, R2, B, E2>(
  self: Effect.Effect<A, E, R>,
  duration: Duration.Input,
  options: TimeLimitOptions<A, E, R2> | undefined,
  onTime: (value: A) => Effect.Effect<B>,
  onTimeout: (reason: DeadlineReason) => Effect.Effect<B, E2>,
  source: (() => string | undefined) | undefined
): Effect.Effect<B, E | E2, R | R2> => {
  const millis = millisOf("the duration of the time limit", duration)
  if (typeof millis !== "number") return Effect.die(millis)
  // What has ended already has ended in time.
  if (millis === Number.POSITIVE_INFINITY || (millis > 0 && Exit.isExit(self)))
    return Effect.flatMap(self, onTime)
  const onLate = options?.onLate
  const timedOut = (reason: CancelReason) => onTimeout(reason as DeadlineReason)
  return Effect.withFiber((fiber) => {
    let received = false
    const hand = (late: Exit.Exit<A, E>): Effect.Effect<void, never, R2> | undefined =>
      onLate &&
      receive(
        () => {
          received = true
          return onLate(late)
        },
        options?.name,
        source
      )
    return runBody(
      () => self,
      { name: options?.name, deadline: nowUnsafe(fiber) + millis, keepLate: onLate !== undefined },
      (settled): Effect.Effect<B, E | E2, R2> => {
        if (settled._tag === "NotStarted") return timedOut(settled.reason)
        const { cell, exit } = settled
        if (cell?.own !== true || settled.inTime)
          return Exit.isSuccess(exit) ? onTime(exit.value) : Effect.failCause(exit.cause)
        const timeout = timedOut(cell.reason as CancelReason)
        const late = lateResult(settled)
        if (late === undefined) return timeout
        const handed = hand(late)
        if (handed !== undefined) return Effect.andThen(handed, timeout)
        return Exit.isSuccess(late) ? onTime(late.value) : Effect.failCause(late.cause)
      },
      // The caller was interrupted after its deadline: the result is no less late.
      onLate &&
        ((ended) => {
          const late = received ? undefined : lateResult(ended)
          return late && hand(late)
        })
    )
  })
}

/** What the body produced after its own deadline, if anything. */
const lateResult = <A, E>({ cell, exit, inTime }: Ended<A, E>): Exit.Exit<A, E> | undefined => {
  if (cell?.own !== true || inTime) return undefined
  if (Exit.isSuccess(exit)) return exit
  return endedByOwnCancel(exit.cause, cell)
    ? undefined
    : Exit.failCause(withoutOwnInterrupt(exit.cause, cell))
}
