/**
 * Messages on their way into a channel's call: each is handed over when the channel has taken the one before.
 *
 * Invariants
 * 1. One message is being written at a time. A callback that comes twice counts once.
 * 2. A channel that calls back at once is not called from within its own callback: however many messages, the stack stays
 *    as deep as for one.
 * 3. `over` is told once: that the last message was taken, or what handing one over threw. Once stopped, nothing is
 *    handed over, and nobody is told.
 */

interface Context {
  readonly callback: () => void
}

export class Writing<Message> {
  readonly #messages: ReadonlyArray<Message>
  readonly #put: (context: Context, message: Message) => void
  readonly #over: (thrown: { readonly error: unknown } | undefined) => void
  #written = 0
  #putting = false
  #stopped = false

  constructor(
    messages: ReadonlyArray<Message>,
    put: (context: Context, message: Message) => void,
    over: (thrown: { readonly error: unknown } | undefined) => void
  ) {
    this.#messages = messages
    this.#put = put
    this.#over = over
  }

  stop(): void {
    this.#stopped = true
  }

  /** Goes on behind the messages that were taken. */
  go(): void {
    if (this.#putting) return
    this.#putting = true
    try {
      for (let before = -1; before !== this.#written && !this.#stopped; ) {
        before = this.#written
        if (before === this.#messages.length) this.#end(undefined)
        else this.#put({ callback: () => this.#taken(before) }, this.#messages[before] as Message)
      }
    } catch (error) {
      this.#end({ error })
    } finally {
      this.#putting = false
    }
  }

  #taken(index: number): void {
    if (index !== this.#written) return
    this.#written++
    this.go()
  }

  #end(thrown: { readonly error: unknown } | undefined): void {
    if (this.#stopped) return
    this.#stopped = true
    this.#over(thrown)
  }
}
