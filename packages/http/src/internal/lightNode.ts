/**
 * A request of node without a call.
 *
 * Invariants
 * 1. Its answer is out by the same two facts as for every request: `isComplete`.
 * 2. No closure is made for it but those for the promise of its handler: what its adapter needs is made once for a route,
 *    and what a request brings is handed through. Listeners it has when it outlives its turn.
 */
import type { CancelScope } from "@curfew/promise"
import { TaskScope } from "@curfew/scope"
import type * as Context from "effect/Context"
import type { Exchange } from "../Exchange.ts"
import { bodyTooLarge } from "./answers.ts"
import { type BodyWatch, promised, unwatched, watchBody, watches } from "./body.ts"
import type { Hooks } from "./call.ts"
import type { Series } from "./counting.ts"
import type { Edge, Spec } from "./edge.ts"
import { ExchangeState } from "./exchange.ts"
import { Light, type Promoted } from "./light.ts"
import { LightExchange } from "./lightExchange.ts"
import { hasRoom, limitOf } from "./lightRoom.ts"
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
import { nodePort, type Port } from "./port.ts"

/** A handler as its adapter has made it, for all requests of a route. They bring three things that it names. */
export interface PlainRoute<A, B, C> {
  readonly spec: Spec
  /** Stands in what is left behind. */
  readonly name: string | undefined
  readonly handle: (first: A, second: B, exchange: Exchange) => unknown
  /** Is given the value of a handler, for its framework to send. */
  readonly value?: ((value: unknown, third: C) => void) | undefined
  /** How the framework takes part in what a call may become. */
  readonly hooks?: ((first: A, second: B, third: C) => Omit<Hooks, "done">) | undefined
}

/** One request on it. */
export interface Plain<A, B, C> {
  readonly route: PlainRoute<A, B, C>
  readonly request: NodeRequest
  readonly response: NodeResponse
  readonly first: A
  readonly second: B
  readonly third: C
}

const ignore = (): void => {}

export class NodeLight<A, B, C> extends Light<ExchangeState> implements HalfCloseEar {
  readonly request: NodeRequest
  readonly response: NodeResponse
  readonly #route: PlainRoute<A, B, C>
  readonly #first: A
  readonly #second: B
  readonly #third: C
  readonly #body: BodyWatch
  #ears: Set<HalfCloseEar> | undefined

  private constructor(
    edge: Edge,
    plain: Plain<A, B, C>,
    place: TaskScope.Place,
    series: Series,
    length: number,
    limit: number
  ) {
    const { first, request, response, route, second, third } = plain
    super(edge, route.spec, series, place, limit)
    this.request = request
    this.response = response
    this.#route = route
    this.#first = first
    this.#second = second
    this.#third = third
    const { body, bodyBytes } = route.spec.options
    this.#body =
      length !== 0 && watches(request, body, bodyBytes, length)
        ? watchBody(
            request,
            { body, bodyBytes, onTooLarge: () => this.stop(bodyTooLarge(bodyBytes)) },
            length
          )
        : unwatched
    response.on("error", ignore)
  }

  /** Starts the handler, unless something stands against the request from the beginning. */
  static start<A, B, C>(edge: Edge, plain: Plain<A, B, C>): boolean {
    const { request, response, route } = plain
    const { spec } = route
    const { bodyBytes, clientDeadline } = spec.options
    const http2 = isHttp2(request)
    if (!hasRoom(edge, spec) || isOver(response) || (!http2 && request.socket.readableEnded)) return false
    const length = promised(request)
    if (length > bodyBytes && length !== Number.POSITIVE_INFINITY) return false
    const wish = clientDeadline === undefined ? undefined : request.headers[clientDeadline.header]
    const limit = limitOf(spec.options, Array.isArray(wish) ? wish[0] : wish)
    if (limit <= 0) return false
    const series = spec.seriesOf(request.method ?? "GET", http2 ? "http2" : "http1")
    const place = TaskScope.reserveUnsafe(edge.owner, series.route)
    if (place === undefined) return false
    new NodeLight(edge, plain, place, series, length, limit).run()
    return true
  }

  get url(): string {
    return this.request.url ?? "/"
  }

  get verb(): string {
    return this.request.method ?? "GET"
  }

  get name(): string | undefined {
    return this.#route.name ?? this.request.method
  }

  get gone(): boolean {
    const { response } = this
    return this.full?.clientGone ?? (isOver(response) && !isComplete(response))
  }

  stopping(): void {
    const { request, response } = this
    if (!isHttp2(request) && !response.headersSent) response.setHeader("connection", "close")
  }

  protected get complete(): boolean {
    return isComplete(this.response)
  }

  protected get status(): number {
    return this.response.statusCode
  }

  protected handle(): unknown {
    const { handle } = this.#route
    return handle(this.#first, this.#second, new LightExchange(this))
  }

  protected give(value: unknown): void {
    this.#route.value?.(value, this.#third)
  }

  protected listen(): void {
    const { request, response, spec } = this
    if (isOver(response)) {
      this.closed()
      return
    }
    response.on("finish", () => this.finished())
    response.on("close", () => this.closed())
    if (spec.options.halfClose === "stays" || isHttp2(request)) return
    if (request.socket.readableEnded) this.halfClosed()
    else {
      this.#ears = halfCloseEars(request.socket)
      this.#ears.add(this)
    }
  }

  halfClosed(): void {
    if (!this.complete) this.promote()
  }

  protected deafen(): void {
    this.#ears?.delete(this)
    this.#ears = undefined
  }

  protected forget(): void {
    this.#body.unwatch()
  }

  protected prepare(): Promoted {
    const { request, response } = this
    const watched = prepareWatch(request, response, this.spec.options, this.#body)
    const port = nodePort(request, response, watched)
    const hooks = this.#route.hooks?.(this.#first, this.#second, this.#third)
    return { port, hooks, look: watched.look }
  }

  protected scoped(scope: CancelScope, port: Port, context: Context.Context<never>): ExchangeState {
    return new ExchangeState({ id: this.id, scope, port, response: this.response, context })
  }
}
