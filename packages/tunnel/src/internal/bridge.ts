/**
 * The one place where promises of other people's code enter, and where a callback is put off without an owner.
 *
 * grpc-js has two promises: an `async` handler returns one that grpc-js itself would drop, and call credentials hand
 * out their metadata in one. Both have an end that somebody must see, a rejection too, or Node ends the process. And
 * a stub may call on a tunnel that is gone: it is owed a status, in a later turn, and no scope is left to owe it.
 *
 * **Invariants**
 * 1. Every promise gets both of its callbacks in the turn in which it is seen: none is left floating, and no
 *    rejection is ever unhandled.
 * 2. Nothing here starts a fiber. A fiber that is interrupted while it waits stops waiting; the promise goes on,
 *    and its outcome is dropped by callbacks that are already attached.
 * 3. `afterTurn` and `afterTurns` run one callback, hold nothing and cannot be waited for: they are for what needs no
 *    owner.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

export const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function"

/** How a promise settled, once it has. */
export class Settlement {
  private exit: Exit.Exit<unknown, unknown> | undefined
  private readonly waiters = new Set<() => void>()

  constructor(promise: PromiseLike<unknown>, onRejected: (error: unknown) => void) {
    promise.then(
      (value) => this.settle(Exit.succeed(value)),
      (error) => {
        onRejected(error)
        this.settle(Exit.fail(error))
      }
    )
  }

  private settle(exit: Exit.Exit<unknown, unknown>): void {
    this.exit = exit
    for (const waiter of this.waiters) waiter()
    this.waiters.clear()
  }

  get isSettled(): boolean {
    return this.exit !== undefined
  }

  /** Calls back once the promise has settled, either way; gives what stops that. */
  whenSettled(waiter: () => void): () => void {
    if (this.exit !== undefined) waiter()
    else this.waiters.add(waiter)
    return () => this.waiters.delete(waiter)
  }

  /** Waits until the promise has settled, either way. */
  readonly settled: Effect.Effect<void> = Effect.callback<void>((resume) =>
    Effect.sync(this.whenSettled(() => resume(Effect.void)))
  )
}

/** The value of a promise that is asked for now. */
export const fromPromise = <A>(ask: () => PromiseLike<A>): Effect.Effect<A, unknown> =>
  Effect.tryPromise({ try: ask, catch: (error) => error })

/** Calls back once the event loop has gone round so often: what has arrived by now has been heard of by then. */
export const afterTurns = (count: number, callback: () => void): void => {
  setImmediate(() => (count > 1 ? afterTurns(count - 1, callback) : callback()))
}

/** Calls back once the current turn is over. */
export const afterTurn = (callback: () => void): void => process.nextTick(callback)
