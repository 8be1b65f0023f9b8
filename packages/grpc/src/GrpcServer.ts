import type { Owner } from "@curfew/scope"
import type * as grpc from "@grpc/grpc-js"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { BindError } from "./BindError.ts"
import type { Health } from "./Health.ts"
import { listening } from "./internal/grpcServer.ts"
import type { Service } from "./Server.ts"
import { CurrentServerCalls, type ServerCalls, type ServerCallsOptions } from "./ServerCalls.ts"

/**
 * What became of the calls that ran when the server began to stop.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface StopReport {
  /** How many ended by themselves. */
  readonly drained: number
  /** The methods of those that were cancelled and then ended. */
  readonly cancelled: ReadonlyArray<string>
  /** The methods of those that were left behind. */
  readonly abandoned: ReadonlyArray<string>
}

/**
 * How a server listens and how it stops.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcServerOptions<E = never, R = never> extends ServerCallsOptions {
  /** Made by `Server.make`; or any definition with its grpc-js implementation, such as a tunnel's. */
  readonly services: ReadonlyArray<Service | Effect.Effect<Service, E, R>>
  /** `0.0.0.0:50051`; port 0 takes a free one. */
  readonly address: string
  /** Default: none, in the clear. */
  readonly credentials?: grpc.ServerCredentials | undefined
  /** Of grpc-js. Default: a keepalive ping every 30 seconds that has to be answered in 10. */
  readonly options?: grpc.ServerOptions | undefined
  /** Stands in the report of a shutdown. Default: `gRPC` and the address. */
  readonly name?: string | undefined
  /** Whether `grpc.health.v1.Health` is served. Default: true. */
  readonly health?: boolean | undefined
  /** How long the server says NOT_SERVING before it stops taking calls. Default: not at all. */
  readonly lameDuck?: Duration.Input | undefined
  /** How long calls may end by themselves where no shutdown has drained them. Default: 20 seconds. */
  readonly drain?: Duration.Input | undefined
  /** Receives the report when the server has stopped. It is logged in any case. */
  readonly onReport?: ((report: StopReport) => void) | undefined
}

/**
 * A `grpc.Server` that listens as long as its `Scope` is open, and stops in stages.
 *
 * | stage | what happens |
 * | --- | --- |
 * | stop | health says NOT_SERVING, its watches end; no new connection, no new call |
 * | drain | calls run to their end |
 * | force | those that are left are interrupted with `Shutdown` and answered `UNAVAILABLE` |
 * | end | what has not ended within the clean-up budget is left behind, by name; connections are broken off |
 *
 * **Guarantees**
 *
 * - **Nothing holds it up (L43)**: neither an open stream nor a handler that ignores its interrupt, nor a client that
 *   does not read. It keeps the limits of a surrounding `Shutdown.run`, by its hooks.
 * - **Told the truth (L48)**: clients of forced calls see `UNAVAILABLE`, where grpc-js alone has `CANCELLED`; of calls
 *   to implementations that were not made here, too.
 *
 * **When cancelled**
 *
 * The end of the `Scope` goes through the stages; the drain is skipped when a shutdown has had one.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { GrpcServer } from "@curfew/grpc"
 * import { Owner } from "@curfew/scope"
 *
 * const program = Effect.gen(function* () {
 *   const server = yield* GrpcServer.make({ services: [], address: "127.0.0.1:0" })
 *   return server.port > 0
 * })
 * await Effect.runPromise(Effect.provide(Effect.scoped(program), Owner.layer())) // => true
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export class GrpcServer extends /* @__PURE__ */ Context.Service<GrpcServer, GrpcServerShape>()(
  "@curfew/grpc/GrpcServer"
) {
  /**
   * Listens until the `Scope` ends.
   *
   * @since 0.1.0
   */
  static readonly make = <E = never, R = never>(
    options: GrpcServerOptions<E, R>
  ): Effect.Effect<GrpcServerShape, E | BindError, R | Owner | Scope.Scope> => listening(options)

  /**
   * The same as a layer.
   *
   * @since 0.1.0
   */
  static readonly layer = <E = never, R = never>(
    options: GrpcServerOptions<E, R>
  ): Layer.Layer<GrpcServer, E | BindError, Exclude<R, Scope.Scope> | Owner> =>
    Layer.effect(GrpcServer, listening(options)) as Layer.Layer<
      GrpcServer,
      E | BindError,
      Exclude<R, Scope.Scope> | Owner
    >

  /**
   * Adds a service to the server of the context. A call that comes before it is there is answered `UNIMPLEMENTED`; what
   * must be there from the first moment stands in `services`.
   *
   * @since 0.1.0
   */
  static readonly serve = <E, R>(
    service: Effect.Effect<Service, E, R>
  ): Layer.Layer<never, E, Exclude<R, Scope.Scope> | GrpcServer> =>
    Layer.effectDiscard(
      Effect.gen(function* () {
        const server = yield* GrpcServer
        const made = yield* Effect.provideService(service, CurrentServerCalls, server.calls)
        yield* server.add(made)
      })
    ) as Layer.Layer<never, E, Exclude<R, Scope.Scope> | GrpcServer>
}

/**
 * A server that listens.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcServerShape {
  readonly server: grpc.Server
  readonly port: number
  /** The address with the port that was bound. */
  readonly address: string
  readonly calls: ServerCalls
  readonly health: Health
  /** Adds a service until the `Scope` ends. */
  readonly add: (service: Service) => Effect.Effect<void, never, Scope.Scope>
}
