import * as Effect from "effect/Effect"

/** How often a process was asked to stop: each Ctrl-C, or message from its parent, is one press. */
export class Stop {
  #presses = 0
  #final = false
  readonly #waiters = new Set<() => void>()

  /** Whether anybody has asked. */
  get begun(): boolean {
    return this.#presses > 0
  }

  /** Asks once more: a shutdown that runs goes on to its next stage. */
  press(): void {
    this.#presses++
    for (const waiter of [...this.#waiters]) waiter()
  }

  /** Asks for everything at once: no stage waits any more. */
  pressForGood(): void {
    this.#final = true
    this.press()
  }

  /** Waits for the first press. */
  readonly requested: Effect.Effect<void> = Effect.suspend(() => this.#reach(1))

  /** Waits for one press more than there were. */
  readonly next: Effect.Effect<void> = Effect.suspend(() => this.#reach(this.#presses + 1))

  #reach(presses: number): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const look = () => {
        if (this.#presses < presses && !this.#final) return
        this.#waiters.delete(look)
        resume(Effect.void)
      }
      this.#waiters.add(look)
      look()
      return Effect.sync(() => this.#waiters.delete(look))
    })
  }
}
