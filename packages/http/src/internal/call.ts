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
import { statusOf } from "@curfew/request"
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
import * as Fiber from "effect/Fiber"
import type { AccessRecord, ErrorAnswer } from "../EdgeOptions.ts"
import type { Edge } from "./edge.ts"
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
}

/** What stands against a request before its handler runs. */
interface Refusal {
  readonly status: number
  readonly sentence: string
}

/** What node says of writes to a response that was answered, or is gone. Expected once the edge has answered. */
const late = /^(ERR_HTTP_HEADERS_SENT|ERR_STREAM_|ERR_HTTP2_|ECONNRESET|EPIPE)/

export class Call implements Entry {
  readonly id: string
  readonly method: string
  readonly url: string
  readonly transport: Entry["transport"]
  readonly #edge: Edge
  readonly #start: Start
  #reason: CancelReason | undefined
  #context: RequestContext.RequestContext | undefined

  constructor(edge: Edge, start: Start) {
    this.#edge = edge
    this.#start = start
    const { options, port } = start
    this.id = edge.table.nextId()
    this.method = options.route === undefined ? port.method : `${port.method} ${options.route}`
    this.url = port.url
    this.transport = port.transport
  }

  get reason(): CancelReason | undefined {
    return this.#reason
  }

  readonly stop = (reason: CancelReason): void => {
    this.#start.port.peer.stopUnsafe(reason)
  }

  readonly stopping = (): void => this.#start.port.stopping()

  readonly abandon: Effect.Effect<void> = Effect.suspend(() => this.#context?.abandon ?? Effect.void)

  begin(): void {
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
      return { status: 503, sentence: `Too many requests: ${requests} may be under way.` }
    }
    const { options, port } = this.#start
    const { clientDeadline } = options
    if (clientDeadline !== undefined && Number.isNaN(clientMillis(port.header(clientDeadline.header)))) {
      const { header } = clientDeadline
      return {
        status: 400,
        sentence: `The header ${header} is no deadline; send milliseconds, such as 1500.`
      }
    }
    return undefined
  }

  get #turnedAway(): Effect.Effect<void> {
    this.#start.hooks?.withhold?.()
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
            return port.respond(refusal.status, refusal.sentence)
          })
    const request: RequestContext.RequestOptions = {
      id: this.id,
      name: this.method,
      afterEnd: this.#edge.options.afterEnd,
      onEnd: (record) => this.#ended(record)
    }
    const run = Effect.flatMap(RequestContext.make(request), (context) => {
      this.#context = context
      return Effect.ensuring(RequestContext.provide(context)(body), context.finish)
    })
    return Effect.uninterruptible(Effect.ensuring(run, hooks?.done ?? Effect.void))
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
              Effect.sync(() => hooks.failure?.(Cause.squash(failure))),
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
        onDropped: (exit) => this.#dropped(exit)
      }) as Effect.Effect<Endpoint.Answer<unknown, unknown>, never, never>
      return Effect.ensuring(
        Effect.flatMap(answer, (given) => this.#conclude(given)),
        Effect.sync(deafen)
      )
    })
    const { heartbeat } = options
    if (heartbeat === undefined) return run
    const beats = Effect.forever(Effect.andThen(Effect.sleep(heartbeat.every), port.beat(heartbeat.within)))
    return Effect.acquireUseRelease(
      Effect.forkChild(Effect.interruptible(beats)),
      () => run,
      (beating) => Fiber.interrupt(beating)
    )
  }

  #deadline(clock: Clock.Clock): {
    readonly deadline: Instant.Instant | undefined
    readonly deadlineOrigin: "local" | "remote"
  } {
    const { options, port } = this.#start
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
        const told = errorAnswer(answer.cause, options.mapError)
        hooks?.withhold?.()
        const log =
          told.status < 500
            ? Effect.void
            : Effect.logError(`${this.method} was answered ${told.status}.`, told.unforeseen ?? answer.cause)
        return Effect.andThen(port.respond(told.status, told.message), log)
      }
      case "Cancelled": {
        this.#reason = answer.reason
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
      const { port } = this.#start
      this.#edge.table.leave(this)
      const gone = port.peer.state === "gone"
      const told: AccessRecord = {
        ...record,
        method: port.method,
        url: this.url,
        transport: this.transport,
        status: gone ? 499 : (port.status() ?? 499),
        reason: this.#reason
      }
      try {
        this.#edge.options.onRecord?.(told)
        return Effect.void
      } catch (error) {
        return Effect.logError("onRecord threw. Catch what it may throw.", Cause.die(error))
      }
    })
  }
}

const handedOver: unique symbol = /* @__PURE__ */ Symbol("handed over") as never

const stopped: Refusal = { status: 503, sentence: "The server is shutting down." }

/** The status of a cancel. */
const httpStatus = (reason: CancelReason): number =>
  reason._tag === "LimitExceeded" && reason.limit === "bodyBytes" ? 413 : statusOf(reason).http

const unanswered: ErrorAnswer = { status: 500, message: "The request could not be answered." }

const errorAnswer = (
  cause: Cause.Cause<unknown>,
  mapError: Resolved["mapError"]
): ErrorAnswer & { readonly unforeseen?: Cause.Cause<unknown> } => {
  if (mapError === undefined || Cause.hasInterruptsOnly(cause)) return unanswered
  try {
    const told = mapError(Cause.squash(cause))
    if (told === undefined) return unanswered
    const { message, status } = told
    // Node throws at any other, and the client would wait for ever.
    return Number.isInteger(status) && status >= 200 && status <= 599 ? { status, message } : unanswered
  } catch (error) {
    return { ...unanswered, unforeseen: Cause.die(error) }
  }
}
