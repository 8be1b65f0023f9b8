/**
 * One exchange as the edge sees it: somebody who waits, and a way to answer.
 *
 * Invariants
 * 1. `respond` answers a request that nobody has answered, and breaks off an answer that was begun: half an answer must
 *    not look whole. What cannot be written to is broken off, too. It does nothing for a client that has gone.
 * 2. What answers while the request's body still comes says that the connection closes, and lets the body run out for a
 *    moment first: a connection that is closed over unread bytes is reset, and the client never reads the answer.
 */
import { type ServerResponse, STATUS_CODES } from "node:http"
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2"
import { Cancelled } from "@curfew/promise"
import type { CancelReason } from "@curfew/reason"
import type { PeerSignal } from "@curfew/request/PeerSignal"
import { moveOnAfter } from "@curfew/scope"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { isHttp2, type NodeRequest, type NodeResponse, type Watched } from "./peer.ts"

/** How the edge reaches the other end. */
export interface Port {
  /** `GET`. */
  readonly method: string
  readonly url: string
  readonly transport: "http1" | "http2" | "ws"
  readonly peer: PeerSignal
  /** Why nobody is there any more, once that is so. */
  readonly gone: () => CancelReason | undefined
  /** Calls back once nothing more will be sent. Returns the removal. */
  readonly onOver: (ear: () => void) => () => void
  readonly header: (name: string) => string | undefined
  /** The status that went out, if any did. */
  readonly status: () => number | undefined
  /** Answers in the handler's place. */
  readonly respond: (status: number, sentence: string, reason?: CancelReason) => Effect.Effect<void>
  /** Nobody is there any more: gives back what is left. */
  readonly drop: () => void
  /** The server stops: whatever answers from now on says so. */
  readonly stopping: () => void
  /** Asks the other end for a sign of life, and tells the peer when none came in time. */
  readonly beat: (within: Duration.Duration) => Effect.Effect<void>
}

/**
 * What a handler has said of an answer that it did not give. Kept, a failure would stand in caches, be read by a wrong
 * encoding, or, announced trailers, not be written at all.
 */
const ofTheAnswer = [
  "cache-control",
  "content-disposition",
  "content-encoding",
  "content-language",
  "content-location",
  "content-range",
  "etag",
  "expires",
  "last-modified",
  "location",
  "trailer",
  "transfer-encoding"
]

/** How long a body may run out, and last bytes may take. */
const lingering = Duration.seconds(1)

const awaiting = (on: (ear: () => void) => () => void): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const off = on(() => resume(Effect.void))
    return Effect.sync(() => off())
  })

/** Waits until nothing more will be sent. */
export const awaitOver = ({ onOver }: Pick<Port, "onOver">): Effect.Effect<void> => awaiting(onOver)

export const nodePort = (request: NodeRequest, response: NodeResponse, watched: Watched): Port => {
  const { peer, transport } = watched
  const unread = (): boolean => !isHttp2(request) && !request.complete
  const bodyEnded = awaiting((ear) => {
    request.once("end", ear)
    request.once("close", ear)
    return () => {
      request.off("end", ear)
      request.off("close", ear)
    }
  })
  const breakOff = (): void => destroy(request, response)
  // Node lets go of a body whose request was answered: whoever still reads it would wait for ever.
  const endBody = (reason: CancelReason | undefined): void => {
    if (request.complete || request.destroyed) return
    if (isHttp2(request)) request.stream?.close(0)
    else request.destroy(reason === undefined ? undefined : new Cancelled(reason))
  }
  const respond = (status: number, sentence: string, reason?: CancelReason): Effect.Effect<void> =>
    // A response that cannot be written to, for somebody has changed it: its client must not wait for ever.
    Effect.tapDefect(answering(status, sentence, reason), () => Effect.sync(breakOff))
  const answering = (status: number, sentence: string, reason?: CancelReason): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (peer.state !== "waiting" || response.writableEnded) return Effect.void
      if (response.headersSent) {
        breakOff()
        return Effect.void
      }
      const lingers = unread()
      const text = `${sentence}\n`
      if (lingers && !isHttp2(request)) response.setHeader("connection", "close")
      for (const name of ofTheAnswer) response.removeHeader(name)
      response.setHeader("content-type", "text/plain; charset=utf-8")
      response.setHeader("content-length", Buffer.byteLength(text))
      // Nobody needs the words that HTTP/2 has left out.
      if (isHttp2(request)) (response as Http2ServerResponse).writeHead(status)
      else (response as ServerResponse).writeHead(status, STATUS_CODES[status] ?? "Cancelled")
      if (!lingers) {
        response.end(text)
        if (isHttp2(request)) endBody(reason)
        return Effect.asVoid(moveOnAfter(lingering)(awaitOver(watched)))
      }
      // Its length was said: that is all of the answer, and a client that closes then has not left.
      if (request.method === "HEAD") (response as ServerResponse).flushHeaders()
      else {
        ;(response as ServerResponse).write(text, (error) => {
          if (!error) peer.completeUnsafe()
        })
      }
      watched.body.unwatch()
      request.resume()
      return Effect.andThen(
        moveOnAfter(lingering)(bodyEnded),
        Effect.suspend(() => {
          response.end()
          return Effect.map(moveOnAfter(lingering)(awaitOver(watched)), () => endBody(reason))
        })
      )
    })
  return {
    method: request.method ?? "GET",
    url: request.url ?? "/",
    transport,
    peer,
    gone: watched.gone,
    onOver: watched.onOver,
    header: (name) => {
      const value = request.headers[name.toLowerCase()]
      return Array.isArray(value) ? value[0] : value
    },
    status: () => (response.headersSent ? response.statusCode : undefined),
    respond,
    drop: breakOff,
    stopping: () => {
      if (!isHttp2(request) && !response.headersSent) response.setHeader("connection", "close")
    },
    beat: (within) => (isHttp2(request) ? pinged(request, watched, within) : processing(request, response))
  }
}

/** Breaks an answer off, so that its client can tell. */
const destroy = (request: NodeRequest, response: NodeResponse): void => {
  if (!isHttp2(request)) (response as ServerResponse).destroy()
  else if (request.stream !== undefined && !request.stream.destroyed) request.stream.close(8)
}

// ── signs of life ────────────────────────────────────────────────────────────────────────────────────────────

/**
 * An interim response, or a comment where a stream of events has begun. Nothing answers it: it makes the system notice a
 * peer that does not know the connection any more.
 */
const processing = (request: NodeRequest, given: NodeResponse): Effect.Effect<void> =>
  Effect.sync(() => {
    const response = given as ServerResponse
    // An answer that waits behind another one has no connection yet, and one that is full says nothing new.
    if (response.writableEnded || response.socket === null || response.writableNeedDrain) return
    if (response.headersSent) {
      if (isEventStream(response)) response.write(":\n\n")
    } else if (request.httpVersionMinor > 0) response.writeProcessing()
  })

const isEventStream = (response: ServerResponse): boolean =>
  String(response.getHeader("content-type")).startsWith("text/event-stream")

type Session = NonNullable<Http2ServerRequest["stream"]["session"]>

/** Who waits for the answer of the ping that is under way. One serves all requests of a session. */
const pings = new WeakMap<Session, Set<() => void>>()

const ping = (session: Session): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const ear = (): void => resume(Effect.void)
    let ears = pings.get(session)
    if (ears === undefined) {
      const made = new Set<() => void>()
      ears = made
      pings.set(session, made)
      // The callback of a ping also comes, with an error, when the session ends; its streams tell that themselves.
      session.ping((error) => {
        pings.delete(session)
        if (error === null) for (const each of made) each()
      })
    }
    ears.add(ear)
    return Effect.sync(() => {
      ears.delete(ear)
    })
  })

const pinged = (
  request: Http2ServerRequest,
  watched: Watched,
  within: Duration.Duration
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const session = request.stream?.session
    if (session === undefined || session.destroyed) return Effect.void
    return Effect.map(moveOnAfter(within)(ping(session)), (answered) => {
      if (Option.isSome(answered)) return
      watched.leave("answered no ping")
      session.destroy()
    })
  })
