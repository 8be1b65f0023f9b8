/**
 * What the library knows about a handler's call object.
 *
 * **Invariants**
 * 1. It is found through a symbol on the prototype, so a call object has no property more than in grpc-js.
 * 2. The signal is made when somebody asks for it, and aborts exactly when the call is cancelled.
 */
import type { CancelReason } from "@curfew/reason"
import type { TunnelOrigin } from "../TunnelAuth.ts"
import type { TunnelChannel } from "../TunnelChannel.ts"

export interface CallInfo {
  readonly origin: TunnelOrigin
  reason: CancelReason | undefined
  abort: AbortController | undefined
}

/** Under this one a call object of a tunnel leads to what is known of it. */
export const infoKey: unique symbol = Symbol("info")

/** `undefined` for a call that did not come through a tunnel. */
export const infoOf = (call: object): CallInfo | undefined =>
  (call as { readonly [infoKey]?: CallInfo })[infoKey]

const channels = new WeakMap<object, TunnelChannel>()

/** Remembers the channel of a tunnel by the authentication context that all its calls tell. */
export const rememberChannel = (authContext: object, channel: TunnelChannel): void => {
  channels.set(authContext, channel)
}

export const channelOf = (authContext: object): TunnelChannel | undefined => channels.get(authContext)
