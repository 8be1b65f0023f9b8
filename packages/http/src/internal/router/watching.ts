/**
 * Whoever sent a request to Effect's server: whether it is still there, and when it has been answered.
 *
 * Invariants
 * 1. Each request is watched by what it came through: node's objects, the `signal` of a web request. Of any other only
 *    the interrupt of its fiber tells.
 * 2. The response of a request to upgrade is left alone: node makes it when it is asked for, and then owns the socket.
 * 3. `delivered` ends with the transport's hold on the response, whichever way that ends.
 */
import { CancelReason } from "@curfew/reason"
import { type CallInfo, PeerSignal } from "@curfew/request"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import { bodyTooLarge } from "../answers.ts"
import {
  detailOf,
  type NodeRequest,
  type NodeResponse,
  type Watched,
  type WatchOptions,
  watchPeer
} from "../peer.ts"
import { nodePort } from "../port.ts"

/** One request's other end. */
export interface Client {
  readonly peer: PeerSignal.PeerSignal
  readonly transport: CallInfo["transport"]
  /** The client has left, as its transport has it now: whoever is told so by somebody else may be told first. */
  readonly hasLeft: () => boolean
  /** The response of node, where there is one. */
  readonly response: NodeResponse | undefined
  /** Waits until the answer has been written, or cannot be any more. */
  readonly delivered: Effect.Effect<void>
  readonly unwatch: () => void
  /** The client has gone, for somebody knows so who did not see how: why, in the words of whoever saw it. */
  readonly left: () => CancelReason
  /** Asks for a sign of life, and tells the peer when none came in time. */
  readonly beat: (within: Duration.Duration) => Effect.Effect<void>
}

export interface NodeParts {
  readonly source: object
  readonly response?: NodeResponse | (() => NodeResponse)
}

export const isNodeRequest = (source: object): source is NodeRequest =>
  "httpVersionMajor" in source && typeof source.httpVersionMajor === "number"

/** The connection is to become another: a WebSocket, or whatever it names. */
export const upgrades = (request: HttpServerRequest.HttpServerRequest): boolean =>
  typeof (request as NodeParts).response === "function"

const afterwards = Effect.void

export const watch = (
  request: HttpServerRequest.HttpServerRequest,
  options: WatchOptions & { readonly bodyBytes: number }
): Client => {
  const { response, source } = request as NodeParts
  if (isNodeRequest(source)) {
    if (typeof response !== "object") return unwatched("ws")
    let early = false
    let found: Watched | undefined
    const onTooLarge = (): void => {
      early = true
      found?.peer.stopUnsafe(bodyTooLarge(options.bodyBytes))
    }
    const watched = watchPeer(source, response, { ...options, onTooLarge })
    found = watched
    if (early) onTooLarge()
    const { peer, transport, unwatch } = watched
    const beat = (within: Duration.Duration): Effect.Effect<void> =>
      nodePort(source, response, watched).beat(within)
    const left = (): CancelReason => {
      watched.leave(detailOf(source))
      return watched.gone() ?? CancelReason.ClientGone({ transport })
    }
    const hasLeft = (): boolean => peer.state === "gone"
    return { peer, transport, hasLeft, response, unwatch, beat, left, delivered: over(watched) }
  }
  return source instanceof Request ? watchSignal(source.signal) : unwatched("http1")
}

const unwatched = (transport: Client["transport"], detail?: string): Client => {
  const peer = PeerSignal.makeUnsafe()
  const reason = CancelReason.ClientGone({ transport, ...(detail !== undefined && { detail }) })
  return {
    peer,
    transport,
    hasLeft: () => peer.state === "gone",
    response: undefined,
    unwatch: () => {},
    left: () => {
      peer.goneUnsafe(reason)
      return reason
    },
    beat: () => Effect.void,
    delivered: afterwards
  }
}

const watchSignal = (signal: AbortSignal): Client => {
  const client = unwatched("http1", "the request's signal fired")
  const { left } = client
  if (signal.aborted) left()
  else signal.addEventListener("abort", left, { once: true })
  return { ...client, unwatch: () => signal.removeEventListener("abort", left) }
}

/** Nothing of the answer is under way any more. */
export const over = ({ onOver }: Pick<Watched, "onOver">): Effect.Effect<void> =>
  Effect.callback((resume) => Effect.sync(onOver(() => resume(Effect.void))))
