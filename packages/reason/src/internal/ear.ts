/**
 * What hears a cancel from above and cannot cancel anything: a signal. All that can is a `CancelCell`.
 *
 * Invariants
 * 1. Who only listens carries nothing of what a cancel does to fibers.
 * 2. A listener is called once, in the turn of the cancel. One that was removed by then is not called.
 */
import type { CancelReason } from "../CancelReason.ts"
import { Cell, type Listener, nothing } from "./cell.ts"
import type { Attempt } from "./turn.ts"

/**
 * A cell with listeners.
 *
 * @stability internal
 * @since 0.1.0
 */
export class Ear extends Cell {
  /** For cells alone. Few have a listener, and of those most have one. */
  listeners: Listener | Set<Listener> | undefined = undefined

  /**
   * Calls back once, in the turn of the cancel, after all interrupts are pending. A cell that is cancelled already
   * never calls back: look at `reason` first. Returns the removal.
   */
  override listen(listener: Listener): () => void {
    if (this.reason !== undefined) return nothing
    const { listeners } = this
    if (listeners === undefined) this.listeners = listener
    else if (listeners instanceof Set) listeners.add(listener)
    else this.listeners = new Set([listeners, listener])
    return () => {
      if (this.listeners === listener) this.listeners = undefined
      else if (this.listeners instanceof Set) this.listeners.delete(listener)
    }
  }

  /** For the cancel that has reached it. One that comes meanwhile was not taken in. */
  tell(reason: CancelReason, attempt: Attempt): void {
    const { listeners } = this
    if (listeners === undefined) return
    if (listeners instanceof Set) for (const listener of listeners) attempt(listener, reason, undefined)
    else attempt(listeners, reason, undefined)
    this.listeners = undefined
  }
}
