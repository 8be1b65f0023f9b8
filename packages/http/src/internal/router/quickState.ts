/**
 * What is known of a request of node whose handler's fiber tells its edge, and what stops it.
 *
 * Invariants
 * 1. What is told of a request beside its answer, its `Exchange`, is made for whoever asks: most requests end without one.
 *    One that is made after the answer knows of it.
 * 2. Its time begins when its handler starts, and is over once: see `Deadlines`.
 */
import { CancelReason } from "@curfew/reason"
import type { RequestContext } from "@curfew/request"
import * as Serving from "@curfew/request/Served"
import { Instant } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as References from "effect/References"
import type { Limited } from "../deadlines.ts"
import type { Response } from "./answering.ts"
import { type Deadline, deadlineOf, earlier } from "./deadline.ts"
import { Exchange } from "./exchange.ts"
import { type Holder, hold } from "./places.ts"
import { QuickClient } from "./quickClient.ts"
import type { Quick } from "./quickly.ts"
import { abandoned, recorded, type Served } from "./requests.ts"

const none: Deadline = { at: Instant.never, origin: "remote" }

export abstract class QuickState implements Serving.StateOptions, Holder, Limited {
  readonly id: string
  readonly name: string
  readonly afterEnd: Serving.StateOptions["afterEnd"]
  readonly onEnd: Serving.StateOptions["onEnd"]
  row: Limited["row"] = undefined
  limit = Number.POSITIVE_INFINITY
  at = Number.POSITIVE_INFINITY
  protected readonly served: Served
  protected readonly fiber: Fiber.Fiber<unknown, unknown>
  protected readonly outside: Context.Context<never>
  protected readonly quick: Quick
  protected readonly client: QuickClient
  protected readonly state: ReturnType<typeof Serving.requestUnsafe>
  /** The answer, where it is whole: nothing of it has to be told before its end. */
  protected sent: Response | undefined = undefined
  /** It is over, and nobody holds it. */
  protected ended = false
  /** The client's own. */
  protected clientDeadline = none
  protected origin: Deadline["origin"] = "local"
  /** What is told of it, where somebody has asked. */
  protected asked: Exchange | undefined = undefined
  readonly #request: HttpServerRequest.HttpServerRequest

  constructor(
    served: Served,
    id: string,
    fiber: Fiber.Fiber<unknown, unknown>,
    request: HttpServerRequest.HttpServerRequest,
    quick: Quick
  ) {
    const { name, options, settings } = served
    this.id = id
    this.name = name
    this.afterEnd = options.afterEnd
    this.onEnd = recorded(options) ? (base) => this.recorded(base) : undefined
    this.served = served
    this.fiber = fiber
    this.outside = fiber.context
    this.quick = quick
    this.#request = request
    this.client = new QuickClient(quick.source, quick.response, settings.watch, quick.length)
    this.state = Serving.requestUnsafe(this, fiber.context)
    hold(quick.source, this)
  }

  protected abstract recorded(base: RequestContext.RequestRecord): Effect.Effect<unknown>

  protected get exchange(): Exchange {
    if (this.asked === undefined) {
      const made = new Exchange(this.id, this.name, this.#request, this.client, this.served.context)
      this.asked = made
      if (this.sent !== undefined) made.answering(this.sent, "answered")
    }
    return this.asked
  }

  stop(reason: CancelReason): void {
    this.client.peer.stopUnsafe(reason)
  }

  get abandon(): Effect.Effect<void> {
    return Effect.suspend(() => (this.ended ? Effect.void : abandoned(this.exchange, this.state)))
  }

  /** Its time begins. */
  protected beginTime(): void {
    const {
      deadlines: { clock },
      settings
    } = this.served
    const { clientDeadline, deadline } = settings
    if (clientDeadline === undefined) {
      if (deadline === Number.POSITIVE_INFINITY) return
      this.at = Instant.nowOf(clock) + deadline
      this.limit = Math.ceil(deadline)
      return
    }
    const now = Instant.nowOf(clock)
    const deadlines = deadlineOf(settings, this.#request, now)
    if (deadlines === "invalid") return
    this.clientDeadline = deadlines.client
    const { at, origin } = earlier(deadlines.local, deadlines.client)
    this.at = at
    this.limit = Math.ceil(at - now)
    this.origin = origin
  }

  /** Its time is over. */
  expire(): void {
    const { clock } = this.served.deadlines
    const at = Math.round(clock.currentTimeMillisUnsafe() + (this.at - Instant.nowOf(clock)))
    this.stop(CancelReason.Deadline({ at, origin: this.origin, scope: this.name }))
  }

  /** What its handler runs in: its log lines and its span say which request it is. */
  protected get inside(): Context.Context<never> {
    const { fiber } = this
    const { span } = fiber.cache
    if (span?._tag === "Span") span.attribute("curfew.request.id", this.id)
    return Context.add(this.outside, References.CurrentLogAnnotations, {
      ...fiber.getRef(References.CurrentLogAnnotations),
      request: this.id
    }) as Context.Context<never>
  }
}
