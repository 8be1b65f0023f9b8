/**
 * The state behind a peer signal.
 *
 * Invariants
 * 1. Gone and completed exclude each other: the first of the two stands, the other does nothing and says so. An
 *    event that a transport sends after every answer therefore cancels nothing.
 * 2. The reason stands before the first listener is called.
 * 3. Stopping is the server's own doing and independent of both: a stopped call still has its answer to send.
 */
import type { CancelReason } from "@curfew/reason"
import * as Effect from "effect/Effect"
import type { PeerSignal, PeerState } from "../PeerSignal.ts"
import { Once } from "./once.ts"

export class Peer implements PeerSignal {
  readonly goneOnce = new Once<CancelReason>()
  readonly completedOnce = new Once<true>()
  readonly stopOnce = new Once<CancelReason>()
  /** A dropped write has been logged. */
  logged = false

  // Functions of their own, so that they can be handed on as callbacks; made when somebody asks.
  get goneUnsafe(): PeerSignal["goneUnsafe"] {
    return (reason) => this.completedOnce.value === undefined && this.goneOnce.fire(reason)
  }

  get completeUnsafe(): PeerSignal["completeUnsafe"] {
    return () => this.goneOnce.value === undefined && this.completedOnce.fire(true)
  }

  get stopUnsafe(): PeerSignal["stopUnsafe"] {
    return (reason) => this.completedOnce.value === undefined && this.stopOnce.fire(reason)
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
    return this.completedOnce.value === undefined ? "waiting" : "completed"
  }
}
