/**
 * The client of one request of `node:http` or of the compatible interface of `node:http2`: whether it is still there.
 *
 * Invariants
 * 1. The events of node become a `PeerSignal` here and nowhere else.
 * 2. An answer is complete when the response closes, or finishes, after somebody ended it and all of it was handed over:
 *    `writableEnded` and `writableFinished`, never one of the two. A stream of HTTP/2 that its client reset counts as
 *    finished although nobody ended it; an answer that was ended and is still queued behind another one is not finished.
 * 3. Every other close of the response is the client's leaving. The request's `close` and `aborted` are not looked at:
 *    the first also fires when the body was read.
 * 4. Request and response have an `error` listener each: without one a write after the end would end the process.
 * 5. One listener per socket, however many requests are in flight on it.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2"
import type { Socket } from "node:net"
import { CancelReason } from "@curfew/reason"
import { PeerSignal } from "@curfew/request"
import { type BodyWatch, type UnreadBody, watchBody } from "./body.ts"

/** A request, whichever protocol it came by. */
export type NodeRequest = IncomingMessage | Http2ServerRequest

/** The response that goes with it. */
export type NodeResponse = ServerResponse | Http2ServerResponse

/** How a client is watched. */
export interface WatchOptions {
  /** What becomes of a body that nobody reads. Default: it is buffered up to 1 MiB. */
  readonly body?: UnreadBody | undefined
  /** The most that a body may have, whoever reads it. Default: no limit. */
  readonly bodyBytes?: number | undefined
  /** Is told once when the body is over its limit. */
  readonly onTooLarge?: (() => void) | undefined
  /** What a client means that sends its FIN and would still read. Default: `gone`. */
  readonly halfClose?: "gone" | "stays" | undefined
}

/** One client that is watched. */
export interface Watched {
  readonly peer: PeerSignal.PeerSignal
  readonly transport: "http1" | "http2"
  readonly body: BodyWatch
  /** Why the client has gone, once it has. */
  readonly gone: () => CancelReason | undefined
  /** The client has gone, for somebody knows so who is not node. */
  readonly leave: (detail: string) => void
  /** Calls back once the response is over, completed or not; at once when it is. Returns the removal. */
  readonly onOver: (ear: () => void) => () => void
  /** Takes all listeners off but those for errors. The watch ends by itself with the response. */
  readonly unwatch: () => void
}

export const isHttp2 = (request: NodeRequest): request is Http2ServerRequest => request.httpVersionMajor === 2

const ignore = (): void => {}

/** Watches the client of a request. To be called in the turn in which node emits `request`. */
export const watchPeer = (
  request: NodeRequest,
  response: NodeResponse,
  options: WatchOptions = {}
): Watched => {
  const transport = isHttp2(request) ? "http2" : "http1"
  const peer = PeerSignal.makeUnsafe()
  const ears = new Set<() => void>()
  let over = false
  const end = (): void => {
    if (over) return
    over = true
    unwatch()
    for (const ear of [...ears]) ear()
    ears.clear()
  }
  const complete = (): boolean => response.writableEnded && response.writableFinished
  const finished = (): void => {
    if (!complete()) return
    peer.completeUnsafe()
    end()
  }
  let left: CancelReason | undefined
  const leave = (detail: string): void => {
    const reason = CancelReason.ClientGone({ transport, detail })
    if (peer.goneUnsafe(reason)) left = reason
  }
  const gone = (): CancelReason | undefined =>
    peer.state === "gone" ? (left ?? CancelReason.ClientGone({ transport })) : undefined
  const closed = (): void => {
    if (complete()) peer.completeUnsafe()
    else leave(detailOf(request))
    end()
  }
  const forget =
    options.halfClose === "stays" || isHttp2(request)
      ? ignore
      : onHalfClose(request.socket, () => {
          if (!complete()) leave("sent its FIN")
        })
  const body = watchBody(request, options)
  const unwatch = (): void => {
    response.off("finish", finished)
    response.off("close", closed)
    forget()
    body.unwatch()
  }
  request.on("error", ignore)
  response.on("error", ignore)
  if (isOver(response)) closed()
  else {
    response.on("finish", finished)
    response.on("close", closed)
  }
  return {
    peer,
    transport,
    body,
    gone,
    leave,
    onOver: (ear) => {
      if (over) {
        ear()
        return ignore
      }
      ears.add(ear)
      return () => {
        ears.delete(ear)
      }
    },
    unwatch
  }
}

/** What closed or finished before anybody watched. */
const isOver = (response: NodeResponse): boolean => {
  if (response.writableEnded && response.writableFinished) return true
  if ("closed" in response && response.closed === true) return true
  if ("destroyed" in response && response.destroyed === true) return true
  const stream = "stream" in response ? response.stream : undefined
  return stream !== undefined && (stream === null || stream.destroyed)
}

/** How a client left whose response closed. */
export const detailOf = (request: NodeRequest): string => {
  if (!isHttp2(request)) return "closed its connection"
  const code = request.stream?.rstCode
  return code === undefined || code === 0 ? "closed its connection" : `reset its stream with the code ${code}`
}

// ── half-closed connections ──────────────────────────────────────────────────────────────────────────────────

const halfClosing = new WeakMap<Socket, Set<() => void>>()

/** A FIN that node itself does not answer by closing: where the server allows connections to stay half open. */
const onHalfClose = (socket: Socket, tell: () => void): (() => void) => {
  if (socket.readableEnded) {
    tell()
    return ignore
  }
  let ears = halfClosing.get(socket)
  if (ears === undefined) {
    const made = new Set<() => void>()
    ears = made
    halfClosing.set(socket, made)
    socket.once("end", () => {
      for (const ear of [...made]) ear()
    })
  }
  ears.add(tell)
  const all = ears
  return () => {
    all.delete(tell)
  }
}

/**
 * Lets clients of a server send their FIN and still read. Node keeps this in a property of the server that its
 * documentation does not name and its types do not know; without it node closes the connection at the FIN.
 */
export const allowHalfOpen = (server: object): void => {
  ;(server as { httpAllowHalfOpen?: boolean }).httpAllowHalfOpen = true
}
