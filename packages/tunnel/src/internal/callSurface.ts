/**
 * What all call objects share: what a handler asks of them, whom they ask, and what they are told.
 *
 * **Invariants**
 * 1. The objects hold no state of the protocol: everything they are told goes to their `Host` and back.
 * 2. What they share stands on their prototypes: a call costs one object and no closure.
 */
import type { CancelReason } from "@curfew/reason"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import type { TunnelOrigin } from "../TunnelAuth.ts"
import { type CallInfo, infoKey } from "./callInfo.ts"
import type { AuthContext } from "./link.ts"
import { isMetadata } from "./metadata.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"

export type WriteCallback = (error?: Error | null) => void

export const hostKey: unique symbol = Symbol("host")

/** What a call object needs of the stream behind it. */
export interface Host {
  /** What the library knows of the call. */
  readonly info: CallInfo
  readonly path: string
  readonly metadata: Metadata
  readonly peer: string
  readonly origin: TunnelOrigin
  readonly authContext: AuthContext
  readonly deadline: number
  readonly sendHeaders: (metadata: Metadata) => void
  readonly sendMessage: (value: unknown, callback: WriteCallback) => void
  readonly sendStatus: (status: RpcStatus) => void
  readonly read: () => void
}

/** What the stream tells its call object. */
export interface CallObject {
  cancelled: boolean
  readonly emit: (event: string, ...args: Array<unknown>) => boolean
  /** The call was cancelled: tells listeners why, then ends the streams. */
  readonly tellCancelled: (reason: CancelReason) => void
  /** The handler's promise has settled: a call that it destroyed gets no other answer any more. */
  readonly tellLeft: () => void
}

/** The status of what a handler threw, rejected with, emitted or passed to its callback. */
export const statusOfError = (error: unknown, trailers?: Metadata | null): RpcStatus => {
  if (typeof error !== "object" || error === null) return makeStatus(Code.UNKNOWN, "Unknown error", trailers)
  const { code, details, message, metadata } = error as {
    code?: unknown
    details?: unknown
    message?: unknown
    metadata?: unknown
  }
  const text = typeof message === "string" ? message : "Unknown error"
  const carried = trailers ?? (isMetadata(metadata) ? metadata : null)
  if (typeof code !== "number" || code !== (code | 0)) return makeStatus(Code.UNKNOWN, text, carried)
  return makeStatus(code, typeof details === "string" ? details : text, carried)
}

// A registered symbol: whoever handles calls of both kinds can tell them apart without this package.
export const transportKey: unique symbol = /* @__PURE__ */ Symbol.for("curfew.transport")

/** Under this one stands the tunnel that the call came through. */
const originKey: unique symbol = /* @__PURE__ */ Symbol.for("curfew.tunnel")

const noMetrics = new Proxy({}, { get: () => () => undefined })

/** The part that all four kinds share; grpc-js calls it the surface. It stands on their prototypes. */
export const surface: PropertyDescriptorMap & ThisType<Handled> = {
  [transportKey]: { value: "tunnel" },
  [originKey]: {
    get() {
      return this[hostKey].origin
    }
  },
  [infoKey]: {
    get() {
      return this[hostKey].info
    }
  },
  getPeer: {
    value() {
      return this[hostKey].peer
    }
  },
  getPath: {
    value() {
      return this[hostKey].path
    }
  },
  getHost: {
    value() {
      return this[hostKey].peer
    }
  },
  getDeadline: {
    value() {
      return this[hostKey].deadline
    }
  },
  getAuthContext: {
    value() {
      return this[hostKey].authContext
    }
  },
  getMetricsRecorder: { value: () => noMetrics },
  sendMetadata: {
    value(metadata: Metadata) {
      this[hostKey].sendHeaders(metadata)
    }
  }
}

export interface Handled {
  readonly [hostKey]: Host
}

/** The answer of a unary or client-streaming handler. */
export const responder =
  (host: Host) =>
  (error: unknown, value?: unknown, trailers?: Metadata | null): void => {
    if (error !== null && error !== undefined) {
      host.sendStatus(statusOfError(error, trailers))
      return
    }
    host.sendMessage(value, ignore)
    host.sendStatus(makeStatus(Code.OK, "OK", trailers))
  }

export const ignore = (): void => undefined
