/**
 * Running a handler for a call, and writing what answers it.
 *
 * Invariants
 * 1. A call that is let in leaves the table when its request has ended: its edge, its handler, and what they leave
 *    running in their name, whichever is last.
 * 2. The edge is masked: a cancel of its owner reaches the handler, whose answer the edge still has to write.
 * 3. The edge writes one status, after everything that the handler wrote, or none when nobody is there.
 * 4. What a client cannot be told is logged, within the call's span.
 * 5. Nothing that a handler, a codec or an observer throws leaves this module.
 */
import { type CancelReason, describe } from "@curfew/reason"
import { CurrentCell } from "@curfew/reason/CancelCell"
import { DefaultOnDisconnect, policyOf, RequestContext, statusOf } from "@curfew/request"
import * as Endpoint from "@curfew/request/Endpoint"
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
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { GrpcError } from "../../GrpcError.ts"
import type { ServerOptions, Service } from "../../Server.ts"
import { CurrentServerCalls } from "../../ServerCalls.ts"
import type { CallLimits, LimitName } from "../../ServerLimits.ts"
import { CallState, type RawCall, type Respond } from "./callState.ts"
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
import * as telemetry from "./telemetry.ts"

export const makeService = (
  definition: ServiceDefinition,
  handlers: Readonly<Record<string, AnyHandler>>,
  options: Options
): Effect.Effect<Service, never, Owner> =>
  Effect.gen(function* () {
    const context = yield* Effect.context<Owner>()
    const spawn = yield* TaskScope.makeRuntime(yield* Owner)
    const given = options.calls ?? (yield* CurrentServerCalls)
    const table = given === undefined ? yield* CallTable.make({}, context) : (given as CallTable)
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
        kind: kindOf(original),
        options,
        limits: resolveLimits(methodLimits[name], options.limits),
        table,
        context,
        spawn
      }
      // grpc-js tells handlers apart by what they are registered as, not by what they take.
      implementation[name] = ((raw: RawCall, respond?: Respond) => arrive(spec, raw, respond)) as never
    }
    const service: Service = { definition: wrapped as ServiceDefinition, implementation }
    own.add(service)
    return service
  })

const own = new WeakSet<Service>()

/** Whether the calls of a service keep their own place in the table. */
export const isOwn = (service: Service): boolean => own.has(service)

/** A call has come from the transport. */
const arrive = (spec: MethodSpec, raw: RawCall, respond: Respond | undefined): void => {
  const { context, kind, limits, table } = spec
  const clock = Context.get(context, Clock.Clock)
  const call = new CallState({
    raw,
    respond: streams(kind) ? undefined : respond,
    method: spec.definition.path,
    kind,
    limits,
    table,
    clock
  })
  const unavailable = () => call.finish(outgoing(Code.UNAVAILABLE, "The server is shutting down"))
  if (table.refusing) {
    unavailable()
    return
  }
  const refused = table.admit(call)
  if (refused !== undefined) {
    const { details, limit } = refused
    telemetry.refused(call, limit, context)
    call.finish(outgoing(limitCode(spec, limit), details))
    return
  }
  telemetry.started(call, context)
  const leave = (): void => {
    telemetry.left(call, context)
    table.leave(call)
  }
  const task = spec.spawn(edge(spec, call, leave), {
    // As its handler: to a shutdown they are one call.
    name: call.method,
    onNeverStarted: Effect.sync(() => {
      unavailable()
      leave()
    })
  })
  if (task !== undefined) return
  unavailable()
  leave()
}

const limitCode = ({ options, table }: MethodSpec, limit: LimitName): number =>
  table.statusOf(limit, options.limitStatus)

/** The whole life of a call. */
const edge = (spec: MethodSpec, call: CallState, leave: () => void): Effect.Effect<void> => {
  const { context, limits, options } = spec
  const clock = Context.get(context, Clock.Clock)
  const body = Effect.withFiber<void, GrpcError>((fiber) => {
    const cell = fiber.getRef(CurrentCell)
    const deafen = cell?.listen((reason) => call.stop(reason)) ?? (() => {})
    const disarm =
      limits.time === Number.POSITIVE_INFINITY
        ? () => {}
        : Child.armUnsafe(context, clock, limits.time, () => call.exceeded("time"))
    return Effect.ensuring(
      Effect.flatMap(
        Endpoint.run(handling(spec, call), {
          method: call.method,
          kind: streams(call.kind) ? "stream" : "request",
          transport: call.transport,
          peer: call.signal,
          policy: policyOf(spec.handler),
          deadline: deadlineOf(call, clock),
          deadlineOrigin: "remote",
          onDropped: (exit) => dropped(call, exit)
        }) as Effect.Effect<Endpoint.Answer<unknown, unknown>>,
        (answer) => conclude(spec, call, answer)
      ),
      Effect.sync(() => {
        deafen()
        disarm()
        // Answered already, unless something broke on the way that nobody has foreseen.
        call.finish(outgoing(Code.INTERNAL, "The call could not be answered"))
      })
    )
  })
  const { onRequestEnd } = options
  const request: RequestContext.RequestOptions = {
    id: call.id,
    name: call.method,
    onEnd: (record) => {
      leave()
      return onRequestEnd?.(record) ?? Effect.void
    }
  }
  // What fails has been answered, and logged where nobody foresaw it: it fails for the eyes of the span alone.
  return Effect.uninterruptible(Effect.ignore(RequestContext.run(request, telemetry.traced(call, body))))
}

const deadlineOf = (call: CallState, clock: Clock.Clock): Instant.Instant | undefined => {
  const at = Option.getOrUndefined(call.deadline)
  if (at === undefined) return undefined
  const left = at - clock.currentTimeMillisUnsafe()
  return (Instant.nowOf(clock) + left) as Instant.Instant
}

/** An exit that no client takes any more. That the handler says a status is no news then. */
const dropped = (call: CallState, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> => {
  const failure = exit._tag === "Failure" ? failureOf(exit.cause) : undefined
  if (failure === undefined) return Effect.void
  const said = Cause.hasDies(failure) ? undefined : spoken(Cause.squash(failure))
  return said === undefined
    ? reportUnhandled("abandoned work", call.method, failure, call.ended)
    : Effect.logDebug(`Nobody was there for the status ${said.code} of ${call.method}: ${said.details}`)
}

// ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────

const conclude = (
  spec: MethodSpec,
  call: CallState,
  answer: Endpoint.Answer<unknown, unknown>
): Effect.Effect<void, GrpcError> =>
  Effect.gen(function* () {
    const told = statusOfAnswer(spec, call, answer)
    const { status } = told
    // The answer first: a logger has no say in it.
    const thrown = call.finish(status, told.bytes)
    if (told.unforeseen !== undefined) {
      yield* Effect.logError(`${status.details} (${call.method}).`, told.unforeseen)
    }
    if (thrown !== undefined) {
      yield* Effect.logError(`The answer of ${call.method} could not be handed over.`, Cause.fail(thrown))
    }
    if (call.observerFailure !== undefined) {
      const failure = Cause.fail(call.observerFailure)
      yield* Effect.logError("The observer of cancellations threw. Catch what it may throw.", failure)
    }
    yield* Effect.annotateCurrentSpan("rpc.grpc.status_code", status.code)
    if (answer._tag === "Cancelled" || answer._tag === "Dropped") {
      call.noteEnd(answer.reason)
      const reason = answer.reason._tag
      yield* Effect.annotateCurrentSpan("curfew.cancel.reason", reason)
      yield* Effect.logDebug(`${call.method} was cancelled: ${describe(answer.reason)}`)
      telemetry.cancelled(call, reason, spec.context)
      if (call.handling && (yield* waitedFor(spec, call))) telemetry.abandoned(call, spec.context)
    } else {
      telemetry.completed(call, status.code, spec.context)
    }
    if (telemetry.isServerError(status.code)) {
      return yield* new GrpcError({ code: status.code, details: status.details, method: call.method })
    }
  })

/** Whether the edge waited for the handler's clean-up: what runs still has overrun its budget then. */
const waitedFor = (spec: MethodSpec, call: CallState): Effect.Effect<boolean> =>
  Effect.map(DefaultOnDisconnect, (otherwise) => {
    const kind = streams(call.kind) ? "stream" : "request"
    const { method, transport } = call
    const policy = policyOf(spec.handler) ?? otherwise({ method, kind, transport })
    return policy === "cancel" || typeof policy === "object"
  })

const statusOfAnswer = (
  spec: MethodSpec,
  call: CallState,
  answer: Endpoint.Answer<unknown, unknown>
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
