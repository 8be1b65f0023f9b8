/**
 * What is known of a request without a call: its name, its time, and where it is counted.
 *
 * Invariants
 * 1. Its time is asked for where somebody will want to know, and not before that: with a limit, or with a record.
 */
import { Instant, type TaskScope } from "@curfew/scope"
import type { EdgeRequest } from "../EdgeRecord.ts"
import { pathOf, type Series } from "./counting.ts"
import type { Limited } from "./deadlines.ts"
import type { Edge, Spec } from "./edge.ts"

export abstract class LightState implements Limited {
  row: Limited["row"] = undefined
  readonly place: TaskScope.Place
  readonly limit: number
  protected readonly edge: Edge
  protected readonly spec: Spec
  protected readonly series: Series
  /** It has been counted as started. */
  protected begun = false
  /** Monotonic milliseconds, where somebody will ask. */
  protected began = 0
  protected startedAt = 0
  /** How long it had no call. */
  protected promotedAfter = 0
  protected expired = false
  readonly #number: number

  constructor(edge: Edge, spec: Spec, series: Series, place: TaskScope.Place, limit: number) {
    this.edge = edge
    this.spec = spec
    this.series = series
    this.#number = edge.table.nextNumber()
    this.limit = limit
    this.place = place
  }

  abstract readonly url: string
  abstract readonly verb: string
  /** Its time is over. */
  abstract expire(): void

  get id(): string {
    return `http-${this.#number}`
  }

  get method(): string {
    return this.series.route
  }

  get transport(): "http1" | "http2" {
    return this.series.transport as "http1" | "http2"
  }

  get known(): EdgeRequest {
    const { id, method: route, transport, url, verb: method } = this
    return { id, method, route, url, path: pathOf(url), transport }
  }

  get at(): number {
    return this.began + this.limit
  }

  /** It is counted as started, and its time begins. */
  protected begin(): void {
    const { clock, context, records } = this.edge
    this.begun = true
    if (records || this.limit !== Number.POSITIVE_INFINITY) this.began = Instant.nowOf(clock)
    this.series.start(context)
  }

  protected get origin(): "local" | "remote" {
    return this.limit < this.spec.options.deadline ? "remote" : "local"
  }

  /** What is left of its time, as its call has it. */
  get remaining(): {
    readonly deadline: Instant.Instant | undefined
    readonly deadlineOrigin: "local" | "remote"
  } {
    const none = this.expired || this.limit === Number.POSITIVE_INFINITY
    return {
      deadline: none ? undefined : (this.at as Instant.Instant),
      deadlineOrigin: this.origin
    }
  }

  /** When it began, and how long it had no call. */
  get beginning(): { readonly startedAt: number; readonly before: number } {
    return { startedAt: this.startedAt, before: this.promotedAfter }
  }
}
