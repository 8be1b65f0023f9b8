/**
 * The state behind a peer signal.
 *
 * Invariants
 * 1. Gone and completed exclude each other: the first of the two stands, the other does nothing and says so. An
 *    event that a transport sends after every answer therefore cancels nothing.
 * 2. The reason stands before the first listener is called.
 * 3. Stopping is the server's own doing and independent of both: a stopped call still has its answer to send.
 * 4. A signal that nobody asks costs one object: what most calls need none of is made when it is asked for.
 */
import type { CancelReason } from "@curfew/reason"
import * as Effect from "effect/Effect"
import type { PeerSignal, PeerState } from "../PeerSignal.ts"
import { Once } from "./once.ts"

/** The call of the signal, which is told before anybody who listens. */
export interface Ear {
  readonly peerGone: (reason: CancelReason) => void
  readonly stopped: (reason: CancelReason) => void
}

export class Peer implements PeerSignal {
  ear: Ear | undefined
  readonly goneOnce = new Once<CancelReason>()
  readonly stopOnce = new Once<CancelReason>()
  #completed = false
  #completedOnce: Once<true> | undefined
  /** A dropped write has been logged. */
  logged = false

  get completedOnce(): Once<true> {
    if (this.#completedOnce === undefined) {
      this.#completedOnce = new Once()
      if (this.#completed) this.#completedOnce.fire(true)
    }
    return this.#completedOnce
  }

  goneUnsafe(reason: CancelReason): boolean {
    if (this.#completed || !this.goneOnce.set(reason)) return false
    this.ear?.peerGone(reason)
    this.goneOnce.tell(reason)
    return true
  }

  completeUnsafe(): boolean {
    if (this.#completed || this.goneOnce.value !== undefined) return false
    this.#completed = true
    this.#completedOnce?.fire(true)
    return true
  }

  stopUnsafe(reason: CancelReason): boolean {
    if (this.#completed || !this.stopOnce.set(reason)) return false
    this.ear?.stopped(reason)
    this.stopOnce.tell(reason)
    return true
  }

  gone(reason: CancelReason): Effect.Effect<boolean> {
    return Effect.sync(() => this.goneUnsafe(reason))
  }

  get complete(): Effect.Effect<boolean> {
    return Effect.sync(() => this.completeUnsafe())
  }

  stop(reason: CancelReason): Effect.Effect<boolean> {
    return Effect.sync(() => this.stopUnsafe(reason))
  }

  get state(): PeerState {
    if (this.goneOnce.value !== undefined) return "gone"
    return this.#completed ? "completed" : "waiting"
  }
}
