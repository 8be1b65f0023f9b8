/**
 * What is known of one request, from its start to its record.
 *
 * Invariants
 * 1. What happened first stands: an outcome that is noted is not noted over.
 * 2. The record is made of what went out, where that can be asked, and of what was meant to go out otherwise.
 * 3. It is counted once as started and once as ended, and is in flight between the two.
 */
import { CancelReason } from "@curfew/reason"
import { seriesOf } from "@curfew/reason/seriesOf"
import { type RequestContext, statusOf } from "@curfew/request"
import type * as Context from "effect/Context"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Metrics from "../../EdgeMetrics.ts"
import type { EdgeRecord, Outcome } from "../../EdgeRecord.ts"
import type { Client } from "./watching.ts"

const startedOf = /* @__PURE__ */ seriesOf(Metrics.started, "route", "transport")
const endedOf = /* @__PURE__ */ seriesOf(Metrics.ended, "route", "transport", "outcome", "status")
const cancelledOf = /* @__PURE__ */ seriesOf(Metrics.cancelled, "route", "transport", "reason")
const outlivedOf = /* @__PURE__ */ seriesOf(Metrics.outlived, "route")
const inFlightOf = /* @__PURE__ */ seriesOf(Metrics.inFlight, "route", "transport")

/** What the end of its server is to a request. */
export const shutdown: CancelReason = /* @__PURE__ */ CancelReason.Shutdown({ phase: "force" })

export class Exchange {
  readonly route: string
  readonly request: HttpServerRequest.HttpServerRequest
  readonly client: Client
  readonly #services: Context.Context<never>
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
    route: string,
    request: HttpServerRequest.HttpServerRequest,
    client: Client,
    services: Context.Context<never>
  ) {
    this.route = route
    this.request = request
    this.client = client
    this.#services = services
    const { transport } = client
    startedOf(route, transport).updateUnsafe(1, services)
    inFlightOf(route, transport).modifyUnsafe(1, services)
  }

  get gone(): boolean {
    return this.client.peer.state === "gone"
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
    const { peer, response, unwatch } = this.client
    // Of what node does not report the writing was the end.
    if (response === undefined) peer.completeUnsafe()
    unwatch()
  }

  end(base: Parameters<RequestContext.RequestOptions["onEnd"]>[0]): EdgeRecord {
    const { request, route } = this
    const { transport } = this.client
    const gone = this.gone && !this.#broken && this.#outcome !== "cancelled"
    const sent = this.#sentStatus()
    const outcome: Outcome = this.abandoned ? "abandoned" : gone ? "gone" : (this.#outcome ?? "failed")
    const reason = gone ? (this.#left ?? CancelReason.ClientGone({ transport })) : this.#reason
    const whole = sent !== undefined && !this.gone && (!this.#streams || this.#streamed)
    const status = gone || sent === undefined ? this.#untold(reason) : sent
    const record: EdgeRecord = {
      ...base,
      method: request.method,
      route,
      path: pathOf(request.url),
      transport,
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
    const services = this.#services
    inFlightOf(route, transport).modifyUnsafe(-1, services)
    endedOf(route, transport, outcome, String(status)).updateUnsafe(1, services)
    if (reason !== undefined) cancelledOf(route, transport, reason._tag).updateUnsafe(1, services)
    if (base.outlived.length > 0) outlivedOf(route).updateUnsafe(1, services)
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

const pathOf = (url: string): string => {
  const end = url.search(/[?#]/)
  return end < 0 ? url : url.slice(0, end)
}
