import type { Instant } from "@curfew/scope"
import type {
  CallCredentials,
  ChannelCredentials,
  ChannelInterface,
  ChannelOptions,
  Client as GrpcClient,
  Interceptor,
  Metadata,
  ServiceDefinition,
  StatusObject,
  UntypedServiceImplementation
} from "@grpc/grpc-js"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { GrpcError } from "./GrpcError.ts"
import type { AnyMethod } from "./internal/client/channelCall.ts"
import { makeClient } from "./internal/client/makeClient.ts"
import * as telemetry from "./internal/client/telemetry.ts"
import type { MetadataInput } from "./internal/metadata.ts"
import type { ClientMethodOf, Method, MethodOfHandler } from "./Service.ts"

/**
 * Where calls go.
 *
 * | | |
 * | --- | --- |
 * | `address` | a channel of its own, closed with the surrounding `Scope` |
 * | `channel` | any grpc-js channel, a tunnel's included; its owner closes it |
 * | `client` | the channel of a grpc-js stub, and its interceptors |
 *
 * @stability unstable
 * @since 0.1.0
 */
export type ClientTo =
  | {
      readonly address: string
      readonly credentials: ChannelCredentials
      readonly channelOptions?: ChannelOptions | undefined
    }
  | { readonly channel: ChannelInterface }
  | { readonly client: GrpcClient }

export type { MetadataInput } from "./internal/metadata.ts"

/**
 * What holds for every call of a client unless the call says otherwise.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ClientOptions {
  /** Goes out with every call; a call adds its own. */
  readonly metadata?: MetadataInput | undefined
  /** How long a call may take. Default: no limit of its own. */
  readonly timeout?: Duration.Input | undefined
  /** Wait for a connection instead of failing with `UNAVAILABLE`. Default: false. */
  readonly waitForReady?: boolean | undefined
  readonly credentials?: CallCredentials | undefined
  /** Those of grpc-js. Default: those of the stub that was given as `client`. */
  readonly interceptors?: ReadonlyArray<Interceptor> | undefined
}

/**
 * What one call can be told.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CallOptions extends ClientOptions {
  /** When the call has to be over. With `timeout` too, the earlier one holds. */
  readonly deadline?: Instant.Instant | undefined
  /** Sees the response headers, before the first message. */
  readonly onHeaders?: ((headers: Metadata) => void) | undefined
  /** Sees the trailers and the status that came with them. Not called for a call that the caller cancelled. */
  readonly onTrailers?: ((trailers: Metadata, status: StatusObject) => void) | undefined
}

/**
 * A method with one request and one response.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type UnaryMethod<Request, Response> = (
  request: Request,
  options?: CallOptions
) => Effect.Effect<Response, GrpcError>

/**
 * A method with one request and many responses.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type ServerStreamMethod<Request, Response> = (
  request: Request,
  options?: CallOptions
) => Stream.Stream<Response, GrpcError>

/**
 * A method with many requests and one response.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type ClientStreamMethod<Request, Response> = <E = never, R = never>(
  requests: Stream.Stream<Request, E, R>,
  options?: CallOptions
) => Effect.Effect<Response, GrpcError | E, R>

/**
 * A method with many requests and many responses.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type BidiMethod<Request, Response> = <E = never, R = never>(
  requests: Stream.Stream<Request, E, R>,
  options?: CallOptions
) => Stream.Stream<Response, GrpcError | E, R>

type Ambiguous =
  "The types of this definition do not say which sides stream: give the handlers' type, Client.make<Handlers>(…)"

/**
 * The function for a method.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type ClientMethod<M> =
  M extends Method<infer Kind, infer Request, infer Response>
    ? [Kind] extends ["unary"]
      ? UnaryMethod<Request, Response>
      : [Kind] extends ["serverStream"]
        ? ServerStreamMethod<Request, Response>
        : [Kind] extends ["clientStream"]
          ? ClientStreamMethod<Request, Response>
          : [Kind] extends ["bidi"]
            ? BidiMethod<Request, Response>
            : Ambiguous
    : never

/**
 * The client of a definition: a function for each of its methods, by the name that it has there.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Client<D extends ServiceDefinition> = {
  readonly [K in keyof D]: ClientMethod<ClientMethodOf<D[K]>>
}

// Messages by the definition where it has types of its own, by the handler where it has not.
type WithKind<H, M> =
  M extends Method<infer _, infer Request, infer Response>
    ? Method<KindOfHandler<H>, Request, Response>
    : never
type NamedIn<D> = keyof { [K in keyof D as string extends K ? never : K]: D[K] }
type KindOfHandler<H> = MethodOfHandler<H> extends Method<infer Kind, infer _, infer _> ? Kind : never

/**
 * The client of a definition whose types do not say which sides stream, as proto-loader's: the handlers' type does.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type ClientOf<
  H extends UntypedServiceImplementation,
  D extends ServiceDefinition = ServiceDefinition
> = {
  readonly [K in keyof H as string extends K ? never : K]: ClientMethod<
    K extends NamedIn<D> ? WithKind<H[K], ClientMethodOf<D[K]>> : MethodOfHandler<H[K]>
  >
}

/**
 * How many calls were started, by the attribute `method`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const started: Metric.Counter<number> = telemetry.startedTotal

/**
 * How many calls ended with a status, by the attributes `method` and `code`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const completed: Metric.Counter<number> = telemetry.completedTotal

/**
 * How many calls their callers cancelled, by the attributes `method` and `reason`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const cancelled: Metric.Counter<number> = telemetry.cancelledTotal

/**
 * How many calls are in flight, by the attribute `method`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const active: Metric.Gauge<number> = telemetry.active

/**
 * Makes a client: a function for each method of a definition, over a channel.
 *
 * **Guarantees**
 *
 * - **Lazy**: a call is made when its Effect runs, or when its Stream is pulled for the first time.
 * - **A call is a resource**: whoever leaves it, by an interrupt, by `take`, by a failure, cancels it. One status ends
 *   it.
 * - **Backpressure both ways**: at most 16 messages are read ahead of the consumer, and one is being written.
 * - **Deadlines are inherited (L7)**: the earlier of the call's own and the surrounding scope's is sent. The own one
 *   fails with `DEADLINE_EXCEEDED`; the scope's stays that scope's cancellation. Below a cancelled scope, or with a
 *   deadline in the past, no call is made (L5).
 * - **The request stream has an owner (L24)**: its failure cancels the call and comes out typed. An answer that comes
 *   early wins; the stream is interrupted and awaited.
 * - **Nothing left (L8)**: after a call neither timer, nor listener, nor fiber of it remains.
 *
 * **When cancelled**
 *
 * The call is cancelled on the wire, with the reason as text, or as a value where the channel has room. The caller waits
 * for the request stream and for the status, each within the `CleanupBudget`, and ends by a pure interrupt.
 *
 * **Gotchas**
 *
 * A channel made here sets `"grpc.per_rpc_retry_buffer_size": 0`, so that a write is done when it has left. Give your
 * own channels that option too: without it grpc-js says so at once until 1 MiB is waiting, and slows down to a tenth.
 *
 * A time-out of more than 24 days is kept here and not sent: a grpc-js server would end such a call at once.
 *
 * Node's HTTP/2 server ends a connection on which about a thousand calls were cancelled in quick succession, as its guard
 * against reset attacks, and every call on it fails. Work that cancels that much spreads over several channels, or goes
 * through a tunnel.
 *
 * A server that sees the request stream of a cancelled call sees it end, and then the cancel: commit an upload on a last
 * message of its own, not on the end.
 *
 * **Example**
 *
 * ```ts no-run
 * import { credentials } from "@grpc/grpc-js"
 * import * as Effect from "effect/Effect"
 * import { Client } from "@curfew/grpc"
 *
 * const bytes = { requestSerialize: Buffer.from, requestDeserialize: Buffer.from, responseSerialize: Buffer.from, responseDeserialize: Buffer.from }
 * const definition = { Shout: { path: "/demo.Voice/Shout", requestStream: false, responseStream: false, ...bytes } } as const
 *
 * const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const voice = yield* Client.make(definition, { address: "localhost:50051", credentials: credentials.createInsecure() })
 *     return yield* voice.Shout(Buffer.from("hello"), { timeout: "1 second" })
 *   })
 * )
 * ```
 *
 * @see layer for a service in the context.
 * @stability unstable
 * @since 0.1.0
 */
export const make: {
  <D extends ServiceDefinition>(
    definition: D,
    to: ClientTo,
    options?: ClientOptions
  ): Effect.Effect<Client<D>, GrpcError, Scope.Scope>
  <H extends UntypedServiceImplementation, D extends ServiceDefinition = ServiceDefinition>(
    definition: D,
    to: ClientTo,
    options?: ClientOptions
  ): Effect.Effect<ClientOf<H, D>, GrpcError, Scope.Scope>
} = (
  definition: ServiceDefinition,
  to: ClientTo,
  options: ClientOptions = {}
  // biome-ignore lint/suspicious/noExplicitAny: The overloads are the types; one record serves both.
): Effect.Effect<any, GrpcError, Scope.Scope> => makeClient(definition, to, options)

/**
 * A client as a service, for as long as the layer lives.
 *
 * **Example**
 *
 * ```ts
 * import { credentials } from "@grpc/grpc-js"
 * import * as Context from "effect/Context"
 * import * as Effect from "effect/Effect"
 * import { Client } from "@curfew/grpc"
 *
 * const bytes = { requestSerialize: Buffer.from, requestDeserialize: Buffer.from, responseSerialize: Buffer.from, responseDeserialize: Buffer.from }
 * const definition = { Shout: { path: "/demo.Voice/Shout", requestStream: false, responseStream: false, ...bytes } } as const
 *
 * class Voice extends Context.Service<Voice, Client.Client<typeof definition>>()("Voice") {}
 * const layer = Client.layer(Voice, definition, { address: "localhost:1", credentials: credentials.createInsecure() })
 *
 * const program = Effect.flatMap(Voice, (voice) => Effect.flip(voice.Shout(Buffer.from("hello"))))
 * const error = await Effect.runPromise(Effect.provide(program, layer))
 * error.status // => "UNAVAILABLE"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const layer = <I, S extends object>(
  service: Context.Key<I, S>,
  definition: { readonly [K in keyof S]: AnyMethod },
  to: ClientTo,
  options?: ClientOptions
): Layer.Layer<I, GrpcError> =>
  Layer.effect(
    service,
    make(definition as ServiceDefinition, to, options) as unknown as Effect.Effect<S, GrpcError, Scope.Scope>
  )
