/**
 * What the library knows about a handler's call object, beside the object.
 *
 * **Invariants**
 * 1. Nothing is added to the call object itself, and nothing here keeps it alive.
 * 2. The signal is made when somebody asks for it, and aborts exactly when the call is cancelled.
 */
import type { CancelReason } from "@curfew/reason"
import type { Metadata } from "@grpc/grpc-js"

export interface CallInfo {
  readonly peer: string
  readonly outerMetadata: Metadata
  reason: CancelReason | undefined
  abort: AbortController | undefined
}

const infos = new WeakMap<object, CallInfo>()

export const remember = (call: object, info: CallInfo): void => {
  infos.set(call, info)
}

export const infoOf = (call: object): CallInfo | undefined => infos.get(call)
