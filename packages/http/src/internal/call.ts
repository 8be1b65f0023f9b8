/**
 * The life of one exchange: a handler behind an endpoint, and what answers it.
 *
 * Invariants
 * 1. What was let in leaves the table when its request has ended: its edge, its handler, and what they leave running in its
 *    name, whichever is last. Then its one record comes out.
 * 2. The edge is masked: a cancel of its owner reaches the handler, whose answer the edge still has to write.
 * 3. A handler has ended when its own work has, and its answer is out to the last byte or its client has gone: until
 *    then policy, deadline and shutdown hold.
 * 4. Nothing that a handler or a callback throws leaves this module.
 */
import { type CancelReason, describe } from "@curfew/reason"
import { CurrentCell } from "@curfew/reason/CancelCell"
import * as Endpoint from "@curfew/request/Endpoint"
import type { OnDisconnect } from "@curfew/request/OnDisconnect"
import * as RequestContext from "@curfew/request/RequestContext"
import { failureOf, Instant, reportUnhandled } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { EdgeRecord, EdgeRequest, Outcome } from "../EdgeRecord.ts"
import { errorAnswer, httpStatus, notATime, type Refusal, stopped, tooMany } from "./answers.ts"
import { beating } from "./beating.ts"
import { pathOf, seriesOf } from "./counting.ts"
import type { Edge } from "./edge.ts"
import type { Light } from "./light.ts"
import { since } from "./lightRecord.ts"
import { clientMillis, type Resolved } from "./options.ts"
import { awaitOver, type Port } from "./port.ts"
import type { Entry } from "./table.ts"

/** How a framework takes part in the answer. What is not given, the edge does itself. */
export interface Hooks {
  /** The handler's value, for the framework to send. */
  readonly value?: ((value: unknown) => void) | undefined
  /** The handler's failure, for the framework to answer. */
  readonly failure?: ((error: unknown) => void) | undefined
  /** The framework must not answer: the edge does, or nobody is there. Comes before the edge answers. */
  readonly withhold?: (() => void) | undefined
  /** The edge is done with the request: nothing of it holds the connection any more. Its handler may still run. */
  readonly done?: Effect.Effect<void> | undefined
}

export interface Start {
  readonly port: Port
  readonly options: Resolved
  readonly policy: OnDisconnect | undefined
  readonly handler: Effect.Effect<unknown, unknown>
  readonly hooks?: Hooks | undefined
  /** What the request was before it needed all this. It stands in the table, was counted, and has run its handler. */
  readonly light?: Light | undefined
}

/** What node says of writes to a response that was answered, or is gone. Expected once the edge has answered. */
const late = /^(ERR_HTTP_HEADERS_SENT|ERR_STREAM_|ERR_HTTP2_|ECONNRESET|EPIPE)/

export class Call implements Entry {
  entered = false
  before: Entry | undefined = undefined
  after: Entry | undefined = undefined
  readonly id: string
  readonly method: string
  readonly url: string
  readonly transport: Entry["transport"]
  readonly known: EdgeRequest
  readonly #edge: Edge
  readonly #start: Start
  #reason: CancelReason | undefined
  #context: RequestContext.RequestContext | undefined
  #outcome: Outcome | undefined
  #dropping = false
  #abandoned = false

  constructor(edge: Edge, start: Start) {
    this.#edge = edge
    this.#start = start
    const { light, options, port } = start
    this.id = light?.id ?? edge.table.nextId()
    this.method = options.route === undefined ? port.method : `${port.method} ${options.route}`
    this.url = port.url
    this.transport = port.transport
    const { id, method: route, transport, url } = this
    this.known = { id, method: port.method, route, url, path: pathOf(url), transport }
  }

  get reason(): CancelReason | undefined {
    return this.#reason
  }

  readonly stop = (reason: CancelReason): void => {
    this.#start.port.peer.stopUnsafe(reason)
  }

  readonly stopping = (): void => this.#start.port.stopping()

  readonly abandon: Effect.Effect<void> = Effect.suspend(() => {
    this.#abandoned = true
    return this.#context?.abandon ?? Effect.void
  })

  begin(): void {
    const { light } = this.#start
    if (light !== undefined) {
      light.place.start(this.#edge.context, this.#life(undefined))
      return
    }
    const { table } = this.#edge
    const refusal = this.#refusal()
    if (table.refusing) this.stopping()
    table.enter(this)
    const task = this.#edge.spawn(this.#life(refusal), {
      // As its handler: to a shutdown they are one.
      name: this.method,
      onNeverStarted: Effect.suspend(() => this.#turnedAway)
    })
    // The owner takes nothing any more: this is bounded, and nobody is left who could wait for it.
    if (task === undefined) Child.startUnsafe(this.#edge.context, this.#turnedAway)
  }

  #refusal(): Refusal | undefined {
    const { requests, table } = this.#edge
    if (table.refusing) return stopped
    if (table.entries.size >= requests) {
      return tooMany(requests)
    }
    const { options, port } = this.#start
    const { clientDeadline } = options
    if (clientDeadline !== undefined && Number.isNaN(clientMillis(port.header(clientDeadline.header)))) {
      return { status: 400, sentence: notATime(clientDeadline.header), reason: undefined }
    }
    return undefined
  }

  get #turnedAway(): Effect.Effect<void> {
    this.#start.hooks?.withhold?.()
    this.#reason = stopped.reason
    return Effect.ensuring(
      this.#start.port.respond(stopped.status, stopped.sentence),
      Effect.sync(() => this.#edge.table.leave(this))
    )
  }

  #life(refusal: Refusal | undefined): Effect.Effect<void> {
    const { hooks, port } = this.#start
    const body =
      refusal === undefined
        ? this.#served
        : Effect.suspend(() => {
            hooks?.withhold?.()
            if (refusal.reason !== undefined) this.#cancelled(refusal.reason)
            return port.respond(refusal.status, refusal.sentence)
          })
    const request: RequestContext.RequestOptions = {
      id: this.id,
      name: this.method,
      afterEnd: this.#edge.options.afterEnd,
      onEnd: (record) => this.#ended(record)
    }
    const told = Effect.suspend(() => {
      if (this.#start.light !== undefined) return body
      seriesOf(this.method, this.transport).start(this.#edge.context)
      return Effect.andThen(this.#call("onStart", this.#edge.options.onStart, this.known), body)
    })
    const run = Effect.flatMap(RequestContext.make(request), (context) => {
      this.#context = context
      return Effect.ensuring(RequestContext.provide(context)(told), context.finish)
    })
    return Effect.uninterruptible(Effect.ensuring(run, hooks?.done ?? Effect.void))
  }

  #cancelled(reason: CancelReason): void {
    this.#reason = reason
    this.#outcome = "cancelled"
  }

  get #served(): Effect.Effect<void> {
    const { hooks, options, policy, port } = this.#start
    const { context } = this.#edge
    const clock = Context.get(context, Clock.Clock)
    const { deadline, deadlineOrigin } = this.#deadline(clock)
    // What failed is the framework's to answer, and this goes on until it has.
    const handed =
      hooks?.failure === undefined
        ? this.#start.handler
        : Effect.catchCause(this.#start.handler, (cause) => {
            const failure = failureOf(cause)
            // A framework logs what it is handed, and nobody is there to be answered.
            if (failure === undefined || port.peer.state !== "waiting") return Effect.failCause(cause)
            return Effect.as(
              Effect.sync(() => {
                this.#outcome = "failed"
                hooks.failure?.(Cause.squash(failure))
              }),
              handedOver
            )
          })
    const handler = Effect.flatMap(handed, (value) => {
      if (value !== handedOver && port.peer.state === "waiting") hooks?.value?.(value)
      return awaitOver(port)
    })
    const run = Effect.withFiber<void>((fiber) => {
      const deafen = fiber.getRef(CurrentCell)?.listen((reason) => this.stop(reason)) ?? (() => {})
      const answer = Endpoint.run(handler, {
        method: this.method,
        kind: options.kind,
        transport: port.transport,
        peer: port.peer,
        policy,
        deadline,
        deadlineOrigin,
        place: this.#start.light?.place,
        onDropped: (exit) => this.#dropped(exit)
      }) as Effect.Effect<Endpoint.Answer<unknown, unknown>, never, never>
      return Effect.ensuring(
        Effect.flatMap(answer, (given) => this.#conclude(given)),
        Effect.sync(deafen)
      )
    })
    return beating(port.beat, options.heartbeat, run)
  }

  #deadline(clock: Clock.Clock): {
    readonly deadline: Instant.Instant | undefined
    readonly deadlineOrigin: "local" | "remote"
  } {
    const { light, options, port } = this.#start
    if (light !== undefined) return light.remaining
    const { clientDeadline } = options
    const wish = clientDeadline && clientMillis(port.header(clientDeadline.header))
    const own =
      clientDeadline === undefined || wish === undefined ? undefined : Math.min(wish, clientDeadline.max)
    const remote = own !== undefined && own < options.deadline
    const millis = remote ? own : options.deadline
    return {
      deadline:
        millis === Number.POSITIVE_INFINITY
          ? undefined
          : ((Instant.nowOf(clock) + millis) as Instant.Instant),
      deadlineOrigin: remote ? "remote" : "local"
    }
  }

  /** An exit that nobody takes any more. */
  #dropped(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    this.#dropping = exit._tag === "Success"
    const failure = exit._tag === "Failure" ? failureOf(exit.cause) : undefined
    if (failure === undefined) return Effect.void
    const error = Cause.squash(failure)
    const code = error instanceof Error && "code" in error ? String(error.code) : ""
    return late.test(code)
      ? Effect.logDebug(`${this.method} wrote to a client that had been answered, or had gone: ${code}.`)
      : reportUnhandled("abandoned work", this.method, failure, this.#reason)
  }

  #conclude(answer: Endpoint.Answer<unknown, unknown>): Effect.Effect<void> {
    const { hooks, options, port } = this.#start
    switch (answer._tag) {
      case "Value":
        return Effect.void
      case "Failure": {
        this.#outcome = "failed"
        const told = errorAnswer(answer.cause, options.mapError)
        hooks?.withhold?.()
        // What has an answer already gets no other: nobody was told what the line would say.
        const what =
          port.peer.state === "completed"
            ? "failed after its answer."
            : port.status() !== undefined
              ? "failed in the middle of its answer, which was broken off."
              : `was answered ${told.status}.`
        const log =
          told.status < 500
            ? Effect.void
            : Effect.logError(`${this.method} ${what}`, told.unforeseen ?? answer.cause)
        return Effect.andThen(port.respond(told.status, told.message), log)
      }
      case "Cancelled": {
        this.#cancelled(answer.reason)
        hooks?.withhold?.()
        const said = describe(answer.reason)
        return Effect.andThen(
          port.respond(
            httpStatus(answer.reason),
            `${said[0]?.toUpperCase()}${said.slice(1)}.`,
            answer.reason
          ),
          Effect.logDebug(`${this.method} was cancelled: ${said}`)
        )
      }
      case "Dropped":
        this.#reason = answer.reason
        hooks?.withhold?.()
        port.drop()
        return Effect.logDebug(`The client of ${this.method} has gone: ${describe(answer.reason)}`)
    }
  }

  #ended(record: RequestContext.RequestRecord): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { light } = this.#start
      this.#edge.table.leave(light ?? this)
      const told = this.#recorded(light === undefined ? record : since(light.beginning, record))
      seriesOf(this.method, this.transport).end(told, this.#edge.context)
      return this.#call("onRecord", this.#edge.options.onRecord, told)
    })
  }

  #recorded(record: RequestContext.RequestRecord): EdgeRecord {
    const { port } = this.#start
    const gone = port.peer.state === "gone" && this.#outcome !== "cancelled"
    const sent = port.status()
    return {
      ...record,
      ...this.known,
      status: port.peer.state === "gone" ? 499 : (sent ?? 499),
      outcome: this.#abandoned ? "abandoned" : gone ? "gone" : (this.#outcome ?? "answered"),
      reason: this.#reason ?? (gone ? port.gone() : undefined),
      dropped: this.#dropping,
      sent: { status: sent, bytes: undefined, parts: undefined, whole: port.peer.state === "completed" }
    }
  }

  /** Calls what the program gave, whatever that does. */
  #call<A>(what: string, callback: ((given: A) => void) | undefined, given: A): Effect.Effect<void> {
    return Effect.suspend(() => {
      try {
        callback?.(given)
        return Effect.void
      } catch (error) {
        return Effect.logError(`${what} threw. Catch what it may throw.`, Cause.die(error))
      }
    })
  }
}

/** In the place of a value that its framework was given already. */
export const handedOver: unique symbol = /* @__PURE__ */ Symbol("handed over") as never
