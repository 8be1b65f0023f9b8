/**
 * Where this package meets promises: the only module in which one is made.
 *
 * Invariants
 * 1. A promise that is made here settles with the exit of one fiber, or when its maker says so.
 * 2. A promise of a fiber that cannot fail does not reject, so nobody need listen to it.
 */
import * as Cause from "effect/Cause"
import type * as Fiber from "effect/Fiber"

export interface Deferred<A> {
  readonly promise: Promise<A>
  readonly resolve: (value: A) => void
  readonly reject: (error: unknown) => void
}

export const deferred = <A>(): Deferred<A> => {
  let resolve!: (value: A) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<A>((onValue, onError) => {
    resolve = onValue
    reject = onError
  })
  return { promise, resolve, reject }
}

/** The end of a fiber as a promise. */
export const toPromise = <A>(fiber: Fiber.Fiber<A, unknown>): Promise<A> => {
  const { promise, reject, resolve } = deferred<A>()
  fiber.addObserver((exit) => {
    if (exit._tag === "Success") resolve(exit.value)
    else reject(Cause.squash(exit.cause))
  })
  return promise
}

/** The same promise, and a call when it has settled either way. */
export const settledThen = <A>(promise: Promise<A>, then: () => void): Promise<A> => {
  promise.then(then, then)
  return promise
}

/** What follows a promise that does not reject. */
export const mapped = <A, B>(promise: Promise<A>, map: (value: A) => B): Promise<B> => promise.then(map)

const isThenable = (given: unknown): given is PromiseLike<unknown> =>
  typeof given === "object" && given !== null && "then" in given && typeof given.then === "function"

/** Who waits for what a function gives. */
export interface Ear {
  readonly fulfilled: (value: unknown) => void
  readonly failed: (error: unknown) => void
}

/** Tells what a function of either kind gave: at once, or when its promise has settled. */
export const told = (given: unknown, ear: Ear): void => {
  if (isThenable(given)) {
    given.then(
      (value) => ear.fulfilled(value),
      (error) => ear.failed(error)
    )
  } else ear.fulfilled(given)
}

/** What a function of either kind gives, or nothing where it throws what may be thrown. */
export const caughtIf = (call: () => unknown, expected: (error: unknown) => boolean): unknown => {
  const look = (error: unknown): void => {
    if (!expected(error)) throw error
  }
  try {
    const given = call()
    return isThenable(given) ? given.then(undefined, look) : given
  } catch (error) {
    return look(error)
  }
}
