/**
 * A handler's call without the objects of grpc-js: bytes in, bytes out, and one object that is told.
 *
 * A handler written for `grpc.Server` gets a call object with the streams of Node behind it, which hold more than the
 * rest of the call. A handler that has an entrance of its own, under a registered symbol, is called there instead; so
 * `@curfew/grpc` finds it without this package, and this package needs nothing of that one.
 *
 * **Invariants**
 * 1. The entrance is asked once for each call, in the place of the handler. What it throws is the call's answer.
 * 2. A receiver is told in the order in which things came: messages, each after a `read`, then the end, or the cancel.
 *    Nothing is told after the cancel, and nothing within the entrance itself.
 * 3. Messages are bytes both ways: no codec of the definition runs.
 */
import type { CancelReason } from "@curfew/reason"
import type { Metadata } from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import type { TunnelOrigin } from "../TunnelAuth.ts"

/** Under this one a handler has its entrance for plain calls. */
const plainKey: unique symbol = Symbol.for("curfew.plain") as never

/** What the handler's end is told. */
export interface PlainReceiver {
  readonly onMessage: (message: Buffer) => void
  /** The caller has half-closed. */
  readonly onEnd: () => void
  readonly onCancelled: (reason: CancelReason) => void
}

/** What it may do. */
export interface PlainCall {
  readonly path: string
  readonly metadata: Metadata
  /** The first value of one key of it: what is asked for in whole is kept in whole. */
  readonly header: (key: string) => string | Buffer | undefined
  readonly peer: string
  readonly origin: TunnelOrigin
  /** Milliseconds since 1970, or infinity. The tunnel cancels the call then, as long as it is open. */
  readonly deadline: number
  /** What the tunnel tells the time by. */
  readonly clock: Clock.Clock
  /** Asks for the next message. */
  readonly read: () => void
  readonly sendHeaders: (metadata: Metadata) => void
  /** The callback comes when the message has left, or never will. */
  readonly sendMessage: (message: Buffer, callback: (error?: Error | null) => void) => void
  /** Goes out behind all messages. */
  readonly sendStatus: (status: {
    readonly code: number
    readonly details: string
    readonly metadata: Metadata
  }) => void
  /** An object with what all call objects of grpc-js share, for those who ask for one. */
  readonly object: object
}

/** Takes a call; `request` is the message of a method whose requests do not stream. */
export type PlainEntrance = (call: PlainCall, request: Buffer | undefined) => PlainReceiver

type Handler = (...args: ReadonlyArray<unknown>) => unknown

export const entranceOf = (handler: Handler): PlainEntrance | undefined =>
  (handler as Handler & { readonly [plainKey]?: PlainEntrance })[plainKey]

/** A handler of an implementation, with its entrance if it has one. */
export const bound = (handler: Handler, implementation: unknown): Handler =>
  Object.assign(handler.bind(implementation), { [plainKey]: entranceOf(handler) })
