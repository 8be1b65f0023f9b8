import type { CancelReason } from "@curfew/reason"
import type * as Duration from "effect/Duration"
import type { ProtocolViolation, TunnelLost } from "./TunnelError.ts"

/**
 * A role in a tunnel. The tunnel client starts calls and the tunnel server handles them, whichever of the two dialled.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Side = "client" | "server"

/**
 * The direction of a tunnel: in a *forward* tunnel the end that dialled calls, in a *reverse* tunnel it is called.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type TunnelKind = "forward" | "reverse"

/**
 * How a tunnel ended, seen from this end.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type TunnelEnd =
  | { readonly _tag: "ClosedHere"; readonly reason: CancelReason }
  | { readonly _tag: "ClosedByPeer" }
  | { readonly _tag: "Lost"; readonly error: TunnelLost }
  | { readonly _tag: "Violated"; readonly error: ProtocolViolation }

/**
 * Who ended a stream before its answer: the `caller` at this end, the `peer` by a cancel, a `deadline`, a `fault` in
 * what the peer sent, or the end of the `tunnel`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type CancelledBy = "caller" | "peer" | "deadline" | "fault" | "tunnel"

/**
 * Which end of a tunnel drains it, seen from this end.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type DrainedBy = "here" | "peer"

/**
 * Where a stream stood when it was cancelled. At the client: not yet on the wire (`starting`), `open`, or answered
 * but not read to the end (`draining`). At the server: waiting for its `request`, `running`, or answered but not
 * written to the end (`finishing`).
 *
 * @stability unstable
 * @since 0.1.0
 */
export type StreamPhase = "starting" | "open" | "draining" | "request" | "running" | "finishing"

/**
 * Names a stream in the events of a process: `tunnel` counts the tunnels of the process, `stream` is the id on the wire.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface StreamRef {
  readonly tunnel: number
  readonly side: Side
  readonly stream: number
  readonly method: string
}

/**
 * The finalizers of a stream, in the order in which they run: `wire` sends the close or the cancel, drops what is
 * queued and tells the handler; `handler` (server) waits for an `async` handler; `status` (client) delivers the
 * outcome; `registry` forgets the stream.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type StreamFinalizer = "wire" | "handler" | "status" | "registry"

/**
 * What happens in a tunnel, as data, for a log, a metric or a test.
 *
 * **Guarantees**
 *
 * - **Paired**: each `TunnelOpened` is followed by one `TunnelClosed` and each `StreamOpened` by one `StreamClosed`.
 * - **Completion is not cancellation**: a stream that was answered has no `StreamCancelled`.
 *
 * @see `TunnelOptions.observer`
 * @stability unstable
 * @since 0.1.0
 */
export type TunnelEvent =
  | {
      readonly _tag: "TunnelOpened"
      readonly tunnel: number
      readonly side: Side
      readonly kind: TunnelKind
      readonly peer: string
    }
  | {
      readonly _tag: "TunnelClosed"
      readonly tunnel: number
      readonly side: Side
      readonly end: TunnelEnd
      readonly duration: Duration.Duration
    }
  /** An end announced that it drains: no new streams from `here`, or from the `peer`. Once for each of the two. */
  | {
      readonly _tag: "TunnelDraining"
      readonly tunnel: number
      readonly side: Side
      readonly by: DrainedBy
    }
  | ({ readonly _tag: "StreamOpened" } & StreamRef)
  | ({ readonly _tag: "StreamRefused"; readonly code: number; readonly details: string } & StreamRef)
  | ({
      readonly _tag: "StreamCancelled"
      readonly by: CancelledBy
      readonly reason: CancelReason
      readonly phase: StreamPhase
    } & StreamRef)
  /** Something was written after the peer had left; `count` numbers these writes of the stream from 1. */
  | ({
      readonly _tag: "LateWrite"
      readonly what: "headers" | "message" | "halfClose" | "status"
      readonly count: number
    } & StreamRef)
  | ({ readonly _tag: "FinalizerRan"; readonly finalizer: StreamFinalizer } & StreamRef)
  | ({
      readonly _tag: "StreamClosed"
      readonly duration: Duration.Duration
      readonly code: number
      readonly details: string
      readonly cancelled: boolean
    } & StreamRef)
