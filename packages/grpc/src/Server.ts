import type { RequestRecord } from "@curfew/request/RequestContext"
import type { Owner } from "@curfew/scope"
import type { MethodDefinition, ServiceDefinition, UntypedServiceImplementation } from "@grpc/grpc-js"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { GrpcError } from "./GrpcError.ts"
import { adaptPromise } from "./internal/server/bridge.ts"
import { makeService } from "./internal/server/service.ts"
import type { ServerCall } from "./ServerCall.ts"
import type { ServerCalls } from "./ServerCalls.ts"
import type { CallLimits, LimitStatus } from "./ServerLimits.ts"
import type { Method, MethodsOf } from "./Service.ts"

/**
 * How far it is known that a request stream came whole.
 *
 * | | |
 * | --- | --- |
 * | `open` | its end has not been seen |
 * | `half-closed` | the client ended it. Only a tunnel can say so |
 * | `unknown` | it ended, and no cancel has been heard of since. Over a socket that is all there is to know |
 * | `cut off` | the call was cancelled |
 *
 * A grpc-js client that cancels sends an end of the stream and the cancel behind it, in two packets. On one machine the
 * cancel has arrived two turns of the event loop later, which is how long the end is held back. Over a network no
 * receiver can tell. Let the client send a last message that says so where an upload must be whole to count.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Completeness = "open" | "half-closed" | "unknown" | "cut off"

/**
 * The requests of a client-streaming or a bidirectional call. It reads one message per pull, and fails when the call
 * is cancelled or a message cannot be decoded; it does not end well then.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface RequestStream<out Request> extends Stream.Stream<Request, GrpcError> {
  readonly completeness: Effect.Effect<Completeness>
}

/**
 * The handler of a method.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type HandlerOf<M> =
  M extends Method<infer Kind, infer Request, infer Response>
    ? Kind extends "unary"
      ? (request: Request, call: ServerCall) => Effect.Effect<Response, unknown, unknown>
      : Kind extends "serverStream"
        ? (request: Request, call: ServerCall) => Stream.Stream<Response, unknown, unknown>
        : Kind extends "clientStream"
          ? (requests: RequestStream<Request>, call: ServerCall) => Effect.Effect<Response, unknown, unknown>
          : (requests: RequestStream<Request>, call: ServerCall) => Stream.Stream<Response, unknown, unknown>
    : never

/**
 * A handler for each method.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type HandlersOf<Methods> = { readonly [K in keyof Methods]: HandlerOf<Methods[K]> }

/**
 * What the handlers need. Each has a `Scope` of its call's own.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type RequirementsOf<Handlers> = {
  [K in keyof Handlers]: Handlers[K] extends (...args: never) => infer Result
    ? Result extends Effect.Effect<unknown, unknown, infer R>
      ? Exclude<R, Scope.Scope>
      : Result extends Stream.Stream<unknown, unknown, infer R>
        ? Exclude<R, Scope.Scope>
        : never
    : never
}[keyof Handlers]

/**
 * A service that is ready to be registered: `server.addService(definition, implementation)`, or a tunnel's
 * `Services.add(definition, implementation)`. The definition is not the one it was made from: requests pass through it
 * encoded, so that the call can count their bytes and answer for those that cannot be decoded.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Service {
  readonly definition: ServiceDefinition
  readonly implementation: UntypedServiceImplementation
}

/**
 * How a service runs its handlers.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ServerOptions<Name extends PropertyKey = string> {
  readonly limits?: CallLimits | undefined
  /** What single methods may use instead. */
  readonly methodLimits?: { readonly [K in Name]?: CallLimits } | undefined
  /** Default: `RESOURCE_EXHAUSTED`. */
  readonly limitStatus?: LimitStatus | undefined
  /**
   * The status of a failure that is no {@link GrpcError}. Without it, and for defects, the client is told `UNKNOWN` and
   * no more; the log has the cause.
   */
  readonly mapError?: ((error: unknown) => GrpcError | undefined) | undefined
  /** The calls that these belong to. Default: those of the server that is being made, or of the service's own. */
  readonly calls?: ServerCalls | undefined
  /** Receives the record of each request, when its last user has ended. */
  readonly onRequestEnd?: ((record: RequestRecord) => Effect.Effect<unknown>) | undefined
}

/**
 * Makes a service out of a definition and handlers that are Effects and Streams.
 *
 * **Guarantees**
 *
 * - **One scope per call**: what a handler acquires and forks ends with it.
 * - **The policy decides (L39)**: `cancellable`, `onDisconnect` and `DefaultOnDisconnect` of `@curfew/request` say what
 *   the client's leaving does. A deadline, a limit and a forced shutdown interrupt every handler.
 * - **After an answer nothing is cancelled (L40)**: although grpc-js says so after each one.
 * - **One answer, whatever happens (L48)**: a handler that throws, dies, is stopped or answers with what cannot be
 *   encoded has a status too, and the server goes on.
 * - **No write waits for a peer that left (L41)**.
 *
 * **When cancelled**
 *
 * Calls are tasks of the surrounding {@link Owner}: its cancel interrupts each handler, waits for its clean-up within
 * the budget, and answers `UNAVAILABLE`.
 *
 * **Gotchas**
 *
 * An unmarked unary handler is shielded: it runs to its end when its client leaves. Mark what is worth nothing without
 * its client, the handler itself, last: `cancellable((request) => …)`. A call that its transport ends on its own, because a
 * message is too large for its channel options, looks like one that its client left.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Server } from "@curfew/grpc"
 * import { cancellable } from "@curfew/request"
 * import { Owner } from "@curfew/scope"
 *
 * const text = { encode: (value: string) => Buffer.from(value), decode: (bytes: Buffer) => bytes.toString() }
 * const definition = {
 *   Hello: {
 *     path: "/example.Greeter/Hello",
 *     requestStream: false,
 *     responseStream: false,
 *     requestSerialize: text.encode,
 *     requestDeserialize: text.decode,
 *     responseSerialize: text.encode,
 *     responseDeserialize: text.decode
 *   }
 * } as const
 *
 * const program = Server.make(definition, { Hello: cancellable((name) => Effect.succeed(`Hello, ${name}`)) })
 * const service = await Effect.runPromise(Effect.provide(program, Owner.layer()))
 * Object.keys(service.implementation) // => ["Hello"]
 * ```
 *
 * @see makeFor for definitions whose types do not say what streams; GrpcServer to listen.
 * @stability unstable
 * @since 0.1.0
 */
export const make = <D extends ServiceDefinition, const H extends HandlersOf<MethodsOf<D>>>(
  definition: D,
  handlers: H & HandlersOf<MethodsOf<D>>,
  options?: ServerOptions<keyof D>
): Effect.Effect<Service, never, RequirementsOf<H> | Owner> =>
  makeService(definition, handlers as never, options ?? {}) as Effect.Effect<
    Service,
    never,
    RequirementsOf<H> | Owner
  >

/**
 * {@link make} for a definition whose types leave open what streams, such as proto-loader's: name the methods.
 *
 * **Example**
 *
 * ```ts
 * import { type ServiceDefinition, type handleUnaryCall } from "@grpc/grpc-js"
 * import * as Effect from "effect/Effect"
 * import { type MethodsOfHandlers, Server } from "@curfew/grpc"
 *
 * type Generated = { Hello: handleUnaryCall<{ name: string }, { text: string }> }
 * const greeter = (definition: ServiceDefinition) =>
 *   Server.makeFor<MethodsOfHandlers<Generated>>()(definition, {
 *     Hello: ({ name }) => Effect.succeed({ text: `Hello, ${name}` })
 *   })
 * greeter.length // => 1
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const makeFor =
  <Methods>() =>
  <const H extends HandlersOf<Methods>>(
    definition: { readonly [K in keyof Methods]: MethodDefinition<never, never> } | ServiceDefinition,
    handlers: H & HandlersOf<Methods>,
    options?: ServerOptions<keyof Methods>
  ): Effect.Effect<Service, never, RequirementsOf<H> | Owner> =>
    makeService(definition as ServiceDefinition, handlers as never, options ?? {}) as Effect.Effect<
      Service,
      never,
      RequirementsOf<H> | Owner
    >

/**
 * A handler out of a function that gives a promise, as people without Effect write it.
 *
 * **Guarantees**
 *
 * - **A rejection is a status**: of an error with `code` and `details`, that one; of any other, `UNKNOWN`. It is never
 *   unhandled.
 * - **The signal has the reason**: `signal.reason` is the `CancelReason`.
 *
 * **When cancelled**
 *
 * Aborts the signal and waits until the promise has settled, within the clean-up budget. A value that comes then is
 * dropped, and so is the abort itself; any other failure reaches `OnUnhandled`.
 *
 * **Example**
 *
 * ```ts
 * import { Server } from "@curfew/grpc"
 *
 * const handler = Server.fromPromise(async (id: string, { signal }) => {
 *   signal.throwIfAborted()
 *   return `order ${id}`
 * })
 * handler.length // => 2
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const fromPromise = <Request, Response>(
  handler: (
    request: Request,
    context: { readonly signal: AbortSignal; readonly call: ServerCall }
  ) => PromiseLike<Response>
): ((request: Request, call: ServerCall) => Effect.Effect<Response, unknown>) => adaptPromise(handler)
