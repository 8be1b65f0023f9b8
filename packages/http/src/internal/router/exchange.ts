/**
 * What is known of one request, from its start to its record.
 *
 * Invariants
 * 1. What happened first stands: an outcome that is noted is not noted over.
 * 2. The record is made of what went out, where that can be asked, and of what was meant to go out otherwise.
 */
import { CancelReason } from "@curfew/reason"
import { type RequestContext, statusOf } from "@curfew/request"
import type * as Context from "effect/Context"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import type { EdgeRecord, EdgeRequest, Outcome } from "../../EdgeRecord.ts"
import { pathOf, type Series, seriesOf } from "../counting.ts"
import type { Client } from "./watching.ts"

/** What the end of its server is to a request. */
export const shutdown: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "force" })

export class Exchange {
  readonly id: string
  readonly route: string
  readonly request: HttpServerRequest.HttpServerRequest
  readonly client: Client
  readonly #services: Context.Context<never>
  readonly #series: Series
  #known: EdgeRequest | undefined
  #begun = false
  #status: number | undefined
  #length = 0
  #streams = false
  #streamed = false
  #broken = false
  #outcome: Outcome | undefined
  #reason: CancelReason | undefined
  #left: CancelReason | undefined
  #parts = 0
  #bytes = 0
  /** The handler gave an answer that nobody was there for. */
  dropped = false
  /** Its server has ended without it. */
  abandoned = false

  constructor(
    id: string,
    route: string,
    request: HttpServerRequest.HttpServerRequest,
    client: Client,
    services: Context.Context<never>
  ) {
    this.id = id
    this.route = route
    this.request = request
    this.client = client
    this.#services = services
    this.#series = seriesOf(route, client.transport)
  }

  get known(): EdgeRequest {
    if (this.#known === undefined) {
      const { client, id, request, route } = this
      // Effect puts the host that the client named in front.
      const url = request.originalUrl.replace(/^[a-z]+:\/\/[^/?#]*/i, "")
      const { transport } = client
      this.#known = { id, method: request.method, route, url, path: pathOf(url), transport }
    }
    return this.#known
  }

  /** It is counted as started, and is in flight. */
  begin(): void {
    if (this.#begun) return
    this.#begun = true
    this.#series.start(this.#services)
  }

  get gone(): boolean {
    return this.client.hasLeft()
  }

  /** The answer that is about to be sent. */
  answering(response: HttpServerResponse.HttpServerResponse, outcome: Outcome): void {
    this.#status = response.status
    const { body } = response
    this.#length = "contentLength" in body ? (body.contentLength ?? 0) : 0
    this.#streams = body._tag === "Stream"
    this.#outcome ??= outcome
  }

  /** A deadline, a limit, a shutdown. */
  cancelled(reason: CancelReason): void {
    this.#reason ??= reason
    this.#outcome = "cancelled"
  }

  /** The client has left, as its transport says it. */
  left(reason: CancelReason): void {
    this.#left ??= reason
  }

  /** The handler or its stream, by itself. */
  failed(): void {
    if (this.#outcome !== "cancelled") this.#outcome = "failed"
    // Its stream has broken the response off, which looks as if its client had.
    this.#broken = this.#streams
  }

  /** A part of a response stream goes to the transport. */
  part(bytes: number): void {
    this.#parts++
    this.#bytes += bytes
  }

  /** A response stream has come to its own end. */
  streamEnded(): void {
    this.#streamed = true
  }

  /** Nothing is written any more. */
  settle(): void {
    const { client } = this
    // Of what node does not report the writing was the end.
    if (client.response === undefined) client.peer.completeUnsafe()
    client.unwatch()
  }

  /** The end of one whose answer is out, and that nobody is told the record of. */
  endQuickly(status: number): void {
    if (this.#begun) this.#series.answered(status, this.#services)
    else this.#series.quick(status, this.#services)
  }

  end(base: Parameters<RequestContext.RequestOptions["onEnd"]>[0]): EdgeRecord {
    this.begin()
    const gone = this.gone && !this.#broken && this.#outcome !== "cancelled"
    const sent = this.#sentStatus()
    const outcome: Outcome = this.abandoned ? "abandoned" : gone ? "gone" : (this.#outcome ?? "failed")
    const reason = gone ? (this.#left ?? this.client.left()) : this.#reason
    const whole = sent !== undefined && !this.gone && (!this.#streams || this.#streamed)
    const status = gone || sent === undefined ? this.#untold(reason) : sent
    const record: EdgeRecord = {
      ...base,
      ...this.known,
      status,
      outcome,
      reason,
      dropped: this.dropped,
      sent: {
        status: sent,
        bytes: this.#streams ? this.#bytes : whole ? this.#length : 0,
        parts: this.#parts,
        whole
      }
    }
    this.#series.end(record, this.#services)
    return record
  }

  #sentStatus(): number | undefined {
    const { response } = this.client
    if (response === undefined) return this.gone ? undefined : this.#status
    return response.headersSent ? response.statusCode : undefined
  }

  /** The status for the record alone. */
  #untold(reason: CancelReason | undefined): number {
    return reason === undefined ? (this.#status ?? 500) : statusOf(reason).http
  }
}
