/**
 * Values by name, and who waits for a name's value to change.
 *
 * Invariants
 * 1. Nothing is queued: who comes late finds the newest value.
 * 2. After `close` every name has the last value, and no name changes.
 * 3. A wait that is interrupted leaves no listener behind.
 */
import * as Effect from "effect/Effect"

export class Watched<A> {
  closed = false
  readonly #values = new Map<string, A>()
  readonly #waiters = new Set<() => void>()

  get(name: string): A | undefined {
    return this.#values.get(name)
  }

  entries(): ReadonlyArray<readonly [string, A]> {
    return [...this.#values]
  }

  get waiting(): number {
    return this.#waiters.size
  }

  set(name: string, value: A): void {
    if (this.closed) return
    this.#values.set(name, value)
    this.#wake()
  }

  remove(name: string): void {
    if (this.closed) return
    this.#values.delete(name)
    this.#wake()
  }

  close(last: A): void {
    if (this.closed) return
    for (const name of this.#values.keys()) this.#values.set(name, last)
    this.closed = true
    this.#wake()
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter()
  }

  /** The value of a name as soon as it is news; `undefined` when there is none, and when there will be no news. */
  next(name: string, isNews: (value: A | undefined) => boolean): Effect.Effect<A | undefined> {
    return Effect.callback((resume) => {
      const look = (): boolean => {
        const value = this.#values.get(name)
        if (isNews(value)) resume(Effect.succeed(value))
        else if (this.closed) resume(Effect.succeed(undefined))
        else return false
        this.#waiters.delete(look)
        return true
      }
      if (look()) return undefined
      this.#waiters.add(look)
      return Effect.sync(() => {
        this.#waiters.delete(look)
      })
    })
  }
}
