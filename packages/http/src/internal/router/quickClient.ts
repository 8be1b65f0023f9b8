/**
 * Whoever sent a request of node that may be over in the turn in which it came.
 *
 * Invariants
 * 1. Its watch begins when somebody asks: at the end of the turn, or for whoever waits for the answer to be out. Until
 *    then nothing can have happened to it, for node tells in later turns.
 * 2. Its body is counted from the start.
 */
import { CancelReason } from "@curfew/reason"
import { PeerSignal } from "@curfew/request"
import * as Effect from "effect/Effect"
import { bodyTooLarge } from "../answers.ts"
import { type BodyWatch, unwatched, watchBody, watches } from "../body.ts"
import type { Resolved } from "../options.ts"
import {
  detailOf,
  isComplete,
  isHttp2,
  isOver,
  type NodeRequest,
  type NodeResponse,
  type PreparedWatch,
  prepareWatch
} from "../peer.ts"
import { type Client, over } from "./watching.ts"

const ignore = (): void => {}

export class QuickClient implements Client {
  readonly peer = PeerSignal.makeUnsafe()
  readonly transport: "http1" | "http2"
  readonly response: NodeResponse
  readonly #request: NodeRequest
  readonly #options: Pick<Resolved, "body" | "bodyBytes" | "halfClose">
  readonly #body: BodyWatch
  #watch: PreparedWatch | undefined

  constructor(
    request: NodeRequest,
    response: NodeResponse,
    options: Pick<Resolved, "body" | "bodyBytes" | "halfClose">,
    length: number
  ) {
    this.#request = request
    this.response = response
    this.#options = options
    this.transport = isHttp2(request) ? "http2" : "http1"
    const { body, bodyBytes } = options
    this.#body =
      length !== 0 && watches(request, body, bodyBytes, length)
        ? watchBody(
            request,
            { body, bodyBytes, onTooLarge: () => this.peer.stopUnsafe(bodyTooLarge(bodyBytes)) },
            length
          )
        : unwatched
    response.on("error", ignore)
  }

  get complete(): boolean {
    return isComplete(this.response)
  }

  hasLeft(): boolean {
    const { response } = this
    return this.peer.state === "gone" || (isOver(response) && !isComplete(response))
  }

  get watch(): PreparedWatch {
    if (this.#watch === undefined) {
      const made = prepareWatch(this.#request, this.response, this.#options, this.#body, this.peer)
      this.#watch = made
      made.look()
    }
    return this.#watch
  }

  get delivered(): Effect.Effect<void> {
    return Effect.suspend(() => over(this.watch))
  }

  unwatch(): void {
    if (this.#watch === undefined) this.#body.unwatch()
    else this.#watch.unwatch()
  }

  left(): CancelReason {
    const { watch } = this
    watch.leave(detailOf(this.#request))
    return watch.gone() ?? CancelReason.ClientGone({ transport: this.transport })
  }

  /** There is no beat beside what is quick. */
  beat(): Effect.Effect<void> {
    return Effect.void
  }
}
