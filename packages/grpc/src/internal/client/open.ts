/**
 * Opening a call: as one operation, or as a resource of the surrounding `Scope`.
 *
 * Invariants
 * 1. The finalizers run in this order: cancel what has not ended, interrupt the request stream and wait for it, wait
 *    for the status, end the span. The request stream hears of the end of its call before that, from the status.
 * 2. The call is made after its finalizers are in place, in one operation.
 * 3. A call without streams needs no scope: its one operation releases it, whatever ends it.
 * 4. The request stream is a task under the caller's cell: a cancel from above reaches it in the same turn. What it
 *    fails with is the call's outcome, or reaches `OnUnhandled`, exactly once.
 */
import { forkCellUnsafe, startsApartUnsafe } from "@curfew/reason/CancelCell"
import { TaskScope } from "@curfew/scope"
import type { ChannelInterface, Interceptor, Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { CallOptions, ClientOptions } from "../../Client.ts"
import type { GrpcError } from "../../GrpcError.ts"
import { ClientCall, type Outgoing } from "./call.ts"
import type { AnyMethod } from "./channelCall.ts"
import { type CallDeadline, callDeadline } from "./deadline.ts"
import { callMetadata } from "./metadata.ts"
import { MethodTelemetry, Telemetry } from "./telemetry.ts"

/** One message, or a stream of them. */
export type Requests<Request, E, R> =
  | { readonly message: Request }
  | { readonly stream: Stream.Stream<Request, E, R> }

export interface Settings {
  readonly method: AnyMethod
  readonly channel: ChannelInterface
  readonly defaults: ClientOptions
  readonly telemetry: MethodTelemetry
  /** What a call has that is told nothing of its own. */
  readonly outgoing: Outgoing
}

export const settingsOf = (
  method: AnyMethod,
  channel: ChannelInterface,
  defaults: ClientOptions,
  interceptors: ReadonlyArray<Interceptor>
): Settings => ({
  method,
  channel,
  defaults,
  telemetry: new MethodTelemetry(method.path),
  outgoing: {
    method,
    channel,
    interceptors,
    credentials: defaults.credentials,
    onHeaders: undefined,
    onTrailers: undefined
  }
})

const outgoingOf = ({ outgoing }: Settings, options: CallOptions | undefined): Outgoing => {
  if (options === undefined) return outgoing
  const { credentials, interceptors, onHeaders, onTrailers } = options
  return credentials === undefined &&
    interceptors === undefined &&
    onHeaders === undefined &&
    onTrailers === undefined
    ? outgoing
    : {
        ...outgoing,
        interceptors: interceptors ?? outgoing.interceptors,
        credentials: credentials ?? outgoing.credentials,
        onHeaders,
        onTrailers
      }
}

const deadlineOf = (
  fiber: Fiber.Fiber<unknown, unknown>,
  { defaults, method }: Settings,
  options: CallOptions | undefined
): CallDeadline | GrpcError => {
  const deadline = options?.deadline
  const timeout = options?.timeout ?? (deadline === undefined ? defaults.timeout : undefined)
  return callDeadline(fiber, timeout, deadline, method.path)
}

const metadataOf = (
  { defaults, method }: Settings,
  options: CallOptions | undefined,
  span: Tracer.Span | undefined
): Metadata | GrpcError =>
  callMetadata(
    defaults.metadata,
    options?.metadata,
    span,
    options?.waitForReady ?? defaults.waitForReady,
    method.path
  )

/** Nobody sees a span that no tracer was provided for, and that has none above it. */
const traces = ({ cache }: Fiber.Fiber<unknown, unknown>): boolean =>
  cache.tracer !== undefined || cache.span !== undefined

const spanOptions = ({ attributes }: MethodTelemetry) =>
  ({ kind: "client", attributes, captureStackTrace: false }) as const

/** A call with one request and one response, as one operation of the caller's fiber. */
export const unaryCall = <Request, Response>(
  settings: Settings,
  message: Request,
  options: CallOptions | undefined
): Effect.Effect<Response, GrpcError> => {
  const { telemetry } = settings
  const ask = (fiber: Fiber.Fiber<unknown, unknown>, span: Tracer.Span | undefined) =>
    new ClientCall<Request, Response, never>(
      outgoingOf(settings, options),
      new Telemetry(telemetry, span, fiber.context)
    ).ask(fiber, deadlineOf(fiber, settings, options), metadataOf(settings, options, span), message)
  return Effect.withFiber((fiber) =>
    traces(fiber)
      ? Effect.useSpan(telemetry.name, spanOptions(telemetry), (span) => ask(fiber, span))
      : ask(fiber, undefined)
  )
}

/** A call of any kind, until the scope closes. */
export const openCall = <Request, Response, E, R>(
  settings: Settings,
  requests: Requests<Request, E, R>,
  options: CallOptions | undefined
): Effect.Effect<ClientCall<Request, Response, E>, never, R | Scope.Scope> =>
  Effect.gen(function* () {
    const { telemetry } = settings
    const { name } = telemetry
    const traced = yield* Effect.withFiberSucceed(traces)
    const span = traced ? yield* Effect.makeSpanScoped(name, spanOptions(telemetry)) : undefined
    const call = yield* Effect.acquireRelease(
      Effect.withFiberSucceed(
        (fiber) =>
          new ClientCall<Request, Response, E>(
            outgoingOf(settings, options),
            new Telemetry(telemetry, span, fiber.context)
          )
      ),
      (opened) => opened.end
    )
    const tasks = "stream" in requests ? yield* requestTasks(call, name) : undefined
    yield* Effect.addFinalizer(() => call.leave)
    yield* Effect.withFiberSucceed((fiber) => {
      call.start(
        fiber,
        deadlineOf(fiber, settings, options),
        metadataOf(settings, options, span),
        "message" in requests ? requests : undefined
      )
    })
    // A call that was refused takes no requests; one that has ended meanwhile refuses the task.
    if (tasks !== undefined && "stream" in requests && !call.over) {
      yield* Effect.ignore(tasks.spawn(pump(call, requests.stream), { name: `requests of ${name}` }))
    }
    return call
  })

const requestTasks = <Request, Response, E>(
  call: ClientCall<Request, Response, E>,
  name: string
): Effect.Effect<TaskScope.TaskScope, never, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    const masked = startsApartUnsafe(fiber)
    return TaskScope.makeIn(() => {
      call.requests = forkCellUnsafe(fiber, "tasks", name, masked)
      return call.requests
    })
  })

const pump = <Request, Response, E, R>(
  call: ClientCall<Request, Response, E>,
  stream: Stream.Stream<Request, E, R>
): Effect.Effect<void, E, R> =>
  // The failure is told in the mask: the call that it ends interrupts this very task.
  Effect.uninterruptibleMask((restore) =>
    restore(
      Effect.andThen(
        Stream.runForEach(stream, (message) => call.send(message)),
        call.halfClose
      )
    ).pipe(Effect.catchCause((cause) => (call.requestsFailed(cause) ? Effect.void : Effect.failCause(cause))))
  )
