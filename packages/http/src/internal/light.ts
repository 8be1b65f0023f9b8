/**
 * A request of node as most of them are: a plain handler that answers and ends, and a client that waits for it. It has no
 * fiber, no scope and no port of its own.
 *
 * Invariants
 * 1. Whatever else happens makes a `Call` of it first, once, with the handler that runs already, and is that call's from
 *    then on: its client leaves, its time is over, it is stopped, its handler fails, or asks for its scope.
 * 2. It stands in the table and has its place in the owner from its start to its record, which comes once: from here, or
 *    from the call that it became.
 * 3. Its handler runs in the turn in which node emits the request.
 * 4. Its answer is out by the same two facts as for every request: `isComplete`.
 * 5. A request that ends in the turn in which it came is not watched: what becomes of it is read off its response when the
 *    turn is over. One that outlives the turn is watched from then on, and has its limit. A record has the time of the
 *    very end, so where somebody is given it, all are watched from their start.
 */

import { scopeAround } from "@curfew/promise/scopeAround"
import { scopeHere } from "@curfew/promise/scopeHere"
import { CancelReason } from "@curfew/reason"
import type { RequestRecord } from "@curfew/request/RequestContext"
import { Instant, TaskScope } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { EdgeRecord, EdgeRequest } from "../EdgeRecord.ts"
import type { Exchange } from "../Exchange.ts"
import { bodyTooLarge } from "./answers.ts"
import { type BodyWatch, promised, unwatched, watchBody } from "./body.ts"
import { type Deferred, deferred, told } from "./bridge.ts"
import { Call, type Hooks, handedOver } from "./call.ts"
import { pathOf, type Series } from "./counting.ts"
import type { Limited } from "./deadlines.ts"
import type { Edge, Spec } from "./edge.ts"
import { ExchangeState } from "./exchange.ts"
import { LightExchange } from "./lightExchange.ts"
import { clientMillis } from "./options.ts"
import {
  type HalfCloseEar,
  halfCloseEars,
  isComplete,
  isHttp2,
  isOver,
  type NodeRequest,
  type NodeResponse,
  prepareWatch
} from "./peer.ts"
import { nodePort } from "./port.ts"
import type { Entry } from "./table.ts"
import { afterTurn, endTurn, type Turned } from "./turn.ts"

/** A handler with what it is called with. */
export interface Plain {
  readonly request: NodeRequest
  readonly response: NodeResponse
  readonly spec: Spec
  /** Stands in what is left behind. */
  readonly name: string | undefined
  readonly handle: (exchange: Exchange) => unknown
  readonly hooks?: Omit<Hooks, "done"> | undefined
}

const ignore = (): void => {}

export class Light implements Entry, Limited, HalfCloseEar, Turned {
  entered = false
  before: Entry | undefined = undefined
  after: Entry | undefined = undefined
  readonly place: TaskScope.Place
  readonly limit: number
  row: Limited["row"] = undefined
  readonly #edge: Edge
  readonly #plain: Plain
  readonly #series: Series
  readonly #number: number
  readonly #body: BodyWatch
  #begun = false
  /** Monotonic milliseconds, where somebody will ask. */
  #began = 0
  #startedAt = 0
  #ears: Set<HalfCloseEar> | undefined
  #running: Deferred<unknown> | undefined
  #call: Call | undefined
  #full: ExchangeState | undefined
  #promotedAfter = 0
  #settled = false
  #over = false
  #ended = false
  #expired = false

  private constructor(
    edge: Edge,
    plain: Plain,
    series: Series,
    place: TaskScope.Place,
    length: number,
    limit: number
  ) {
    const { request, response, spec } = plain
    this.#edge = edge
    this.#plain = plain
    this.#series = series
    this.#number = edge.table.nextNumber()
    this.limit = limit
    this.place = place
    place.holder = this
    edge.table.enter(this)
    this.#body = length === 0 ? unwatched : this.#watchBody(request, spec, length)
    response.on("error", ignore)
    if (edge.records) {
      this.#startedAt = edge.clock.currentTimeMillisUnsafe()
      this.#watch()
    } else afterTurn(this)
  }

  #watchBody(request: NodeRequest, { options: { body, bodyBytes } }: Spec, length: number): BodyWatch {
    const onTooLarge = (): void => this.stop(bodyTooLarge(bodyBytes))
    return watchBody(request, { body, bodyBytes, onTooLarge }, length)
  }

  turned(): void {
    if (this.#call !== undefined || this.#ended) return
    if (this.#settled && isComplete(this.#plain.response)) this.#end()
    else this.#watch()
  }

  /** Somebody wants to see its fiber: an end has to account for each request by itself. */
  fill(): void {
    if (this.#settled && isComplete(this.#plain.response)) this.#end()
    else this.promote()
  }

  #watch(): void {
    const { request, response, spec } = this.#plain
    this.#begin()
    this.place.show()
    if (isOver(response)) {
      this.#closed()
      return
    }
    response.on("finish", this.#finished)
    response.on("close", this.#closed)
    if (spec.options.halfClose !== "stays" && !isHttp2(request)) {
      if (request.socket.readableEnded) {
        this.halfClosed()
        return
      }
      this.#ears = halfCloseEars(request.socket)
      this.#ears.add(this)
    }
    if (this.limit !== Number.POSITIVE_INFINITY) this.#edge.deadlines.enter(this)
  }

  /** It is counted as started, and its time begins. */
  #begin(): void {
    const { clock, context, records } = this.#edge
    this.#begun = true
    if (records || this.limit !== Number.POSITIVE_INFINITY) this.#began = Instant.nowOf(clock)
    this.#series.start(context)
  }

  get at(): number {
    return this.#began + this.limit
  }

  get transport(): "http1" | "http2" {
    return this.#series.transport as "http1" | "http2"
  }

  /** Starts the handler, unless something stands against the request from the beginning. */
  static start(edge: Edge, plain: Plain): boolean {
    const { request, response, spec } = plain
    const { bodyBytes, clientDeadline, deadline } = spec.options
    const { requests, table } = edge
    if (!spec.light || table.refusing) return false
    if (table.entries.size >= requests) {
      // Of those that are there some may have ended in this very turn.
      endTurn()
      if (table.entries.size >= requests) return false
    }
    if (isOver(response) || (!isHttp2(request) && request.socket.readableEnded)) return false
    const length = promised(request)
    if (length > bodyBytes && length !== Number.POSITIVE_INFINITY) return false
    let limit = deadline
    if (clientDeadline !== undefined) {
      const value = request.headers[clientDeadline.header]
      const wish = clientMillis(Array.isArray(value) ? value[0] : value)
      if (Number.isNaN(wish)) return false
      if (wish !== undefined) limit = Math.min(limit, wish, clientDeadline.max)
    }
    if (limit <= 0) return false
    const series = spec.seriesOf(request.method ?? "GET", isHttp2(request) ? "http2" : "http1")
    const place = TaskScope.reserveUnsafe(edge.owner, series.route)
    if (place === undefined) return false
    new Light(edge, plain, series, place, length, limit).#run()
    return true
  }

  get id(): string {
    return `http-${this.#number}`
  }

  get method(): string {
    return this.#series.route
  }

  get url(): string {
    return this.#plain.request.url ?? "/"
  }

  get known(): EdgeRequest {
    const { id, transport, url } = this
    const { method = "GET" } = this.#plain.request
    return { id, method, route: this.#series.route, url, path: pathOf(url), transport }
  }

  get response(): NodeResponse {
    return this.#plain.response
  }

  get name(): string | undefined {
    return this.#plain.name ?? this.#plain.request.method
  }

  /** Its client has left; the call is told so by its own watch, and there may be none yet. */
  get gone(): boolean {
    const { response } = this.#plain
    return this.#full?.clientGone ?? (isOver(response) && !isComplete(response))
  }

  /** The exchange with a scope, if it was needed. */
  get full(): ExchangeState | undefined {
    return this.#full
  }

  /** The exchange with a scope, for it is needed. */
  scoped(): ExchangeState {
    if (this.#full === undefined) {
      if (this.#ended) this.#full = this.#afterwards()
      else this.promote()
    }
    if (this.#full !== undefined) return this.#full
    throw new Error(
      "The scope of the request was asked for deep inside other starts and opens in the next turn; await a promise first."
    )
  }

  /** For whoever keeps the exchange beyond the request: with a scope that is over. */
  #afterwards(): ExchangeState | undefined {
    const { request, response, spec } = this.#plain
    const { context } = this.#edge
    const watched = prepareWatch(request, response, spec.options, this.#body)
    watched.look()
    const made = Child.startUnsafe(context, scopeHere({ name: this.name })).pollUnsafe()
    if (made?._tag !== "Success") return undefined
    const scope = made.value
    told(scope[Symbol.asyncDispose](), ignore, ignore)
    return new ExchangeState({
      id: this.id,
      scope,
      port: nodePort(request, response, watched),
      response,
      context
    })
  }

  #run(): void {
    const { onStart } = this.#edge.options
    if (onStart !== undefined) this.#tell("onStart", onStart, this.known)
    let given: unknown
    try {
      given = this.#plain.handle(new LightExchange(this))
    } catch (error) {
      this.#failed(error)
      return
    }
    told(given, this.#fulfilled, this.#failed)
  }

  readonly #fulfilled = (value: unknown): void => {
    if (this.#running !== undefined) {
      this.#running.resolve(value)
      return
    }
    this.#settled = true
    if (this.#over) this.#end()
    else this.#plain.hooks?.value?.(value)
  }

  readonly #failed = (error: unknown): void => {
    this.promote()
    this.#running?.reject(error)
  }

  readonly #finished = (): void => {
    if (this.#call !== undefined || this.#over || !isComplete(this.#plain.response)) return
    this.#over = true
    if (this.#settled) this.#end()
  }

  readonly #closed = (): void => {
    if (this.#call !== undefined || this.#over) return
    if (isComplete(this.#plain.response)) this.#finished()
    else this.promote()
  }

  halfClosed(): void {
    if (!isComplete(this.#plain.response)) this.promote()
  }

  stop(reason: CancelReason): void {
    if (!this.#ended) this.promote().stop(reason)
  }

  expire(): void {
    this.#expired = true
    const { clock } = this.#edge
    const at = Math.round(clock.currentTimeMillisUnsafe() + (this.at - Instant.nowOf(clock)))
    const origin = this.#origin
    this.promote().stop(CancelReason.Deadline({ at, origin, scope: this.#series.route }))
  }

  stopping(): void {
    const { request, response } = this.#plain
    if (!isHttp2(request) && !response.headersSent) response.setHeader("connection", "close")
  }

  get abandon(): Effect.Effect<void> {
    return Effect.suspend(() => (this.#ended ? Effect.void : this.promote().abandon))
  }

  get #origin(): "local" | "remote" {
    return this.limit < this.#plain.spec.options.deadline ? "remote" : "local"
  }

  /** What is left of its time, as its call has it. */
  get remaining(): {
    readonly deadline: Instant.Instant | undefined
    readonly deadlineOrigin: "local" | "remote"
  } {
    const none = this.#expired || this.limit === Number.POSITIVE_INFINITY
    return {
      deadline: none ? undefined : (this.at as Instant.Instant),
      deadlineOrigin: this.#origin
    }
  }

  /** The record of its call, told from its own start on. */
  since(record: RequestRecord): RequestRecord {
    const later = (duration: Duration.Duration): Duration.Duration =>
      Duration.millis(Duration.toMillis(duration) + this.#promotedAfter)
    return {
      ...record,
      startedAt: this.#startedAt,
      finishedAfter: later(record.finishedAfter),
      endedAfter: later(record.endedAfter)
    }
  }

  /** Makes a call of it, with all that a call has. */
  promote(): Call {
    if (this.#call !== undefined) return this.#call
    const { hooks, request, response, spec } = this.#plain
    const edge = this.#edge
    this.#leaveEars()
    edge.deadlines.leave(this)
    if (edge.records) this.#promotedAfter = Instant.nowOf(edge.clock) - this.#began
    const running = deferred<unknown>()
    this.#running = running
    if (this.#settled) running.resolve(handedOver)
    if (!this.#begun) this.#begin()
    const watched = prepareWatch(request, response, spec.options, this.#body)
    if (isComplete(response)) watched.peer.completeUnsafe()
    const port = nodePort(request, response, watched)
    const handler = Effect.contextWith((context: Context.Context<never>) =>
      scopeAround(
        running.promise,
        (scope) => {
          this.#full = new ExchangeState({ id: this.id, scope, port, response, context })
        },
        { name: this.name }
      )
    )
    const { options, policy } = spec
    const call = new Call(edge, { port, options, policy, handler, hooks, light: this })
    this.#call = call
    call.begin()
    // What has happened to its client reaches the call once its handler stands behind it.
    watched.look()
    return call
  }

  #leaveEars(): void {
    this.#ears?.delete(this)
    this.#ears = undefined
  }

  #end(): void {
    const edge = this.#edge
    this.#ended = true
    this.#leaveEars()
    this.#body.unwatch()
    if (this.row !== undefined) edge.deadlines.leave(this)
    edge.table.leave(this)
    const status = this.#plain.response.statusCode
    if (this.#begun) this.#series.answered(status, edge.context)
    else this.#series.quick(status, edge.context)
    const { onRecord } = edge.options
    if (onRecord !== undefined) this.#tell("onRecord", onRecord, this.#record(status))
    this.place.leave()
  }

  #record(status: number): EdgeRecord {
    const took = Duration.millis(Instant.nowOf(this.#edge.clock) - this.#began)
    return {
      name: this.#series.route,
      startedAt: this.#startedAt,
      finishedAfter: took,
      endedAfter: took,
      leases: 1,
      outlived: [],
      ...this.known,
      status,
      outcome: "answered",
      reason: undefined,
      dropped: false,
      sent: { status, bytes: undefined, parts: undefined, whole: true }
    }
  }

  /** Calls what the program gave, whatever that does. */
  #tell<A>(what: string, callback: (given: A) => void, given: A): void {
    try {
      callback(given)
    } catch (error) {
      Child.startUnsafe(
        this.#edge.context,
        Effect.logError(`${what} threw. Catch what it may throw.`, Cause.die(error))
      )
    }
  }
}
