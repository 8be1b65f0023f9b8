import type { CancelReason } from "@curfew/reason"
import type { Metadata } from "@grpc/grpc-js"
import { infoOf } from "./internal/callInfo.ts"

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
 * The tunnel that a handler's call came through: the peer of its outer call and what that peer said on opening it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const tunnel = (call: object): { readonly peer: string; readonly metadata: Metadata } | undefined => {
  const info = infoOf(call)
  return info === undefined ? undefined : { peer: info.peer, metadata: info.outerMetadata }
}
