/** One way to make the measured calls. Everything that it gives back has been checked: a wrong result is a failure. */
import type { Order } from "./wire.ts"

export interface Running {
  readonly done: Promise<void>
  readonly cancel: () => Promise<void>
}

export interface Driver {
  /** Makes one small call; `done` is called once. */
  readonly issue: (number: number, done: (error?: unknown) => void) => void
  /** One caller: makes small calls, one after the other, as long as it is given numbers. */
  readonly loop: (wrapped: boolean, until: () => number | undefined) => Promise<void>
  readonly download: (order: Order, number: number, onMessage?: () => void) => Running
  readonly upload: (order: Order, number: number) => Promise<void>
  /** Where handlers have scopes: cancels calls, and waits for the handler's *released*. */
  readonly releases?: (count: number) => Promise<Releases>
}

interface Releases {
  readonly releasedMicros: ReadonlyArray<number>
  readonly roundTripMicros: ReadonlyArray<number>
}

/** A promise and who settles it. */
export const deferred = <A>() => {
  let [resolve, reject]: [(value: A) => void, (error: unknown) => void] = [() => undefined, () => undefined]
  const promise = new Promise<A>((succeed, fail) => {
    resolve = succeed
    reject = fail
  })
  return { promise, resolve, reject }
}
