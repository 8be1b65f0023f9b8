/**
 * A request of node whose handler's fiber tells its edge, in place of one that waits beside it.
 *
 * Invariants
 * 1. The policy, the deadline and every cancel are those of `Served` in `@curfew/request`, which follows the rules of `Endpoint`. An
 *    interrupt of the request's own fiber is what the server says it is: the client's leaving, which follows the policy,
 *    or the server's end, which does not; and the request waits for the answer all the same.
 * 2. What the owner does not take runs attached to the request.
 */
import type { CancelReason } from "@curfew/reason"
import { CurrentCell, interruptsOfUnsafe, startsApartUnsafe } from "@curfew/reason/CancelCell"
import { type Answer, answersDropped } from "@curfew/request/Endpoint"
import * as Serving from "@curfew/request/Served"
import { Instant } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import { dropped, meantBy, type Response, respond, streamed } from "./answering.ts"
import { attached } from "./attached.ts"
import { shutdown } from "./exchange.ts"
import { QuickEnd } from "./quickEnd.ts"
import { begun } from "./requests.ts"

type Told = Answer<Response, unknown>

export class QuickCall extends QuickEnd implements Serving.Edge<Response, unknown> {
  #told: Told | undefined
  #resume: ((answer: Effect.Effect<Told>) => void) | undefined

  protected get handled(): boolean {
    return this.#told !== undefined
  }

  /** To be run masked, in the fiber of the request. */
  run(naming: Effect.Effect<void>): Effect.Effect<Response, unknown> {
    const { options } = this.served
    const records = this.onEnd !== undefined
    if (records) this.exchange.begin()
    this.atTurn()
    if (!records && naming === Effect.void && options.onStart === undefined) return this.#start()
    const start = Effect.andThen(
      Effect.andThen(
        naming,
        Effect.suspend(() => begun(options, this.exchange))
      ),
      Effect.suspend(() => this.#start())
    )
    return records ? Effect.andThen(this.finalize(), start) : start
  }

  #start(): Effect.Effect<Response, unknown> {
    const { client, fiber, name, scope, served, state } = this
    this.beginTime()
    const { at } = this
    const started = Serving.startUnsafe(served.app, {
      method: name,
      kind: "request",
      transport: client.transport,
      edge: this,
      peer: client.peer,
      policy: this.quick.policy,
      owner: served.owner,
      context: this.inside,
      request: state,
      deadline: at === Number.POSITIVE_INFINITY ? undefined : (at as Instant.Instant),
      deadlineKept: true,
      deadlineAhead: true,
      clock: served.deadlines.clock,
      deadlineOrigin: this.origin,
      scope,
      outer: fiber.getRef(CurrentCell)
    })
    if (!started) return this.#attached()
    // An interrupt that the handler sent to the request's fiber comes before its answer.
    if (this.#told !== undefined && interruptsOfUnsafe(fiber) === undefined) return this.#respond(this.#told)
    return this.#wait()
  }

  /** The owner is closed, and takes nothing: nothing has run. */
  #attached(): Effect.Effect<Response, unknown> {
    void this.client.watch
    // It has a timer of its own.
    this.limit = Number.POSITIVE_INFINITY
    const answer = attached(this.served, this.exchange, this.state, Instant.nowUnsafe(this.fiber))
    return Effect.ensuring(
      answer,
      Effect.sync(() => this.gone())
    )
  }

  // ── what its call tells ────────────────────────────────────────────────────────────────────────────────────

  answer(told: Told): undefined {
    this.#told = told
    this.served.deadlines.leave(this)
    const resume = this.#resume
    if (resume === undefined) return
    this.#resume = undefined
    Child.resumeWith(this.fiber, resume, Effect.succeed(told))
  }

  neverStarted(): undefined {
    this.answer({ _tag: "Cancelled", reason: shutdown })
  }

  cancelled(): void {}

  dropped(exit: Exit.Exit<Response, unknown>): Effect.Effect<void> {
    return dropped(this.exchange, exit)
  }

  // ── the answer ─────────────────────────────────────────────────────────────────────────────────────────────

  /** Waits for the answer, as long as the policy says, whatever comes to the request's fiber meanwhile. */
  #wait(): Effect.Effect<Response, unknown> {
    const outer = this.fiber.getRef(CurrentCell)
    const deafen =
      outer === undefined || startsApartUnsafe(this.fiber)
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
    const { peer } = this.client
    if (reason._tag === "ClientGone") peer.goneUnsafe(reason)
    else peer.stopUnsafe(reason)
  }

  /** Nobody takes the answer: the client has left, or the server ends. Masked. */
  get #interrupted(): Effect.Effect<void> {
    const { exchange } = this
    return Effect.flatMap(meantBy(this.fiber, exchange), (reason) => {
      this.#means(reason)
      return Effect.flatMap(this.#awaitTold, (answer) => {
        if (!exchange.gone) exchange.cancelled(shutdown)
        if (answer._tag === "Cancelled") exchange.cancelled(answer.reason)
        else if (answer._tag === "Dropped") exchange.left(answer.reason)
        this.gone()
        return answer._tag === "Value" ? this.#untaken(answer.value) : Effect.void
      })
    })
  }

  /** A value that came too late for the request, and in time for its handler. */
  #untaken(value: Response): Effect.Effect<void> {
    const { transport } = this.client
    Metric.withAttributes(answersDropped, { method: this.name, transport }).updateUnsafe(1, this.outside)
    return dropped(this.exchange, Exit.succeed(value))
  }

  #respond(told: Told): Effect.Effect<Response, unknown> {
    const { scope } = this
    const kept = scope !== undefined && scope.state._tag !== "Empty"
    const streams = told._tag === "Value" && told.value.body._tag === "Stream"
    const answer = told._tag === "Value" && !streams ? this.#whole(told.value) : this.#other(told)
    if (!this.finalized && (kept || streams)) return Effect.andThen(this.finalize(), answer)
    this.gone()
    return answer
  }

  /** As nearly every answer is. */
  #whole(response: Response): Effect.Effect<Response> {
    this.sent = response
    this.asked?.answering(response, "answered")
    return Effect.succeed(response)
  }

  #other(told: Told): Effect.Effect<Response, unknown> {
    const { clientDeadline, exchange, served, state } = this
    return respond(exchange, told, (response) => streamed(served, exchange, state, clientDeadline, response))
  }
}
