/**
 * What `failAfter` and `moveOnAfter` share: a body under a deadline, and a receiver for what it produces too late.
 *
 * Invariants
 * 1. A result is late iff the deadline had passed when the body ended: then the caller gets the time-out, never
 *    the result, and `onLate` gets the result, exactly once.
 * 2. Without `onLate` a defect or failure that comes out of the cancelled body is the caller's.
 * 3. `onLate` runs masked, within the clean-up budget, before the caller goes on.
 */
import type { CancelReason } from "@curfew/reason"
import type { CancelCell } from "@curfew/reason/CancelCell"
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { millisOf } from "../Argument.ts"
import { bounded } from "../bounded.ts"
import { nowUnsafe } from "../Instant.ts"
import { reportUnhandled } from "../OnUnhandled.ts"
import { endedByOwnCancel, runBody, withoutOwnInterrupt } from "./scoped.ts"

/** What `failAfter` and `moveOnAfter` can be told. */
export interface TimeLimitOptions<A, E, R> {
  /** Stands in the deadline's reason and error, and in the live tree. */
  readonly name?: string | undefined
  /** Receives what the work still produces after the deadline. Masked, within the clean-up budget. */
  readonly onLate?: ((exit: Exit.Exit<A, E>) => Effect.Effect<unknown, never, R>) | undefined
}

export const timeLimit = <A, E, R, R2, B, E2>(
  self: Effect.Effect<A, E, R>,
  duration: Duration.Input,
  options: TimeLimitOptions<A, E, R2> | undefined,
  onTime: (value: A) => Effect.Effect<B>,
  onTimeout: (reason: Extract<CancelReason, { readonly _tag: "Deadline" }>) => Effect.Effect<B, E2>
): Effect.Effect<B, E | E2, R | R2> => {
  const millis = millisOf("the duration of the time limit", duration)
  if (typeof millis !== "number") return Effect.die(millis)
  if (millis === Number.POSITIVE_INFINITY) return Effect.flatMap(self, onTime)
  const onLate = options?.onLate
  const timedOut = (reason: CancelReason) =>
    onTimeout(reason as Extract<CancelReason, { readonly _tag: "Deadline" }>)
  return Effect.withFiber((fiber) => {
    let received = false
    const hand = (late: Exit.Exit<A, E>): Effect.Effect<void, never, R2> | undefined =>
      onLate &&
      receive(() => {
        received = true
        return onLate(late)
      }, options?.name)
    return runBody(
      () => self,
      { name: options?.name, deadline: nowUnsafe(fiber) + millis, keepLate: onLate !== undefined },
      (settled): Effect.Effect<B, E | E2, R2> => {
        if (settled._tag === "NotStarted") return timedOut(settled.reason)
        const { cell, exit } = settled
        if (!cell.own) return Exit.isSuccess(exit) ? onTime(exit.value) : Effect.failCause(exit.cause)
        const timeout = timedOut(cell.reason as CancelReason)
        const late = lateResult(exit, cell)
        if (late === undefined) return timeout
        const handed = hand(late)
        if (handed !== undefined) return Effect.andThen(handed, timeout)
        return Exit.isSuccess(late) ? onTime(late.value) : Effect.failCause(late.cause)
      },
      // The caller was interrupted after its deadline: the result is no less late.
      (exit, cell) => {
        const late = received ? undefined : lateResult(exit, cell)
        return late && hand(late)
      }
    )
  })
}

/** What the body produced after its own deadline, if anything. */
const lateResult = <A, E>(exit: Exit.Exit<A, E>, cell: CancelCell): Exit.Exit<A, E> | undefined => {
  if (!cell.own) return undefined
  if (Exit.isSuccess(exit)) return exit
  return endedByOwnCancel(exit.cause, cell)
    ? undefined
    : Exit.failCause(withoutOwnInterrupt(exit.cause, cell))
}

/** Runs a receiver of a late result as clean-up: masked, bounded, and its own defect reported. */
export const receive = <R>(
  receiver: () => Effect.Effect<unknown, never, R>,
  name: string | undefined
): Effect.Effect<void, never, R> =>
  Effect.uninterruptible(
    Effect.catchCause(
      Effect.asVoid(
        bounded(Effect.suspend(receiver), { name: name === undefined ? "onLate" : `onLate of ${name}` })
      ),
      (cause: Cause.Cause<never>) => reportUnhandled("late result", name, cause)
    )
  )
