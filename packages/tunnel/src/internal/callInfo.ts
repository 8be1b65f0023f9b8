/**
 * What the library knows about a handler's call object, beside the object.
 *
 * **Invariants**
 * 1. Nothing is added to the call object itself, and nothing here keeps it alive.
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

const infos = new WeakMap<object, CallInfo>()

export const remember = (call: object, info: CallInfo): void => {
  infos.set(call, info)
}

export const infoOf = (call: object): CallInfo | undefined => infos.get(call)

const channels = new WeakMap<object, TunnelChannel>()

/** Remembers the channel of a tunnel by the authentication context that all its calls tell. */
export const rememberChannel = (authContext: object, channel: TunnelChannel): void => {
  channels.set(authContext, channel)
}

export const channelOf = (authContext: object): TunnelChannel | undefined => channels.get(authContext)
