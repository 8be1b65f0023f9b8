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
import { CancelReason, describe } from "@curfew/reason"
import { CurrentCell } from "@curfew/reason/CancelCell"
import { DefaultOnDisconnect, policyOf, RequestContext, statusOf } from "@curfew/request"
import * as Endpoint from "@curfew/request/Endpoint"
import { failureOf, type Instant, Owner, reportUnhandled, TaskScope } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import {
  status as Code,
  type Metadata,
  type MethodDefinition,
  type ServiceDefinition,
  type UntypedServiceImplementation
} from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { GrpcError } from "../GrpcError.ts"
import type { ServerOptions, Service } from "../Server.ts"
import { CurrentServerCalls } from "../ServerCalls.ts"
import type { LimitName } from "../ServerLimits.ts"
import * as Metrics from "../ServerMetrics.ts"
import type { MethodKind } from "../Service.ts"
import { CallState, type RawCall, type Respond, resolveLimits } from "./serverCallState.ts"
import { CallTable } from "./serverCallTable.ts"
import { decoded, Encoded, requestsOf } from "./serverRequests.ts"
import { type Outgoing, okWith, outgoing, spoken, statusOfCause, type Told } from "./serverStatus.ts"

type AnyHandler = (request: unknown, call: CallState) => unknown
type AnyDefinition = MethodDefinition<unknown, unknown>
type Options = ServerOptions<never>

/** Everything that the calls of one method share. */
interface MethodSpec {
  readonly definition: AnyDefinition
  readonly handler: AnyHandler
  readonly kind: MethodKind
  readonly options: Options
  readonly limits: ReturnType<typeof resolveLimits>
  readonly table: CallTable
  readonly context: Context.Context<Owner>
  readonly spawn: <A, E>(
    work: Effect.Effect<A, E>,
    options: { readonly name: string; readonly onNeverStarted: Effect.Effect<unknown> }
  ) => unknown
}

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

const kindOf = ({ requestStream, responseStream }: AnyDefinition): MethodKind =>
  requestStream ? (responseStream ? "bidi" : "clientStream") : responseStream ? "serverStream" : "unary"

const passingThrough = (method: AnyDefinition): AnyDefinition => ({
  ...method,
  requestDeserialize: (bytes: Buffer) => new Encoded(bytes),
  responseSerialize: (bytes) => bytes as Buffer
})

const streams = (kind: MethodKind): boolean => kind === "bidi" || kind === "serverStream"

/** What a metric of a call carries. */
const counted = (metric: Metric.Counter<number>, call: CallState, more: Record<string, string> = {}) =>
  Metric.withAttributes(metric, { method: call.method, transport: call.transport, ...more })

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
  const limit = table.admit(call)
  if (limit !== undefined) {
    counted(Metrics.refused, call, { limit }).updateUnsafe(1, context)
    call.finish(outgoing(limitCode(spec, limit), `Too many ${limit}`))
    return
  }
  const place = take(spec, call)
  const task = spec.spawn(edge(spec, call, place), {
    name: `answer to ${call.method}`,
    onNeverStarted: Effect.sync(() => {
      unavailable()
      place.leave()
    })
  })
  if (task !== undefined) return
  unavailable()
  place.leave()
}

/** The call's place in the table. */
interface Place {
  readonly leave: () => void
  handlerEnded: boolean
}

const take = ({ context, table }: MethodSpec, call: CallState): Place => {
  const inFlight = Metric.withAttributes(Metrics.inFlight, { method: call.method, transport: call.transport })
  counted(Metrics.started, call).updateUnsafe(1, context)
  inFlight.modifyUnsafe(1, context)
  return {
    handlerEnded: true,
    leave: () => {
      inFlight.modifyUnsafe(-1, context)
      table.leave(call)
    }
  }
}

const limitCode = ({ options, table }: MethodSpec, limit: LimitName): number =>
  options.limitStatus?.(limit) ?? table.options.limitStatus?.(limit) ?? Code.RESOURCE_EXHAUSTED

/** The whole life of a call. */
const edge = (spec: MethodSpec, call: CallState, place: Place): Effect.Effect<void> => {
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
        Endpoint.run(handling(spec, call, place), {
          method: call.method,
          kind: streams(call.kind) ? "stream" : "request",
          transport: call.transport,
          peer: call.signal,
          policy: policyOf(spec.handler),
          deadline: deadlineOf(call, clock),
          deadlineOrigin: "remote",
          onDropped: (exit) => dropped(call, exit)
        }) as Effect.Effect<Endpoint.Answer<unknown, unknown>>,
        (answer) => conclude(spec, call, place, answer)
      ),
      Effect.sync(() => {
        deafen()
        disarm()
      })
    )
  })
  const { onRequestEnd } = options
  const request: RequestContext.RequestOptions = {
    id: call.id,
    name: call.method,
    onEnd: (record) => Effect.andThen(Effect.sync(place.leave), onRequestEnd?.(record) ?? Effect.void)
  }
  return Effect.uninterruptible(Effect.ignore(RequestContext.run(request, traced(call, body))))
}

/** A span as OpenTelemetry's conventions for RPC have it, below the client's own. */
const traced = <A>(call: CallState, body: Effect.Effect<A, GrpcError>): Effect.Effect<A, GrpcError> => {
  const name = call.method.slice(1)
  const slash = name.lastIndexOf("/")
  const [traceparent] = call.metadata.get("traceparent")
  const parent =
    typeof traceparent === "string" ? HttpTraceContext.w3c({ traceparent } as never) : Option.none()
  return Effect.withSpan(body, name, {
    kind: "server",
    // It would say where this module is, at the price of a stack trace per call.
    captureStackTrace: false,
    ...(Option.isSome(parent) ? { parent: parent.value } : { root: true }),
    attributes: {
      "rpc.system": "grpc",
      "rpc.service": name.slice(0, slash),
      "rpc.method": name.slice(slash + 1),
      "client.address": call.peer,
      "curfew.transport": call.transport,
      "curfew.request.id": call.id
    }
  })
}

const deadlineOf = (call: CallState, clock: Clock.Clock): Instant.Instant | undefined => {
  const at = Option.getOrUndefined(call.deadline)
  if (at === undefined) return undefined
  const left = at - clock.currentTimeMillisUnsafe()
  return (Number(clock.monotonicTimeNanosUnsafe()) / 1e6 + left) as Instant.Instant
}

// ── the handler ──────────────────────────────────────────────────────────────────────────────────────────────

/** The handler as one effect, in a scope of its own. The value is what a single answer is. */
const handling = (spec: MethodSpec, call: CallState, place: Place): Effect.Effect<unknown, unknown> => {
  const { definition, handler, kind } = spec
  const decode = definition.requestDeserialize
  const run = Effect.gen(function* () {
    const request =
      kind === "unary" || kind === "serverStream"
        ? yield* decoded(call, decode, call.raw.request)
        : requestsOf(call, decode)
    if (call.phase === "waiting") call.phase = "running"
    const result = handler(request, call)
    if (streams(kind)) {
      if (!Stream.isStream(result)) return yield* Effect.die(wrongResult(call, "Stream"))
      return yield* written(spec, call, result as Stream.Stream<unknown, unknown>)
    }
    if (!Effect.isEffect(result)) return yield* Effect.die(wrongResult(call, "Effect"))
    return yield* result as Effect.Effect<unknown, unknown>
  })
  return Effect.withFiber((fiber) => {
    place.handlerEnded = false
    // The handler's own cell hears of every cancel: its deadline and its owner have no other way to tell the call.
    const deafen = fiber.getRef(CurrentCell)?.listen((reason) => call.noteEnd(reason)) ?? (() => {})
    return Effect.ensuring(
      Effect.scoped(run),
      Effect.sync(() => {
        deafen()
        place.handlerEnded = true
      })
    )
  })
}

const wrongResult = (call: CallState, wanted: "Effect" | "Stream"): Error =>
  new Error(
    `The handler of ${call.method} has to give ${wanted === "Effect" ? "an Effect" : "a Stream"}; wrap a function that gives a promise in Server.fromPromise.`
  )

/** Writes a stream, message by message, as fast as the peer takes it. */
const written = (
  spec: MethodSpec,
  call: CallState,
  stream: Stream.Stream<unknown, unknown>
): Effect.Effect<void, unknown> =>
  Stream.runForEachArray(stream, (messages) => {
    let index = 0
    const rest: Effect.Effect<void, GrpcError> = Effect.suspend(() => {
      while (index < messages.length) {
        const encoded = encode(spec, call, messages[index++])
        if (!Buffer.isBuffer(encoded)) return unencodable(call, encoded)
        const wait = call.write(encoded)
        if (wait !== undefined) return index < messages.length ? Effect.andThen(wait, rest) : wait
      }
      return Effect.void
    })
    return rest
  })

class Unencodable {
  readonly error: unknown
  constructor(error: unknown) {
    this.error = error
  }
}

const encode = ({ definition }: MethodSpec, _call: CallState, message: unknown): Buffer | Unencodable => {
  try {
    const bytes: unknown = definition.responseSerialize(message)
    if (Buffer.isBuffer(bytes)) return bytes
    if (bytes instanceof Uint8Array) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return new Unencodable(new TypeError("The serializer gave no bytes."))
  } catch (error) {
    return new Unencodable(error)
  }
}

const cannotEncode = "The response could not be encoded"

const unencodable = (call: CallState, { error }: Unencodable): Effect.Effect<never, GrpcError> =>
  Effect.andThen(
    Effect.logError(
      `${cannotEncode}. Check what the handler of ${call.method} answers with.`,
      Cause.fail(error)
    ),
    new GrpcError({ code: Code.INTERNAL, details: cannotEncode, method: call.method })
  )

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
  place: Place,
  answer: Endpoint.Answer<unknown, unknown>
): Effect.Effect<void, GrpcError> =>
  Effect.gen(function* () {
    const told = statusOfAnswer(spec, call, answer)
    const { status } = told
    if (told.unforeseen !== undefined) {
      yield* Effect.logError(`${status.details} (${call.method}).`, told.unforeseen)
    }
    const thrown = call.finish(status, told.bytes)
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
      yield* Metric.update(counted(Metrics.cancelled, call, { reason }), 1)
      if (!place.handlerEnded && (yield* waitedFor(spec, call))) {
        yield* Metric.update(counted(Metrics.abandoned, call), 1)
      }
    } else {
      yield* Metric.update(counted(Metrics.completed, call, { code: String(status.code) }), 1)
    }
    if (isServerError(status.code)) {
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

/** Those that OpenTelemetry counts as errors of a server. */
const isServerError = (code: number): boolean =>
  code === Code.UNKNOWN ||
  code === Code.DEADLINE_EXCEEDED ||
  code === Code.UNIMPLEMENTED ||
  code === Code.INTERNAL ||
  code === Code.UNAVAILABLE ||
  code === Code.DATA_LOSS

const statusOfAnswer = (
  spec: MethodSpec,
  call: CallState,
  answer: Endpoint.Answer<unknown, unknown>
): Told & { readonly bytes?: Buffer | undefined } => {
  switch (answer._tag) {
    case "Value": {
      if (streams(call.kind)) return { status: okWith(call.trailers), unforeseen: undefined }
      const bytes = encode(spec, call, answer.value)
      if (!Buffer.isBuffer(bytes)) {
        const status = outgoing(Code.INTERNAL, cannotEncode)
        return { status, unforeseen: Cause.fail(bytes.error) }
      }
      return call.allowsAnswer(bytes.length)
        ? { status: okWith(call.trailers), unforeseen: undefined, bytes }
        : { status: cancelledStatus(spec, call, "responseBytes"), unforeseen: undefined }
    }
    case "Failure":
      return statusOfCause(answer.cause, call.trailers, spec.options.mapError)
    case "Cancelled":
    case "Dropped":
      return {
        status: call.chosen ?? statusOfReason(spec, answer.reason, call.trailers),
        unforeseen: undefined
      }
  }
}

const cancelledStatus = (spec: MethodSpec, call: CallState, limit: LimitName): Outgoing =>
  statusOfReason(spec, CancelReason.LimitExceeded({ limit }), call.trailers)

const statusOfReason = (spec: MethodSpec, reason: CancelReason, trailers: Metadata | undefined): Outgoing => {
  const code =
    reason._tag === "LimitExceeded" ? limitCode(spec, reason.limit as LimitName) : statusOf(reason).grpc
  return outgoing(code, sentence(reason), trailers)
}

const sentence = (reason: CancelReason): string => {
  switch (reason._tag) {
    case "Deadline":
      return "Deadline exceeded"
    case "Shutdown":
      return "The server is shutting down"
    case "LimitExceeded":
      return `The limit of ${reason.limit} was passed`
    default:
      return describe(reason)
  }
}
