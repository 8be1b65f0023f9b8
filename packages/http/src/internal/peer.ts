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
  const watched = prepareWatch(request, response, options, watchBody(request, options))
  watched.look()
  return watched
}

/** A watch that has not begun. */
export interface PreparedWatch extends Watched {
  /** Begins: from here on the peer tells what becomes of the client, and at once what has become of it already. */
  readonly look: () => void
}

/** The same in two steps, for a request whose handler was there before its watch. */
export const prepareWatch = (
  request: NodeRequest,
  response: NodeResponse,
  options: Pick<WatchOptions, "halfClose">,
  body: BodyWatch,
  peer = PeerSignal.makeUnsafe()
): PreparedWatch => {
  const transport = isHttp2(request) ? "http2" : "http1"
  const ears = new Set<() => void>()
  let over = false
  const end = (): void => {
    if (over) return
    over = true
    unwatch()
    for (const ear of [...ears]) ear()
    ears.clear()
  }
  const finished = (): void => {
    if (!isComplete(response)) return
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
    if (isComplete(response)) peer.completeUnsafe()
    else leave(detailOf(request))
    end()
  }
  let forget = ignore
  const unwatch = (): void => {
    response.off("finish", finished)
    response.off("close", closed)
    forget()
    body.unwatch()
  }
  const look = (): void => {
    request.on("error", ignore)
    response.on("error", ignore)
    if (options.halfClose !== "stays" && !isHttp2(request)) {
      const halfClosed = (): void => {
        if (!isComplete(response)) leave(sentFin)
      }
      forget = onHalfClose(request.socket, { halfClosed })
    }
    if (isOver(response)) closed()
    else {
      response.on("finish", finished)
      response.on("close", closed)
    }
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
    unwatch,
    look
  }
}

const sentFin = "sent its FIN"

/** An answer that is out to its last byte. */
export const isComplete = (response: NodeResponse): boolean =>
  response.writableEnded && response.writableFinished

/** What closed or finished before anybody watched. */
export const isOver = (response: NodeResponse): boolean => {
  if (isComplete(response)) return true
  // To ask whether a member is there costs more than to read it: frameworks change what responses inherit from.
  const { closed, destroyed, stream } = response as {
    readonly closed?: boolean
    readonly destroyed?: boolean
    readonly stream?: { readonly destroyed: boolean } | null
  }
  return closed === true || destroyed === true || stream === null || stream?.destroyed === true
}

/** How a client left whose response closed. */
export const detailOf = (request: NodeRequest): string => {
  if (!isHttp2(request)) return "closed its connection"
  const code = request.stream?.rstCode
  return code === undefined || code === 0 ? "closed its connection" : `reset its stream with the code ${code}`
}

// ── half-closed connections ──────────────────────────────────────────────────────────────────────────────────

/** Whoever wants to hear of it. */
export interface HalfCloseEar {
  readonly halfClosed: () => void
}

const halfClosing = new WeakMap<Socket, Set<HalfCloseEar>>()

/** The ears of a connection, which has one listener for all of them. */
export const halfCloseEars = (socket: Socket): Set<HalfCloseEar> => {
  const known = halfClosing.get(socket)
  if (known !== undefined) return known
  const ears = new Set<HalfCloseEar>()
  halfClosing.set(socket, ears)
  socket.once("end", () => {
    for (const ear of [...ears]) ear.halfClosed()
  })
  return ears
}

/** A FIN that node itself does not answer by closing: where the server allows connections to stay half open. */
const onHalfClose = (socket: Socket, ear: HalfCloseEar): (() => void) => {
  if (socket.readableEnded) {
    ear.halfClosed()
    return ignore
  }
  const ears = halfCloseEars(socket)
  ears.add(ear)
  return () => {
    ears.delete(ear)
  }
}

/**
 * Lets clients of a server send their FIN and still read. Node keeps this in a property of the server that its
 * documentation does not name and its types do not know; without it node closes the connection at the FIN.
 */
export const allowHalfOpen = (server: object): void => {
  ;(server as { httpAllowHalfOpen?: boolean }).httpAllowHalfOpen = true
}
