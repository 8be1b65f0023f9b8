/**
 * A request of node whose handler's fiber tells its edge, in place of one that waits beside it.
 *
 * Invariants
 * 1. The policy, the deadline and every cancel are those of `Served` in `@curfew/request`, which follows the rules of `Endpoint`. An
 *    interrupt of the request's own fiber is what the server says it is: the client's leaving, which follows the policy,
 *    or the server's end, which does not; and the request waits for the answer all the same.
 * 2. The handler has a `Scope` of its own, which closes with it where it was interrupted, and otherwise with that of the
 *    request: an answer keeps it open until it is out.
 * 3. Where somebody is given the record, the first thing registered with the request's scope makes it. Elsewhere there is
 *    a finalizer only for a handler that has left something in its scope; all others end, counted, with their answer,
 *    which is asked for when the turn is over, and listened for by those that outlive it.
 * 4. What the owner does not take runs attached to the request.
 */
import { CancelReason } from "@curfew/reason"
import { CurrentCell, interruptsOfUnsafe, startsApartUnsafe } from "@curfew/reason/CancelCell"
import type { RequestContext } from "@curfew/request"
import { type Answer, answersDropped } from "@curfew/request/Endpoint"
import * as Serving from "@curfew/request/Served"
import { Instant } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import type { Limited } from "../deadlines.ts"
import { afterTurn, type Turned } from "../turn.ts"
import { dropped, meantBy, type Response, respond, streamed } from "./answering.ts"
import { attached } from "./attached.ts"
import { type Deadline, deadlineOf, earlier } from "./deadline.ts"
import { Exchange, shutdown } from "./exchange.ts"
import { type Holder, hold, release } from "./places.ts"
import { QuickClient } from "./quickClient.ts"
import type { Quick } from "./quickly.ts"
import { abandoned, begun, over, recorded, type Served, tellRecord } from "./requests.ts"

type Waiter = Fiber.Fiber<unknown, unknown>
type Told = Answer<Response, unknown>

const none: Deadline = { at: Instant.never, origin: "remote" }

export class QuickCall
  implements Serving.Edge<Response, unknown>, Serving.StateOptions, Holder, Limited, Turned
{
  readonly id: string
  readonly name: string
  readonly afterEnd: Serving.StateOptions["afterEnd"]
  readonly onEnd: Serving.StateOptions["onEnd"]
  row: Limited["row"] = undefined
  limit = Number.POSITIVE_INFINITY
  at = Number.POSITIVE_INFINITY
  #deadlines: { readonly local: Deadline; readonly client: Deadline } = { local: none, client: none }
  readonly #served: Served
  readonly #fiber: Waiter
  readonly #outside: Context.Context<never>
  readonly #quick: Quick
  readonly #client: QuickClient
  readonly #exchange: Exchange
  readonly #request: ReturnType<typeof Serving.requestUnsafe>
  /** The handler's. Under `detach` the call has one of its own. */
  readonly #scope: Scope.Closeable | undefined
  #told: Told | undefined
  #resume: ((answer: Effect.Effect<Told>) => void) | undefined
  /** A finalizer of the request's scope ends it. */
  #finalized = false
  /** Its answer has been given to the server, or nobody waits for it any more. */
  #answered = false
  #ended = false
  /** It is looked at when the turn is over. */
  #due = false

  constructor(
    served: Served,
    id: string,
    fiber: Waiter,
    request: HttpServerRequest.HttpServerRequest,
    quick: Quick
  ) {
    const { name, options, settings } = served
    this.id = id
    this.name = name
    this.afterEnd = options.afterEnd
    this.onEnd = recorded(options) ? (base) => this.#recorded(base) : undefined
    this.#served = served
    this.#fiber = fiber
    this.#outside = fiber.context
    this.#quick = quick
    this.#client = new QuickClient(quick.source, quick.response, settings.watch, quick.length)
    this.#exchange = new Exchange(id, name, request, this.#client, fiber.context)
    this.#request = Serving.requestUnsafe(this, fiber.context)
    this.#scope = quick.policy === "detach" ? undefined : Scope.makeUnsafe()
    hold(quick.source, this)
  }

  stop(reason: CancelReason): void {
    this.#client.peer.stopUnsafe(reason)
  }

  get abandon(): Effect.Effect<void> {
    return Effect.suspend(() => (this.#ended ? Effect.void : abandoned(this.#exchange, this.#request)))
  }

  // ── the start ──────────────────────────────────────────────────────────────────────────────────────────────

  /** To be run masked, in the fiber of the request. */
  run(naming: Effect.Effect<void>): Effect.Effect<Response, unknown> {
    const { options } = this.#served
    const records = this.onEnd !== undefined
    if (records) this.#exchange.begin()
    this.#atTurn()
    if (!records && naming === Effect.void && options.onStart === undefined) return this.#start()
    const first = Effect.andThen(naming, begun(options, this.#exchange))
    const start = Effect.andThen(
      first,
      Effect.suspend(() => this.#start())
    )
    return records ? Effect.andThen(this.#finalize(), start) : start
  }

  /** The end of the request's scope makes its record, and closes the handler's own before that. */
  #finalize(): Effect.Effect<void> {
    this.#finalized = true
    return Scope.addFinalizerExit(this.#requestScope, (exit) => {
      const ended = over(this.#exchange, this.#request)
      const scope = this.#scope
      return scope === undefined || scope.state._tag === "Empty"
        ? ended
        : Effect.ensuring(Scope.close(scope, exit), ended)
    })
  }

  get #requestScope(): Scope.Scope {
    return Context.getUnsafe(this.#outside as Context.Context<Scope.Scope>, Scope.Scope)
  }

  #start(): Effect.Effect<Response, unknown> {
    const { app, name, owner } = this.#served
    const { policy } = this.#quick
    const fiber = this.#fiber
    const origin = this.#limited()
    const { at } = this
    const started = Serving.startUnsafe(app, {
      method: name,
      kind: "request",
      transport: this.#client.transport,
      edge: this,
      peer: this.#client.peer,
      policy,
      owner,
      context: this.#inside(),
      request: this.#request,
      deadline: at === Number.POSITIVE_INFINITY ? undefined : (at as Instant.Instant),
      deadlineKept: true,
      deadlineOrigin: origin,
      scope: this.#scope,
      outer: fiber.getRef(CurrentCell)
    })
    if (!started) return this.#attached()
    // An interrupt that the handler sent to the request's fiber comes before its answer.
    if (this.#told !== undefined && interruptsOfUnsafe(fiber) === undefined) return this.#respond(this.#told)
    return this.#wait()
  }

  /** Its time begins; says whose it is. */
  #limited(): Deadline["origin"] {
    const { settings } = this.#served
    if (settings.deadline === Number.POSITIVE_INFINITY && settings.clientDeadline === undefined)
      return "local"
    const now = Instant.nowUnsafe(this.#fiber)
    const deadlines = deadlineOf(settings, this.#exchange.request, now)
    if (deadlines === "invalid") return "local"
    this.#deadlines = deadlines
    const { at, origin } = earlier(deadlines.local, deadlines.client)
    this.at = at
    this.limit = Math.ceil(at - now)
    return origin
  }

  /** Its log lines and its span say which request it is. */
  #inside(): Context.Context<never> {
    const fiber = this.#fiber
    const { span } = fiber.cache
    if (span?._tag === "Span") span.attribute("curfew.request.id", this.id)
    return Context.add(this.#outside, References.CurrentLogAnnotations, {
      ...fiber.getRef(References.CurrentLogAnnotations),
      request: this.id
    }) as Context.Context<never>
  }

  /** The owner is closed, and takes nothing: nothing has run. */
  #attached(): Effect.Effect<Response, unknown> {
    void this.#client.watch
    const answer = attached(this.#served, this.#exchange, this.#request, Instant.nowUnsafe(this.#fiber))
    return Effect.ensuring(
      answer,
      Effect.sync(() => this.#gone())
    )
  }

  // ── the answer ─────────────────────────────────────────────────────────────────────────────────────────────

  answer(told: Told): undefined {
    this.#told = told
    this.#served.deadlines.leave(this)
    const resume = this.#resume
    if (resume === undefined) return
    this.#resume = undefined
    Child.resumeWith(this.#fiber, resume, Effect.succeed(told))
  }

  neverStarted(): undefined {
    this.answer({ _tag: "Cancelled", reason: shutdown })
  }

  cancelled(): void {}

  /** Its time is over. */
  expire(): void {
    const clock = this.#fiber.getRef(Clock.Clock)
    const at = Math.round(clock.currentTimeMillisUnsafe() + (this.at - Instant.nowOf(clock)))
    const { client, local } = this.#deadlines
    this.stop(CancelReason.Deadline({ at, origin: earlier(local, client).origin, scope: this.name }))
  }

  dropped(exit: Exit.Exit<Response, unknown>): Effect.Effect<void> {
    return dropped(this.#exchange, exit)
  }

  /** Waits for the answer, as long as the policy says, whatever comes to the request's fiber meanwhile. */
  #wait(): Effect.Effect<Response, unknown> {
    const outer = this.#fiber.getRef(CurrentCell)
    const deafen =
      outer === undefined || startsApartUnsafe(this.#fiber)
        ? undefined
        : // A cancel that says nothing comes as an interrupt as well, and that says what it means.
          outer.listen((reason) => reason._tag !== "Unknown" && this.#means(reason))
    const waited = Effect.onExitPrimitive(Effect.interruptible(this.#awaitTold), (exit) => {
      deafen?.()
      return exit._tag === "Failure" ? this.#interrupted : undefined
    })
    return Effect.flatMap(waited, (told) => this.#respond(told))
  }

  get #awaitTold(): Effect.Effect<Told> {
    return Effect.callback((resume) => {
      if (this.#told !== undefined) resume(Effect.succeed(this.#told))
      else this.#resume = resume
    })
  }

  #means(reason: CancelReason): void {
    const { peer } = this.#client
    if (reason._tag === "ClientGone") peer.goneUnsafe(reason)
    else peer.stopUnsafe(reason)
  }

  /** Nobody takes the answer: the client has left, or the server ends. Masked. */
  get #interrupted(): Effect.Effect<void> {
    const exchange = this.#exchange
    return Effect.flatMap(meantBy(this.#fiber, exchange), (reason) => {
      this.#means(reason)
      return Effect.flatMap(this.#awaitTold, (answer) => {
        if (!exchange.gone) exchange.cancelled(shutdown)
        this.#note(answer)
        this.#gone()
        return answer._tag === "Value" ? this.#untaken(answer.value) : Effect.void
      })
    })
  }

  #note(answer: Told): void {
    if (answer._tag === "Cancelled") this.#exchange.cancelled(answer.reason)
    else if (answer._tag === "Dropped") this.#exchange.left(answer.reason)
  }

  /** A value that came too late for the request, and in time for its handler. */
  #untaken(value: Response): Effect.Effect<void> {
    const { transport } = this.#client
    Metric.withAttributes(answersDropped, { method: this.name, transport }).updateUnsafe(1, this.#outside)
    return dropped(this.#exchange, Exit.succeed(value))
  }

  #respond(told: Told): Effect.Effect<Response, unknown> {
    const { client } = this.#deadlines
    const exchange = this.#exchange
    const answer = respond(exchange, told, (response) =>
      streamed(this.#served, exchange, this.#request, client, response)
    )
    const scope = this.#scope
    const kept = scope !== undefined && scope.state._tag !== "Empty"
    const streams = told._tag === "Value" && told.value.body._tag === "Stream"
    if (!this.#finalized && (kept || streams)) return Effect.andThen(this.#finalize(), answer)
    this.#gone()
    return answer
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────────

  /** From here on the end of the response is that of the request. */
  #gone(): void {
    if (this.#answered || this.#finalized) return
    this.#answered = true
    // Written now, it is out with this turn or is listened for from then on.
    this.#atTurn()
  }

  #atTurn(): void {
    if (this.#due) return
    this.#due = true
    afterTurn(this)
  }

  turned(): void {
    this.#due = false
    if (this.#ended) return
    const client = this.#client
    if (!this.#answered || !client.complete) {
      this.#exchange.begin()
      const { onOver } = client.watch
      if (this.#told === undefined && this.row === undefined && this.limit !== Number.POSITIVE_INFINITY)
        this.#served.deadlines.enter(this)
      if (this.#answered) onOver(() => this.#finish())
    } else this.#finish()
  }

  #finish(): void {
    if (this.#ended) return
    // Of what was not watched nobody else has noted it.
    if (this.#client.complete) this.#client.peer.completeUnsafe()
    this.#exchange.settle()
    const ending = this.#request.finishUnsafe()
    // Without a receiver of its record a request has nothing to run at its end.
    if (ending !== undefined) Child.startUnsafe(this.#outside, ending)
    // Somebody holds it beyond its answer.
    if (!this.#ended) this.#exchange.begin()
  }

  /** Told by the request, when it has ended and nobody holds it: the end of one that nobody is given the record of. */
  onEnded(outlived: ReadonlySet<string> | undefined): void {
    this.#ended = true
    if (this.onEnd !== undefined) return
    release(this.#quick.source, this)
    const exchange = this.#exchange
    const { complete, response } = this.#client
    const whole = complete && !exchange.gone && !exchange.abandoned && outlived === undefined
    if (whole && this.#told?._tag === "Value" && this.#told.value.body._tag !== "Stream") {
      exchange.endQuickly(response.statusCode)
      return
    }
    exchange.end({
      id: this.id,
      name: this.name,
      startedAt: 0,
      finishedAfter: Duration.zero,
      endedAfter: Duration.zero,
      leases: 1,
      outlived: [...(outlived ?? [])]
    })
  }

  #recorded(base: RequestContext.RequestRecord): Effect.Effect<unknown> {
    this.#ended = true
    release(this.#quick.source, this)
    return tellRecord(this.#served.options, this.#exchange, base)
  }
}
