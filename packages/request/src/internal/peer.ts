/**
 * The state behind a peer signal.
 *
 * Invariants
 * 1. Gone and completed exclude each other: the first of the two stands, the other does nothing and says so. An
 *    event that a transport sends after every answer therefore cancels nothing.
 * 2. The reason stands before the first listener is called, and the ear hears of it before any.
 * 3. Stopping is the server's own doing and independent of both: a stopped call still has its answer to send.
 */
import type { CancelReason } from "@curfew/reason"
import * as Effect from "effect/Effect"
import type { PeerSignal, PeerState } from "../PeerSignal.ts"
import { Once } from "./once.ts"

/** The call of the signal, where it listens without a callback. */
export interface Ear {
  readonly peerGone: (reason: CancelReason) => void
  readonly stopped: (reason: CancelReason) => void
}

export class Peer implements PeerSignal {
  readonly goneOnce = new Once<CancelReason>()
  // Most calls are not stopped, and nobody waits for their completion.
  #stopOnce: Once<CancelReason> | undefined = undefined
  #completedOnce: Once<true> | undefined = undefined
  #completed = false
  ear: Ear | undefined = undefined
  /** A dropped write has been logged. */
  logged = false

  get stopOnce(): Once<CancelReason> {
    if (this.#stopOnce === undefined) this.#stopOnce = new Once()
    return this.#stopOnce
  }

  get stopReason(): CancelReason | undefined {
    return this.#stopOnce?.value
  }

  get completedOnce(): Once<true> {
    if (this.#completedOnce === undefined) {
      this.#completedOnce = new Once()
      if (this.#completed) this.#completedOnce.fire(true)
    }
    return this.#completedOnce
  }

  /** `completeUnsafe` without a function of its own. */
  noteCompleted(): boolean {
    if (this.#completed || this.goneOnce.value !== undefined) return false
    this.#completed = true
    this.#completedOnce?.fire(true)
    return true
  }

  // Functions of their own, so that they can be handed on as callbacks; made when somebody asks.
  get goneUnsafe(): PeerSignal["goneUnsafe"] {
    return (reason) => {
      if (this.#completed || !this.goneOnce.set(reason)) return false
      this.ear?.peerGone(reason)
      this.goneOnce.tell(reason)
      return true
    }
  }

  get completeUnsafe(): PeerSignal["completeUnsafe"] {
    return () => this.noteCompleted()
  }

  get stopUnsafe(): PeerSignal["stopUnsafe"] {
    return (reason) => {
      if (this.#completed || !this.stopOnce.set(reason)) return false
      this.ear?.stopped(reason)
      this.stopOnce.tell(reason)
      return true
    }
  }

  get gone(): PeerSignal["gone"] {
    return (reason) => Effect.sync(() => this.goneUnsafe(reason))
  }

  get complete(): PeerSignal["complete"] {
    return Effect.sync(this.completeUnsafe)
  }

  get stop(): PeerSignal["stop"] {
    return (reason) => Effect.sync(() => this.stopUnsafe(reason))
  }

  get state(): PeerState {
    if (this.goneOnce.value !== undefined) return "gone"
    return this.#completed ? "completed" : "waiting"
  }
}
