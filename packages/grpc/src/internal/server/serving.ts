/**
 * A call that was let in, from its start to its answer.
 *
 * Invariants
 * 1. A call that is let in leaves the table when its request has ended: its edge, its handler, and what they leave
 *    running in their name, whichever is last.
 * 2. The handler's fiber is the only one of an ordinary call, and its last finalizer the edge; a cancel of the owner
 *    reaches the handler, whose answer is still written.
 * 3. The edge writes one status, after everything that the handler wrote, or none when nobody is there.
 * 4. What a client cannot be told is logged, within the call's span.
 */
import { type CancelReason, describe } from "@curfew/reason"
import type { OnDisconnect } from "@curfew/request"
import type { Answer } from "@curfew/request/Endpoint"
import type { CallInfo } from "@curfew/request/OnDisconnect"
import {
  type Edge,
  policyUnsafe,
  requestUnsafe,
  type ServedOptions,
  type StateOptions,
  startUnsafe
} from "@curfew/request/Served"
import { failureOf, Instant, reportUnhandled } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import type * as Tracer from "effect/Tracer"
import { GrpcError } from "../../GrpcError.ts"
import { statusOfAnswer, unavailable } from "./answer.ts"
import type { HandlerCall } from "./handlerCall.ts"
import { handling } from "./handling.ts"
import { type MethodSpec, streams } from "./method.ts"
import { type Outgoing, spoken } from "./status.ts"
import { isServerError, type MethodMetrics, spanName, spanOptions } from "./telemetry.ts"

/** A call that was let in, from its start to its answer: what its handler's fiber does for the edge. */
export class Serving implements Edge<unknown, unknown>, ServedOptions<unknown, unknown>, StateOptions {
  readonly method: string
  readonly kind: CallInfo["kind"]
  readonly transport: CallInfo["transport"]
  readonly policy: OnDisconnect
  readonly deadline: Instant.Instant | undefined
  readonly request: ReturnType<typeof requestUnsafe>
  readonly #spec: MethodSpec
  readonly #call: HandlerCall
  readonly #metrics: MethodMetrics
  #span: Tracer.Span | undefined
  #disarm: (() => void) | undefined

  constructor(spec: MethodSpec, call: HandlerCall, metrics: MethodMetrics) {
    this.method = call.method
    this.kind = streams(spec.kind) ? "stream" : "request"
    this.transport = call.transport
    this.#spec = spec
    this.#call = call
    this.#metrics = metrics
    this.policy = policyUnsafe(spec.policy, spec.context, this)
    this.request = requestUnsafe(this, spec.context)
    const { deadlineAt } = call
    this.deadline =
      deadlineAt === Number.POSITIVE_INFINITY
        ? undefined
        : ((Instant.nowOf(spec.clock) + this.#left) as Instant.Instant)
  }

  /** Milliseconds until the client's deadline. */
  get #left(): number {
    const { deadlineAt } = this.#call
    return deadlineAt === Number.POSITIVE_INFINITY
      ? deadlineAt
      : deadlineAt - this.#spec.clock.currentTimeMillisUnsafe()
  }

  start(): boolean {
    const { clock, context, limits } = this.#spec
    const call = this.#call
    const started = startUnsafe(this.#traced(handling(this.#spec, call)), this)
    if (!started || call.answered || call.over) return started
    // The earlier of the two ends the call; with both at hand a timer would stand for nothing.
    if (limits.time < this.#left) {
      this.#disarm = Child.armUnsafe(context, clock, limits.time, () => call.exceeded("time"))
    }
    return true
  }

  // ── what the call and its request are made with ────────────────────────────────────────────────────────────

  get edge(): this {
    return this
  }

  get peer(): HandlerCall["signal"] {
    return this.#call.signal
  }

  get deadlineKept(): boolean {
    return this.#call.deadlineKept
  }

  get owner(): MethodSpec["owner"] {
    return this.#spec.owner
  }

  get context(): MethodSpec["context"] {
    return this.#spec.context
  }

  get id(): string {
    return this.#call.id
  }

  get name(): string {
    return this.method
  }

  get onEnd(): StateOptions["onEnd"] {
    return this.#spec.options.onRequestEnd
  }

  onEnded(): void {
    this.#metrics.left()
    this.#spec.table.leave(this.#call)
  }

  // ── what the call is told ──────────────────────────────────────────────────────────────────────────────────

  cancelled(reason: CancelReason): void {
    this.#call.noteEnd(reason)
  }

  neverStarted(): Effect.Effect<void> | undefined {
    this.#call.finish(unavailable)
    return this.#end()
  }

  /** An exit that no client takes any more. That the handler says a status is no news then. */
  dropped(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    const call = this.#call
    const failure = exit._tag === "Failure" ? failureOf(exit.cause) : undefined
    if (failure === undefined) return Effect.void
    const said = Cause.hasDies(failure) ? undefined : spoken(Cause.squash(failure))
    return said === undefined
      ? reportUnhandled("abandoned work", call.method, failure, call.ended)
      : Effect.logDebug(`Nobody was there for the status ${said.code} of ${call.method}: ${said.details}`)
  }

  answer(answer: Answer<unknown, unknown>, early: boolean): Effect.Effect<void> | undefined {
    const call = this.#call
    const told = statusOfAnswer(this.#spec, call, answer)
    const { status } = told
    // The answer first: a logger has no say in it.
    const thrown = call.finish(status, told.bytes)
    const cancelled = answer._tag === "Cancelled" || answer._tag === "Dropped"
    if (cancelled) {
      call.noteEnd(answer.reason)
      this.#metrics.cancelled(answer.reason._tag)
      // The edge waited for the handler's clean-up, which has overrun its budget.
      if (early && (this.policy === "cancel" || typeof this.policy === "object")) this.#metrics.abandoned()
    } else {
      this.#metrics.completed(status.code)
      if (told.unforeseen === undefined && thrown === undefined && call.observerFailure === undefined) {
        this.#endSpan(status, undefined)
        return this.#end()
      }
    }
    this.#disarm?.()
    const { method } = call
    const said = sayAll([
      told.unforeseen && Effect.logError(`${status.details} (${method}).`, told.unforeseen),
      thrown === undefined
        ? undefined
        : Effect.logError(`The answer of ${method} could not be handed over.`, Cause.fail(thrown)),
      call.observerFailure === undefined
        ? undefined
        : Effect.logError(
            "The observer of cancellations threw. Catch what it may throw.",
            Cause.fail(call.observerFailure)
          ),
      cancelled ? Effect.logDebug(`${method} was cancelled: ${describe(answer.reason)}`) : undefined
    ])
    const span = this.#span
    return Effect.ensuring(
      span === undefined ? said : Effect.withParentSpan(said, span),
      Effect.suspend(() => {
        this.#endSpan(status, cancelled ? answer.reason : undefined)
        return this.#end() ?? Effect.void
      })
    )
  }

  /** The edge is done with the call; the table lets go of it when nobody holds its request any more. */
  #end(): Effect.Effect<void> | undefined {
    this.#disarm?.()
    this.#disarm = undefined
    return this.request.finishUnsafe()
  }

  // ── the span ───────────────────────────────────────────────────────────────────────────────────────────────

  #traced(body: Effect.Effect<unknown, unknown>): Effect.Effect<unknown, unknown> {
    const call = this.#call
    const options = spanOptions(call, this.#spec.traced)
    if (options === undefined) return body
    return Effect.flatMap(Effect.makeSpan(spanName(call), options), (span) => {
      this.#span = span
      return Effect.withParentSpan(body, span)
    })
  }

  #endSpan({ code, details }: Outgoing, reason: CancelReason | undefined): void {
    const span = this.#span
    if (span === undefined) return
    const { clock, context } = this.#spec
    span.attribute("rpc.grpc.status_code", code)
    if (reason !== undefined) span.attribute("curfew.cancel.reason", reason._tag)
    const exit = isServerError(code)
      ? Exit.fail(new GrpcError({ code, details, method: this.#call.method }))
      : Exit.void
    const timed = Context.get(context, References.TracerTimingEnabled)
    span.end(timed ? clock.currentTimeNanosUnsafe() : 0n, exit)
  }
}

const sayAll = (said: ReadonlyArray<Effect.Effect<void> | undefined>): Effect.Effect<void> =>
  Effect.forEach(
    said.filter((line) => line !== undefined),
    (line) => line,
    { discard: true }
  )
