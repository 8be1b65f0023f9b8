/**
 * Whether new streams are let in, and how many run: what a drain needs to know of one tunnel, or of the tunnels of one
 * service.
 *
 * **Invariants**
 * 1. `refuse` is final, and told once to everybody who listens.
 * 2. `enter` and `leave` are paired by a stream's life, so the count is that of streams whose last finalizer has not run.
 * 3. A handler that its stream left behind, because it does not end when it is cancelled, still counts as a handler.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

export class Admission {
  private running = 0
  private closed = false
  private handlers = 0
  readonly maxHandlers: number
  private readonly waiters = new Set<() => void>()
  private readonly listeners = new Set<() => void>()

  constructor(maxHandlers = Number.POSITIVE_INFINITY) {
    this.maxHandlers = maxHandlers
  }

  /** As many handlers run as may. */
  get full(): boolean {
    return this.handlers >= this.maxHandlers
  }

  handlerStarts(): void {
    this.handlers++
  }

  handlerEnds(): void {
    this.handlers--
  }

  get refusing(): boolean {
    return this.closed
  }

  refuse(): void {
    if (this.closed) return
    this.closed = true
    for (const listener of this.listeners) listener()
    this.listeners.clear()
  }

  /** Calls back when new streams are refused, now if they are already; gives what stops that. */
  onRefuse(listener: () => void): () => void {
    if (this.closed) listener()
    else this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  enter(): void {
    this.running++
  }

  leave(): void {
    if (--this.running > 0) return
    for (const waiter of this.waiters) waiter()
    this.waiters.clear()
  }

  /** Waits until nothing runs: true, or false when the limit passed first. */
  idle(limit: Duration.Input = Duration.infinity): Effect.Effect<boolean> {
    const wait = Effect.callback<void>((resume) => {
      if (this.running === 0) return resume(Effect.void)
      const waiter = () => resume(Effect.void)
      this.waiters.add(waiter)
      return Effect.sync(() => this.waiters.delete(waiter))
    })
    return Effect.map(Effect.timeoutOption(wait, limit), Option.isSome)
  }
}
