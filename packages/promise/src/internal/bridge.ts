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
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { isCancelled } from "../Cancelled.ts"
import { errorOf } from "./errors.ts"

/** Work, and who hears how its promise settled. */
export interface Beginning<A> {
  readonly call: () => A | PromiseLike<A>
  readonly settled: (result: PromiseSettledResult<A>) => void
}

/** Calls the work in a microtask and tells how its promise settled. */
export const begin = <A>(beginning: Beginning<A>): void => {
  resolved.then(() => follow(running(beginning), beginning))
}

/** Tells how a promise settles that is there already. */
export const follow = <A>(promise: PromiseLike<A>, heard: Pick<Beginning<A>, "settled">): void => {
  promise.then(
    (value) => heard.settled({ status: "fulfilled", value }),
    (reason: unknown) => heard.settled({ status: "rejected", reason })
  )
}

/** What throws at once is told no earlier than what rejects at once: the order of failures is that of the calls. */
const running = <A>(work: Beginning<A>): Promise<A> => {
  try {
    return Promise.resolve(work.call()) as Promise<A>
  } catch (error) {
    return Promise.reject(error)
  }
}

/** The end of a fiber as a promise. */
export const toPromise = <A>(fiber: Fiber.Fiber<A, unknown>): Promise<A> => {
  const pledge = new Pledge<A>()
  fiber.addObserver((exit) => pledge.settle(exit))
  return pledge.promise
}

/** A promise that is made before who settles it. */
export class Pledge<A> {
  readonly promise: Promise<A>
  #resolve!: (value: A) => void
  #reject!: (error: unknown) => void

  constructor() {
    this.promise = new Promise<A>((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  /** Settles it with the exit of the work. */
  settle(exit: Exit.Exit<A, unknown>): void {
    if (exit._tag === "Success") this.#resolve(exit.value)
    else this.refuse(errorOf(exit.cause))
  }

  refuse(error: unknown): void {
    this.#reject(error)
    if (isCancelled(error)) quiet(this.promise)
  }
}

/** A promise that has settled with the exit. */
export const ended = <A>(exit: Exit.Exit<A, unknown>): Promise<A> =>
  exit._tag === "Success" ? Promise.resolve(exit.value) : rejected(errorOf(exit.cause))

/** For a promise whose rejection has another receiver besides, or needs none: nobody need listen to it. */
export const quiet = <A>(promise: Promise<A>): Promise<A> => {
  promise.then(undefined, ignore)
  return promise
}

const ignore = (): void => {}

export const rejected = (error: unknown): Promise<never> => {
  const promise = Promise.reject(error)
  return isCancelled(error) ? quiet(promise) : promise
}

export const resolved: Promise<void> = /* @__PURE__ */ Promise.resolve()
