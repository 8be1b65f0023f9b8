import type { CancelReason } from "@curfew/reason"
import type { ClientUnaryCall } from "@grpc/grpc-js"
import { channelOf, infoOf } from "./internal/callInfo.ts"
import type { TunnelOrigin } from "./TunnelAuth.ts"
import type { TunnelChannel } from "./TunnelChannel.ts"

/**
 * A signal for a handler's call: aborts when the call is really cancelled, and never because it was answered. Its
 * `reason` is the {@link CancelReason}. `undefined` for a call that did not come through a tunnel.
 *
 * **When cancelled**
 *
 * Aborts in the turn in which the cancel arrives, before the `cancelled` event.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const signal = (call: object): AbortSignal | undefined => {
  const info = infoOf(call)
  if (info === undefined) return undefined
  if (info.abort === undefined) {
    info.abort = new AbortController()
    if (info.reason !== undefined) info.abort.abort(info.reason)
  }
  return info.abort.signal
}

/**
 * Why a handler's call was cancelled; `undefined` while it was not.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const reason = (call: object): CancelReason | undefined => infoOf(call)?.reason

/**
 * The tunnel that a handler's call came through: its peer, what that peer said on opening it, its certificate, and its
 * identity, which `authenticate` found out. A handler of `@curfew/grpc` has the same in `ServerCall.tunnel`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const tunnel = (call: object): TunnelOrigin | undefined => infoOf(call)?.origin

/**
 * The tunnel that serves a call of a stub: of a channel that picks, the one that it picked. `undefined` for a call that
 * goes through no tunnel, and while it waits for one.
 *
 * **Example**
 *
 * ```ts no-run
 * import type { Client } from "@grpc/grpc-js"
 * import { TunnelCall } from "@curfew/tunnel"
 *
 * declare const stub: Client // over `service.reverse.channel()`
 * const identity = (bytes: Buffer): Buffer => bytes
 * const call = stub.makeUnaryRequest("/demo.Voice/Shout", identity, identity, Buffer.from("hello"), () => undefined)
 * TunnelCall.servedBy(call)?.peer
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const servedBy = (call: Pick<ClientUnaryCall, "getAuthContext">): TunnelChannel | undefined => {
  const context = call.getAuthContext()
  return context === null ? undefined : channelOf(context)
}
