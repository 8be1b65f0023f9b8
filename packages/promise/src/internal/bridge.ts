/**
 * The bridge between promises and fibers. The only place in this package where a promise is made or listened to.
 *
 * Invariants
 * 1. Work is called in a microtask of its own: never inside a start or an end of a fiber, so neither nesting nor a
 *    throwing listener can reach the mechanism, and a synchronous throw is a rejection.
 * 2. Both outcomes of every promise that is listened to are handled where it is listened to.
 * 3. A promise that is made here settles with the exit of one fiber.
 * 4. A cancellation is no failure: a promise that is rejected with a `Cancelled` and that nobody awaits is not an unhandled
 *    rejection of the process.
 */
import type * as Fiber from "effect/Fiber"
import { isCancelled } from "../Cancelled.ts"
import { errorOf } from "./errors.ts"

/** Calls the work in a microtask and tells how its promise settled. */
export const begin = <A>(
  work: () => A | PromiseLike<A>,
  settled: (result: PromiseSettledResult<A>) => void
): void => {
  Promise.resolve().then(() => {
    running(work).then(
      (value) => settled({ status: "fulfilled", value }),
      (reason: unknown) => settled({ status: "rejected", reason })
    )
  })
}

/** Tells how a promise settles that is there already. */
export const follow = <A>(
  promise: PromiseLike<A>,
  settled: (result: PromiseSettledResult<A>) => void
): void => {
  promise.then(
    (value) => settled({ status: "fulfilled", value }),
    (reason: unknown) => settled({ status: "rejected", reason })
  )
}

/** What throws at once is told no earlier than what rejects at once: the order of failures is that of the calls. */
const running = <A>(work: () => A | PromiseLike<A>): Promise<A> => {
  try {
    return Promise.resolve(work()) as Promise<A>
  } catch (error) {
    return Promise.reject(error)
  }
}

/** The end of a fiber as a promise. */
export const toPromise = <A>(fiber: Fiber.Fiber<A, unknown>): Promise<A> => {
  let resolve!: (value: A) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<A>((onValue, onError) => {
    resolve = onValue
    reject = onError
  })
  fiber.addObserver((exit) => {
    if (exit._tag === "Success") return resolve(exit.value)
    const error = errorOf(exit.cause)
    if (isCancelled(error)) quiet(promise)
    reject(error)
  })
  return promise
}

/** For a promise whose rejection has another receiver besides, or needs none: nobody need listen to it. */
export const quiet = <A>(promise: Promise<A>): Promise<A> => {
  promise.then(undefined, () => {})
  return promise
}

export const rejected = (error: unknown): Promise<never> => {
  const promise = Promise.reject(error)
  return isCancelled(error) ? quiet(promise) : promise
}

export const resolved: Promise<void> = /* @__PURE__ */ Promise.resolve()
