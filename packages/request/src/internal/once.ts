/**
 * Something that happens at most once, and who wants to hear of it.
 *
 * Invariants
 * 1. The value stands before the first listener is called, so a listener that looks sees it.
 * 2. Each listener is called at most once, and never after its removal.
 * 3. After the value stands nobody is kept: listeners are let go of, later ones are not taken.
 */
import * as Effect from "effect/Effect"
import * as Fn from "effect/Function"

type Listener<T> = (value: T) => void

export class Once<T> {
  value: T | undefined = undefined
  // Most have one listener.
  #listeners: Listener<T> | Set<Listener<T>> | undefined = undefined

  /** True iff this call was the first. */
  fire(value: T): boolean {
    if (!this.set(value)) return false
    this.tell(value)
    return true
  }

  /** Lets the value stand, for who tells somebody else before the listeners. */
  set(value: T): boolean {
    if (this.value !== undefined) return false
    this.value = value
    return true
  }

  tell(value: T): void {
    const listeners = this.#listeners
    if (listeners instanceof Set) for (const listener of listeners) listener(value)
    else listeners?.(value)
    this.#listeners = undefined
  }

  /** Never calls back when the value stands already: look at `value` first. Returns the removal. */
  listen(listener: Listener<T>): () => void {
    if (this.value !== undefined) return Fn.constVoid
    const listeners = this.#listeners
    if (listeners === undefined) this.#listeners = listener
    else if (listeners instanceof Set) listeners.add(listener)
    else this.#listeners = new Set([listeners, listener])
    return () => {
      if (this.#listeners instanceof Set) this.#listeners.delete(listener)
      else if (this.#listeners === listener) this.#listeners = undefined
    }
  }

  get listenerCount(): number {
    const listeners = this.#listeners
    return listeners instanceof Set ? listeners.size : listeners === undefined ? 0 : 1
  }

  /** Waits for the value; an interrupted wait leaves no listener behind. */
  get await(): Effect.Effect<T> {
    return Effect.callback((resume) => {
      if (this.value !== undefined) {
        resume(Effect.succeed(this.value))
        return
      }
      return Effect.sync(this.listen((value) => resume(Effect.succeed(value))))
    })
  }
}
