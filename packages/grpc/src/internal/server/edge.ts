/**
 * Running a handler for a call, and writing what answers it.
 *
 * Invariants
 * 1. A call that is let in leaves the table when its request has ended: its edge, its handler, and what they leave
 *    running in their name, whichever is last.
 * 2. The handler's fiber is the only one of an ordinary call, and its last finalizer the edge; a cancel of the owner
 *    reaches the handler, whose answer is still written.
 * 3. The edge writes one status, after everything that the handler wrote, or none when nobody is there.
 * 4. What a client cannot be told is logged, within the call's span.
 * 5. Nothing that a handler, a codec or an observer throws leaves this module.
 * 6. What the calls of a method share is looked up once, when its service is made.
 */
import { type CancelReason, describe, tellCancels } from "@curfew/reason"
import { type OnDisconnect, policyOf, statusOf } from "@curfew/request"
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
import { failureOf, Instant, Owner, reportUnhandled, TaskScope } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import {
  status as Code,
  type Metadata,
  type ServiceDefinition,
  type UntypedServiceImplementation
} from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { GrpcError } from "../../GrpcError.ts"
import type { ServerOptions, Service } from "../../Server.ts"
import { CurrentServerCalls } from "../../ServerCalls.ts"
import type { CallLimits, LimitName } from "../../ServerLimits.ts"
import type { CallState } from "./callState.ts"
import { CallTable } from "./callTable.ts"
import { cannotEncode, encode, handling } from "./handling.ts"
import { limitReason, resolveLimits } from "./limits.ts"
import {
  type AnyDefinition,
  type AnyHandler,
  kindOf,
  type MethodSpec,
  type Options,
  passingThrough,
  streams
} from "./method.ts"
import { ObjectCall, type RawCall, type Respond } from "./objectCall.ts"
import { PlainCall, type PlainHost, plainKey } from "./plainCall.ts"
import {
  detailsOf,
  type Outgoing,
  okWith,
  outgoing,
  spoken,
  statusOfCause,
  statusOfError,
  type Told
} from "./status.ts"
import { isServerError, MethodMetrics, spanName, spanOptions } from "./telemetry.ts"

export const makeService = (
  definition: ServiceDefinition,
  handlers: Readonly<Record<string, AnyHandler>>,
  options: Options
): Effect.Effect<Service, never, Owner> =>
  Effect.gen(function* () {
    // A server counts its cancels, also where a bundler left out what nobody mentions.
    tellCancels()
    const services = yield* Effect.context<Owner>()
    const owner = yield* Owner
    // Flat: each call adds what is its own on top.
    const context = Context.makeUnsafe<never>(new Map(services.mapUnsafe))
    const clock = Context.get(context, Clock.Clock)
    const traced = services.mapUnsafe.has(Tracer.TracerKey)
    const given = options.calls ?? (yield* CurrentServerCalls)
    const table = given === undefined ? yield* CallTable.make({}, services) : (given as CallTable)
    const methodLimits = (options.methodLimits ?? {}) as Readonly<Record<string, ServerOptions["limits"]>>
    const wrapped: Record<string, AnyDefinition> = {}
    const implementation: UntypedServiceImplementation = {}
    for (const [name, method] of Object.entries(definition)) {
      const original = method as AnyDefinition
      const handler =
        handlers[name] ?? (original.originalName === undefined ? undefined : handlers[original.originalName])
      wrapped[name] = passingThrough(original)
      if (handler === undefined) continue
      const spec: MethodSpec = {
        definition: original,
        handler,
        policy: policyOf(handler),
        kind: kindOf(original),
        options,
        limits: resolveLimits(methodLimits[name], options.limits),
        table,
        context,
        clock,
        owner,
        traced,
        metrics: {
          grpc: new MethodMetrics(original.path, "grpc", context),
          tunnel: new MethodMetrics(original.path, "tunnel", context)
        }
      }
      // grpc-js tells handlers apart by what they are registered as, not by what they take.
      const handle = (raw: RawCall, respond?: Respond) => arrive(spec, new ObjectCall(spec, raw, respond))
      const enter = (host: PlainHost, request: Buffer | undefined) =>
        arrive(spec, new PlainCall(spec, host, request))
      implementation[name] = Object.assign(handle, { [plainKey]: enter }) as never
    }
    const service: Service = { definition: wrapped as ServiceDefinition, implementation }
    own.add(service)
    return service
  })

const own = new WeakSet<Service>()

/** Whether the calls of a service keep their own place in the table. */
export const isOwn = (service: Service): boolean => own.has(service)

/** A call has come from the transport; gives it back, for who tells it more. */
const arrive = <Call extends CallState>(spec: MethodSpec, call: Call): Call => {
  const { table } = spec
  if (table.refusing) {
    call.finish(unavailable)
    return call
  }
  const metrics = call.transport === "tunnel" ? spec.metrics.tunnel : spec.metrics.grpc
  const refused = table.admit(call)
  if (refused !== undefined) {
    const { details, limit } = refused
    metrics.refused(limit)
    call.finish(outgoing(limitCode(spec, limit), details))
    return call
  }
  metrics.started()
  if (served(spec, call, metrics)) return call
  call.finish(unavailable)
  metrics.left()
  table.leave(call)
  return call
}

const served = (spec: MethodSpec, call: CallState, metrics: MethodMetrics): boolean => {
  try {
    return new Serving(spec, call, metrics).start()
  } catch (error) {
    // The policy is a function of the program's. Who looks after the owner is told.
    call.finish(outgoing(Code.INTERNAL, "The call could not be answered"))
    TaskScope.spawnUnsafe(spec.owner, spec.context, Effect.die(error), { name: call.method })
    return false
  }
}

const unavailable: Outgoing = outgoing(Code.UNAVAILABLE, "The server is shutting down")

const limitCode = ({ options, table }: MethodSpec, limit: LimitName): number =>
  table.statusOf(limit, options.limitStatus)

/** A call that was let in, from its start to its answer: what its handler's fiber does for the edge. */
class Serving implements Edge<unknown, unknown>, ServedOptions<unknown, unknown>, StateOptions {
  readonly method: string
  readonly kind: CallInfo["kind"]
  readonly transport: CallInfo["transport"]
  readonly policy: OnDisconnect
  readonly deadline: Instant.Instant | undefined
  readonly request: ReturnType<typeof requestUnsafe>
  readonly #spec: MethodSpec
  readonly #call: CallState
  readonly #metrics: MethodMetrics
  #span: Tracer.Span | undefined
  #disarm: (() => void) | undefined

  constructor(spec: MethodSpec, call: CallState, metrics: MethodMetrics) {
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

  get peer(): CallState["signal"] {
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

// ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────

const statusOfAnswer = (
  spec: MethodSpec,
  call: CallState,
  answer: Answer<unknown, unknown>
): Told & { readonly bytes?: Buffer | undefined } => {
  switch (answer._tag) {
    case "Value": {
      if (streams(call.kind)) return { status: okWith(call.trailers), unforeseen: undefined }
      const bytes = encode(spec, answer.value)
      if (!Buffer.isBuffer(bytes)) {
        const status = outgoing(Code.INTERNAL, cannotEncode)
        return { status, unforeseen: Cause.fail(bytes.error) }
      }
      return call.counted(bytes.length)
        ? { status: okWith(call.trailers), unforeseen: undefined, bytes }
        : {
            status: cancelledStatus(spec, call, "responseBytes"),
            unforeseen: undefined
          }
    }
    case "Failure":
      return statusOfCause(answer.cause, call.trailers, spec.options.mapError)
    case "Cancelled":
    case "Dropped":
      return call.chosen === undefined
        ? { status: statusOfReason(spec, answer.reason, call.trailers), unforeseen: undefined }
        : statusOfError(call.chosen, call.trailers)
  }
}

const cancelledStatus = (spec: MethodSpec, call: CallState, limit: keyof CallLimits): Outgoing =>
  statusOfReason(spec, limitReason(call.limits, limit), call.trailers)

const statusOfReason = (spec: MethodSpec, reason: CancelReason, trailers: Metadata | undefined): Outgoing => {
  const code =
    reason._tag === "LimitExceeded" ? limitCode(spec, reason.limit as LimitName) : statusOf(reason).grpc
  return outgoing(code, detailsOf(reason), trailers)
}
