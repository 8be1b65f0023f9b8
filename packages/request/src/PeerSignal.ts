import type { CancelReason } from "@curfew/reason"
import * as Effect from "effect/Effect"
import { Peer } from "./internal/peer.ts"

/**
 * Where a call stands on the wire: somebody `waiting` for the answer, `gone` before it was sent, or `completed`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type PeerState = "waiting" | "gone" | "completed"

/**
 * What an edge tells about the other end of one call. The edge makes it, hands it to `Endpoint.run`, and calls it from
 * its transport's events.
 *
 * **Guarantees**
 *
 * - **Completed is not cancelled (L40)**: the first of `gone` and `complete` stands. A `gone` after `complete` does
 *   nothing, so an event that a transport sends after every answer cancels nothing.
 * - **First wins (L1)**: each call returns true iff it was the first of its kind and took effect.
 *
 * **Example**
 *
 * ```ts
 * import { CancelReason } from "@curfew/reason"
 * import { PeerSignal } from "@curfew/request"
 *
 * const peer = PeerSignal.makeUnsafe()
 * peer.completeUnsafe() // => true
 * peer.goneUnsafe(CancelReason.ClientGone({ transport: "grpc" })) // => false
 * peer.state // => "completed"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface PeerSignal {
  /** The peer has left, or cancelled the call: `ClientGone`. */
  readonly gone: (reason: CancelReason) => Effect.Effect<boolean>
  /** The same from a callback. */
  readonly goneUnsafe: (reason: CancelReason) => boolean
  /** The answer has been handed to the transport, to its last byte. */
  readonly complete: Effect.Effect<boolean>
  /** The same from a callback. */
  readonly completeUnsafe: () => boolean
  /** The server ends the call for its own sake: a limit, an operator. Interrupts every handler, whatever its policy. */
  readonly stop: (reason: CancelReason) => Effect.Effect<boolean>
  /** The same from a callback. */
  readonly stopUnsafe: (reason: CancelReason) => boolean
  readonly state: PeerState
}

/**
 * A signal for one call, from a callback.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const makeUnsafe = (): PeerSignal => new Peer()

/**
 * A signal for one call.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { PeerSignal } from "@curfew/request"
 *
 * Effect.runSync(Effect.map(PeerSignal.make, (peer) => peer.state)) // => "waiting"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const make: Effect.Effect<PeerSignal> = /* @__PURE__ */ Effect.sync(makeUnsafe)
