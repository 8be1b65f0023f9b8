/**
 * What the edges count, of whichever server.
 *
 * Invariants
 * 1. A request is counted once as started and once as ended, and is in flight between the two.
 * 2. What was over in its turn is counted with the end of that turn, all of one series together.
 * 3. A series is made once, as a metric of its own with the name of the public one: the registry knows them as the same,
 *    and neither a context nor a key is made for each request.
 */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import * as Metrics from "../EdgeMetrics.ts"
import type { EdgeRecord, EdgeRequest, Outcome } from "../EdgeRecord.ts"
import { afterLooks, type Turned } from "./turn.ts"

const counterOf = (metric: Metric.Counter<number>, attributes: Metric.Metric.AttributeSet) =>
  Metric.counter(metric.id, { description: metric.description, incremental: true, attributes })

type Counter = ReturnType<typeof counterOf>

/** The series of one route on one transport. */
export class Series implements Turned {
  /** `GET /orders/:id`, or a method alone. */
  readonly route: string
  readonly transport: EdgeRequest["transport"]
  readonly #started: Counter
  readonly #inFlight: Metric.Gauge<number>
  readonly #answered = new Map<number, Counter>()
  readonly #ended = new Map<string, Counter>()
  readonly #cancelled = new Map<string, Counter>()
  #outlived: Counter | undefined
  /** Requests with this status that were over in the turn that ends, and are not counted yet. */
  #quick = 0
  #quickStatus = 0
  #services: Context.Context<never> | undefined

  constructor(route: string, transport: EdgeRequest["transport"]) {
    this.route = route
    this.transport = transport
    this.#started = counterOf(Metrics.started, { route, transport })
    const { description, id } = Metrics.inFlight
    this.#inFlight = Metric.gauge(id, { description, attributes: { route, transport } })
  }

  start(services: Context.Context<never>): void {
    this.#started.updateUnsafe(1, services)
    this.#inFlight.modifyUnsafe(1, services)
  }

  /** The whole life of a request that nobody could have seen in flight. Those of a turn are counted together. */
  quick(status: number, services: Context.Context<never>): void {
    if (this.#quick > 0 && (status !== this.#quickStatus || services !== this.#services)) this.turned()
    this.#quick++
    if (this.#quick > 1) return
    this.#quickStatus = status
    this.#services = services
    afterLooks(this)
  }

  turned(): void {
    const count = this.#quick
    const services = this.#services
    if (count === 0 || services === undefined) return
    this.#quick = 0
    this.#services = undefined
    this.#started.updateUnsafe(count, services)
    this.#endedBy(this.#quickStatus).updateUnsafe(count, services)
  }

  /** The end that nearly all requests have. */
  answered(status: number, services: Context.Context<never>): void {
    this.#inFlight.modifyUnsafe(-1, services)
    this.#endedBy(status).updateUnsafe(1, services)
  }

  #endedBy(status: number): Counter {
    let counter = this.#answered.get(status)
    if (counter === undefined) {
      counter = this.#endedAs("answered", status)
      this.#answered.set(status, counter)
    }
    return counter
  }

  end(
    record: Pick<EdgeRecord, "outcome" | "outlived" | "reason" | "status">,
    services: Context.Context<never>
  ): void {
    const { outcome, outlived, reason, status } = record
    const { route, transport } = this
    if (outcome === "answered") this.answered(status, services)
    else {
      this.#inFlight.modifyUnsafe(-1, services)
      const key = `${outcome} ${status}`
      const counter = this.#ended.get(key) ?? this.#endedAs(outcome, status)
      this.#ended.set(key, counter)
      counter.updateUnsafe(1, services)
    }
    if (reason !== undefined) {
      const { _tag } = reason
      const counter =
        this.#cancelled.get(_tag) ?? counterOf(Metrics.cancelled, { route, transport, reason: _tag })
      this.#cancelled.set(_tag, counter)
      counter.updateUnsafe(1, services)
    }
    if (outlived.length > 0) {
      this.#outlived ??= counterOf(Metrics.outlived, { route })
      this.#outlived.updateUnsafe(1, services)
    }
  }

  #endedAs(outcome: Outcome, status: number): Counter {
    const { route, transport } = this
    return counterOf(Metrics.ended, { route, transport, outcome, status: String(status) })
  }
}

const known = /* @__PURE__ */ new Map<string, Map<string, Series>>()

export const seriesOf = (route: string, transport: EdgeRequest["transport"]): Series => {
  let routes = known.get(transport)
  if (routes === undefined) {
    routes = new Map()
    known.set(transport, routes)
  }
  let series = routes.get(route)
  if (series === undefined) {
    series = new Series(route, transport)
    routes.set(route, series)
  }
  return series
}

export const pathOf = (url: string): string => {
  const end = url.search(/[?#]/)
  return end < 0 ? url : url.slice(0, end)
}
