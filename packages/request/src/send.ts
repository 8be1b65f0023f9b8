import type { CancelReason } from "@curfew/reason"
import * as Effect from "effect/Effect"
import { CurrentCall } from "./internal/currentCall.ts"
import type { Peer } from "./internal/peer.ts"
import { sendTo } from "./internal/send.ts"
import type { PeerSignal } from "./PeerSignal.ts"

/**
 * What became of a write. That the peer has gone is an outcome like another: expected, and no error.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Sent<A> =
  | { readonly _tag: "Sent"; readonly value: A }
  | { readonly _tag: "PeerGone"; readonly reason: CancelReason }

/**
 * Writes to the peer of a call.
 *
 * **Guarantees**
 *
 * - **A value, not an exception (L41)**: when the peer has gone, or goes while the write waits, the outcome is
 *   `PeerGone`. A typed failure of a write to a peer that has gone is that as well; a defect stays one.
 * - **Never stuck**: a write that waits for a peer that left is interrupted; transports leave such writes hanging.
 * - **Logged at debug, once a call (L41)**.
 *
 * **When cancelled**
 *
 * Interrupts the write and waits for its clean-up.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelReason } from "@curfew/reason"
 * import { PeerSignal, send } from "@curfew/request"
 *
 * const peer = PeerSignal.makeUnsafe()
 * const first = Effect.runSync(send(Effect.succeed(5), { peer }))
 * first // => { _tag: "Sent", value: 5 }
 * peer.goneUnsafe(CancelReason.ClientGone({ transport: "ws" }))
 * const second = Effect.runSync(send(Effect.succeed(5), { peer }))
 * second._tag // => "PeerGone"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const send = <A, E, R>(
  write: Effect.Effect<A, E, R>,
  options?: {
    /** Default: the peer of the surrounding call. Without either the write is simply run. */
    readonly peer?: PeerSignal | undefined
  }
): Effect.Effect<Sent<A>, E, R> =>
  Effect.withFiber((fiber) => {
    const peer = options?.peer ?? fiber.getRef(CurrentCall)?.peer
    return peer === undefined
      ? Effect.map(write, (value): Sent<A> => ({ _tag: "Sent", value }))
      : sendTo(peer as Peer, write)
  })
