/**
 * Opening a call: as one operation, or as a resource of the surrounding `Scope`.
 *
 * Invariants
 * 1. The call has one finalizer, which cancels what has not ended, interrupts the request stream and waits for it, and
 *    waits for the status; the span ends behind it. The request stream hears of the end of its call before that, from
 *    the status.
 * 2. The call is made after its finalizer is in place, in one operation, in which its request stream starts as well.
 * 3. A call without streams needs no scope: its one operation releases it, whatever ends it.
 */
import type { ChannelInterface, Interceptor, Metadata } from "@grpc/grpc-js"
import * as Channel from "effect/Channel"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { CallOptions, ClientOptions } from "../../Client.ts"
import type { GrpcError } from "../../GrpcError.ts"
import { ClientCall } from "./call.ts"
import type { AnyMethod } from "./channelCall.ts"
import { type CallDeadline, callDeadline } from "./deadline.ts"
import type { Outgoing } from "./ending.ts"
import { callMetadata } from "./metadata.ts"
import { RequestPump } from "./requests.ts"
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
  Effect.withFiber((fiber) =>
    openIn(
      fiber,
      Context.get(fiber.context as Context.Context<Scope.Scope>, Scope.Scope),
      settings,
      requests,
      options
    )
  )

/**
 * A call as the stream of its responses, made when it is pulled for the first time. The channel is written by hand: out
 * of combinators it would hold more for each call than the call itself does.
 */
export const responses = <Request, Response, E, R>(
  settings: Settings,
  requests: Requests<Request, E, R>,
  options: CallOptions | undefined
): Stream.Stream<Response, GrpcError | E, R> =>
  Stream.fromChannel(
    Channel.fromTransform((_upstream, scope) =>
      Effect.sync(() => {
        let call: ClientCall<Request, Response, E> | undefined
        return Effect.withFiber((fiber) =>
          call === undefined
            ? Effect.flatMap(
                openIn<Request, Response, E, R>(fiber, scope, settings, requests, options),
                (opened) => {
                  call = opened
                  return opened.take()
                }
              )
            : call.take()
        )
      })
    )
  ) as Stream.Stream<Response, GrpcError | E, R>

const openIn = <Request, Response, E, R>(
  fiber: Fiber.Fiber<unknown, unknown>,
  scope: Scope.Scope,
  settings: Settings,
  requests: Requests<Request, E, R>,
  options: CallOptions | undefined
): Effect.Effect<ClientCall<Request, Response, E>> => {
  const { telemetry } = settings
  if (!traces(fiber)) return begin(scope, settings, requests, options, undefined)
  const span = Effect.makeSpanScoped(telemetry.name, spanOptions(telemetry))
  return Effect.flatMap(Scope.provide(span, scope), (made) => begin(scope, settings, requests, options, made))
}

const begin = <Request, Response, E, R>(
  scope: Scope.Scope,
  settings: Settings,
  requests: Requests<Request, E, R>,
  options: CallOptions | undefined,
  span: Tracer.Span | undefined
): Effect.Effect<ClientCall<Request, Response, E>> =>
  Effect.flatMap(acquired<Request, Response, E>(scope, settings, options, span), (call) =>
    Effect.withFiber((fiber) => {
      call.start(
        fiber,
        deadlineOf(fiber, settings, options),
        metadataOf(settings, options, span),
        "message" in requests ? requests : undefined
      )
      // A call that was refused, or has ended meanwhile, takes no requests.
      if ("stream" in requests && !call.over) {
        const { stream } = requests
        call.requests = RequestPump.startUnsafe(
          fiber,
          scope,
          call,
          stream,
          `requests of ${settings.telemetry.name}`
        )
      }
      return Exit.succeed(call)
    })
  )

/** A call that is not made yet, with its finalizer in place. */
const acquired = <Request, Response, E>(
  scope: Scope.Scope,
  settings: Settings,
  options: CallOptions | undefined,
  span: Tracer.Span | undefined
): Effect.Effect<ClientCall<Request, Response, E>> =>
  Effect.uninterruptible(
    Effect.withFiber(({ context }) => {
      const telemetry = new Telemetry(settings.telemetry, span, context)
      const call = new ClientCall<Request, Response, E>(outgoingOf(settings, options), telemetry)
      const release = () => Effect.provideContext(call.release, context)
      return Effect.as(Scope.addFinalizerExit(scope, release), call)
    })
  )
