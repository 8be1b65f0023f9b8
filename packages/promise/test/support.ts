import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest"
import type { CancelReason } from "../src/index.ts"

/** Work that never ends by itself, and rejects with what it is aborted with. */
export const hangs = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    const abort = () => reject(signal.reason)
    if (signal.aborted) abort()
    else signal.addEventListener("abort", abort, { once: true })
  })

export interface Gate<A = void> {
  readonly open: (value: A) => void
  readonly fail: (error: unknown) => void
  readonly promise: Promise<A>
}

/** A promise that the test settles. */
export const gate = <A = void>(): Gate<A> => {
  let resolve!: (value: A) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<A>((onValue, onError) => {
    resolve = onValue
    reject = onError
  })
  promise.catch(() => {})
  return { open: resolve, fail: reject, promise }
}

/** Work that says when it has been called and ignores its signal. */
export const stubborn = <A = void>() => {
  const called = gate<AbortSignal>()
  const end = gate<A>()
  const work = (signal: AbortSignal): Promise<A> => {
    called.open(signal)
    return end.promise
  }
  return { called: called.promise, end, work }
}

/** Lets everything that waits for microtasks alone go on. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

export const caught = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    (value) => {
      throw new Error(`It gave ${String(value)} where an error was wanted.`)
    },
    (error: unknown) => error
  )

export const reasonOf = async (promise: Promise<unknown>): Promise<CancelReason> => {
  const error = (await caught(promise)) as { readonly name: string; readonly reason: CancelReason }
  expect(error.name).toBe("AbortError")
  return error.reason
}

/** Fails the test file's tests in which a rejection was left unhandled. */
export const watchUnhandled = () => {
  const unhandled: Array<unknown> = []
  const hear = (error: unknown) => {
    unhandled.push(error)
  }
  let others: Array<(...args: Array<unknown>) => void> = []
  beforeAll(() => {
    others = process.listeners("unhandledRejection") as typeof others
    process.removeAllListeners("unhandledRejection")
    process.on("unhandledRejection", hear)
  })
  beforeEach(() => {
    unhandled.length = 0
  })
  afterEach(async () => {
    await turn()
    expect(unhandled).toEqual([])
  })
  afterAll(() => {
    process.off("unhandledRejection", hear)
    for (const other of others) process.on("unhandledRejection", other)
  })
  return unhandled
}
