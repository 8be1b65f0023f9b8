/**
 * Where the server half meets promises and turns of the event loop.
 *
 * Invariants
 * 1. A promise gets both of its callbacks in the turn in which it is made, so no rejection is ever unhandled.
 * 2. A fiber that is interrupted aborts the signal with the reason and waits until the promise has settled, within
 *    the clean-up budget. What the promise still gives is dropped by callbacks that are already attached.
 * 3. A wait for turns of the event loop that is interrupted leaves no immediate behind.
 */
import { CancelReason, currentReason } from "@curfew/reason"
import { bounded } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"

/** Runs a function that gives a promise, with a signal that aborts with the reason of the fiber's cancel. */
export const settle = <A>(
  run: (signal: AbortSignal) => PromiseLike<A>,
  name: string
): Effect.Effect<A, unknown> =>
  // Starting it and waiting for it are one operation: no cancel falls in between.
  Effect.callback<A, unknown>((resume) => {
    const controller = new AbortController()
    let settled = false
    let tell = (exit: Exit.Exit<A, unknown>): void => resume(exit)
    const set = (exit: Exit.Exit<A, unknown>): void => {
      settled = true
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
    const end = Effect.callback<void>((done) => {
      if (settled) done(Effect.void)
      else tell = () => done(Effect.void)
    })
    return Effect.flatMap(currentReason, (reason) => {
      controller.abort(Option.getOrElse(reason, CancelReason.Unknown))
      return Effect.asVoid(bounded(end, { name: `promise of ${name}` }))
    })
  })

/** Lets the event loop go round: what has arrived by now has been heard of afterwards. */
export const turns = (count: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let left = count
    let immediate: NodeJS.Immediate
    const next = (): void => {
      immediate = setImmediate(() => {
        left--
        if (left > 0) next()
        else resume(Effect.void)
      })
    }
    next()
    return Effect.sync(() => clearImmediate(immediate))
  })
