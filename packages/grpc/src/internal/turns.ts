/**
 * Turns of the event loop.
 *
 * Invariants
 * 1. A wait for turns that is interrupted leaves no immediate behind.
 * 2. `afterTurn` runs one callback, and cannot be taken back or waited for: it is for what needs no owner.
 */
import * as Effect from "effect/Effect"

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

/** Calls back once what has arrived by now has been heard of. */
export const afterTurn = (callback: () => void): void => {
  setImmediate(callback)
}
