/**
 * Where the server half meets promises.
 *
 * Invariants
 * 1. A promise gets both of its callbacks in the turn in which it is made, so no rejection is ever unhandled.
 * 2. A fiber that is interrupted aborts the signal with the reason and waits until the promise has settled, within
 *    the clean-up budget. A value that still comes is dropped; a failure that is not the abort joins the interrupt, and
 *    the edge reports it. What comes after the budget is reported by the one who bounds.
 * 3. What the promise is rejected with is the failure of the effect: the edge makes a status of it like of any other.
 */
import { CancelReason, currentReason } from "@curfew/reason"
import { boundedAt } from "@curfew/scope/bounded"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { ServerCall } from "../../ServerCall.ts"

/** A promise-style handler as one that gives an effect. */
export const adaptPromise =
  <Request, Response>(
    handler: (
      request: Request,
      context: { readonly signal: AbortSignal; readonly call: ServerCall }
    ) => PromiseLike<Response>
  ) =>
  (request: Request, call: ServerCall): Effect.Effect<Response, unknown> =>
    Effect.suspend(() => settle((signal) => handler(request, { signal, call }), call.method))

/** Runs a function that gives a promise, with a signal that aborts with the reason of the fiber's cancel. */
const settle = <A>(run: (signal: AbortSignal) => PromiseLike<A>, name: string): Effect.Effect<A, unknown> =>
  // Starting it and waiting for it are one operation: no cancel falls in between.
  Effect.callback<A, unknown>((resume) => {
    const controller = new AbortController()
    let settled: Exit.Exit<A, unknown> | undefined
    let tell = (exit: Exit.Exit<A, unknown>): void => resume(exit)
    const set = (exit: Exit.Exit<A, unknown>): void => {
      settled = exit
      tell(exit)
    }
    try {
      run(controller.signal).then(
        (value) => set(Exit.succeed(value)),
        (error: unknown) => set(Exit.fail(error))
      )
    } catch (error) {
      set(Exit.fail(error))
    }
    const end = Effect.callback<void, unknown>((done) => {
      const last = (exit: Exit.Exit<A, unknown>): void => done(lateFailure(exit, controller.signal))
      if (settled !== undefined) last(settled)
      else tell = last
    })
    const leave = Effect.flatMap(currentReason, (reason) => {
      controller.abort(Option.getOrElse(reason, CancelReason.Unknown))
      return Effect.asVoid(boundedAt(end, { name: `promise of ${name}` }))
    })
    // What fails there joins the interrupt in the cause; the signature of `callback` has no room for it.
    return leave as Effect.Effect<void>
  })

/** What a promise still failed with after its abort, unless it only says that it was aborted. */
const lateFailure = (
  exit: Exit.Exit<unknown, unknown>,
  signal: AbortSignal
): Effect.Effect<void, unknown> => {
  if (exit._tag === "Success") return Effect.void
  const error = Cause.squash(exit.cause)
  const aborted = error === signal.reason || (error instanceof Error && error.name === "AbortError")
  return aborted ? Effect.void : Effect.asVoid(exit)
}
