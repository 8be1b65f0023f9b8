/**
 * Batches: an operation so many times, each result checked.
 *
 * Invariants:
 * 1. Ours and its peers go through the same loop: one of Effect's own for effects, one `for` for promises, for operations and
 *    for plain calls. What the loop costs stands in every figure, and brings a ratio nearer to 1, never away from it.
 * 2. A result that is not what was expected throws. The check is a comparison or two, so that it costs nothing to speak of.
 */
import * as Effect from "effect/Effect"
import * as Effection from "effection"

/** Runs what is measured so many times. */
export type Batch = (times: number) => unknown

export type Check<A> = (value: A) => boolean

const wrong = (value: unknown): never => {
  throw new Error(`A wrong result: ${JSON.stringify(value) ?? String(value)}`)
}

/** An operation again and again in one fiber, made anew each time, as it is in a program. */
export const repeat = <A, E, R>(
  times: number,
  operation: () => Effect.Effect<A, E, R>,
  check: Check<A>
): Effect.Effect<void, E, R> => {
  let left = times
  return Effect.whileLoop({
    while: () => left-- > 0,
    body: operation,
    step: (value) => (check(value) ? undefined : wrong(value))
  })
}

/** An effect that is made anew each time; `around` gives it what it stands in. */
export const effects =
  <A, E, R = never>(
    operation: () => Effect.Effect<A, E, R>,
    check: Check<A>,
    around?: (work: Effect.Effect<void, E, R>) => Effect.Effect<unknown, E>
  ): Batch =>
  (times) => {
    const work = repeat(times, operation, check)
    return Effect.runPromise((around?.(work) ?? work) as Effect.Effect<unknown, E>)
  }

/** A loop that is written out, because it stands in something: a task scope, an owner, a `Scope`. */
export const within =
  <E>(program: (times: number) => Effect.Effect<unknown, E>): Batch =>
  (times) =>
    Effect.runPromise(program(times))

/** A function that gives a promise. */
export const promises =
  <A>(operation: () => PromiseLike<A>, check: Check<A>): Batch =>
  async (times) => {
    for (let i = 0; i < times; i++) {
      const value = await operation()
      if (!check(value)) wrong(value)
    }
  }

/** An operation of effection. */
export const operations =
  <A>(operation: () => Effection.Operation<A>, check: Check<A>): Batch =>
  (times) =>
    Effection.run(function* () {
      for (let i = 0; i < times; i++) {
        const value = yield* operation()
        if (!check(value)) wrong(value)
      }
    })
