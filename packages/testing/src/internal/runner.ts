/**
 * Starting effects from outside of Effect: the only place in this package where one is run.
 *
 * Invariants
 * 1. `start` runs the first segment of the effect before it returns; what it starts is driven by a `World`.
 * 2. `latestFiberId` leaves nothing running: it runs one operation in an empty context.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"

/** Starts an effect in a fiber of its own. */
export const start = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  context: Context.Context<R>
): Fiber.Fiber<A, E> => Effect.runForkWith(context)(effect)

const nothing = Context.empty()

/** The id of the fiber that was created last. */
export const latestFiberId = (): number => {
  const exit = Effect.runForkWith(nothing)(Effect.fiberId).pollUnsafe()
  return exit !== undefined && Exit.isSuccess(exit) ? exit.value - 1 : 0
}

/** For those who wait with promises: a matcher, a command. */
export const toPromise = <A, E>(effect: Effect.Effect<A, E>): Promise<A> => Effect.runPromise(effect)
