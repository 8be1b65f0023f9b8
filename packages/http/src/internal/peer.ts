/**
 * The client of one request of `node:http` or of the compatible interface of `node:http2`: whether it is still there.
 *
 * Invariants
 * 1. The events of node become a `PeerSignal` here and nowhere else.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2"
import type { PeerSignal } from "@curfew/request/PeerSignal"

/** A request, whichever protocol it came by. */
export type NodeRequest = IncomingMessage | Http2ServerRequest

/** The response that goes with it. */
export type NodeResponse = ServerResponse | Http2ServerResponse

/** What becomes of a body that the handler does not read. */
export type UnreadBody = "drain" | "ignore" | { readonly buffer: number }

/** How a client is watched. */
export interface WatchOptions {
  /**
   * Default: `{ buffer: 1 MiB }`. `drain`: read and thrown away, unless the handler reads it first. `ignore`: left to
   * the handler; a client with a body larger than node's buffers is not seen to leave then.
   */
  readonly body?: UnreadBody | undefined
  /** What a client means that sends its FIN and still reads. Default: `gone`. */
  readonly halfClose?: "gone" | "stays" | undefined
}

/** One client that is watched. */
export interface Watched {
  readonly peer: PeerSignal
  readonly transport: "http1" | "http2"
  /** Takes all listeners off. The watch ends by itself with the response. */
  readonly unwatch: () => void
}

/** Watches the client of a request. To be called in the turn in which node emits `request`. */
export type WatchPeer = (request: NodeRequest, response: NodeResponse, options?: WatchOptions) => Watched
