import type {
  Metadata,
  Server,
  ServerOptions,
  ServiceDefinition,
  UntypedServiceImplementation
} from "@grpc/grpc-js"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { keepaliveOptions } from "./internal/keepalive.ts"
import { makeService, type stopKey } from "./internal/service.ts"
import type { ReverseTunnel, ReverseTunnels } from "./ReverseTunnels.ts"
import type { Services } from "./Services.ts"
import type { AccessRefused, Authenticate, Authorize, TunnelOrigin } from "./TunnelAuth.ts"
import type { KeepaliveOptions, TunnelOptions } from "./TunnelOptions.ts"

/**
 * Options of the network server's end. `I` is what `authenticate` finds out about an opener.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelServiceOptions<in out I = undefined> extends TunnelOptions {
  /**
   * What forward tunnels may call. Without it they are answered `UNIMPLEMENTED`. A function is given the tunnel service
   * itself, for tunnels inside tunnels: `(self) => services.pipe(Services.add(self.definition, self.implementation))`.
   */
  readonly services?: Services | ((self: Pick<TunnelService, "definition" | "implementation">) => Services)
  /** Whether reverse tunnels are accepted. Default true; otherwise they are answered `UNIMPLEMENTED`. */
  readonly reverse?: boolean
  /** Tunnels that may be open, or being let in, at the same time. One more gets `RESOURCE_EXHAUSTED`. Default 10,000. */
  readonly maxTunnels?: number
  /**
   * Handlers that may run at the same time for all forward tunnels together, besides `maxHandlers` for each. One more
   * call is refused with `RESOURCE_EXHAUSTED`. Default 16,384.
   */
  readonly maxServiceHandlers?: number
  /** Says who opens a tunnel, or refuses. Default: everybody may, and nobody is known. */
  readonly authenticate?: Authenticate<I>
  /** Lets a call of a forward tunnel in, or refuses it. Default: every call of an open tunnel is let in. */
  readonly authorize?: Authorize<I>
  /**
   * Names a reverse tunnel, from who opened it and what its request headers say, or refuses it. Default: the empty
   * string.
   */
  readonly affinityKey?: (tunnel: TunnelOrigin<I>) => string | Effect.Effect<string, AccessRefused>
  /** Response headers of the outer calls: who this is, for the peer. They are sent once the opener has been let in. */
  readonly metadata?: Metadata
  /** Called synchronously once a reverse tunnel can be picked. */
  readonly onReverseOpen?: (key: string, tunnel: ReverseTunnel<I>) => void
  /** Called synchronously once a reverse tunnel can no longer be picked. */
  readonly onReverseClose?: (key: string, tunnel: ReverseTunnel<I>) => void
}

/**
 * The network server's end of tunnels, to be added to a `grpc.Server`.
 *
 * **Guarantees**
 *
 * - **Owned**: every tunnel is a task of the scope that the service was made in, every stream is owned by its tunnel.
 * - **Reverse tunnels are ready**: one is listed only after its settings arrived, and no longer once it closes.
 * - **Refused, not broken**: after `refuseNew` a new stream gets `UNAVAILABLE`; those that run go on.
 *
 * **When cancelled**
 *
 * The end of the scope cancels every tunnel and every stream in it, and waits for each within the clean-up budget.
 *
 * **Gotchas**
 *
 * `grpc.Server.tryShutdown` waits for tunnels, and tunnels do not end by themselves: `stop` the service first, or close its
 * scope. A `GrpcServer` of `@curfew/grpc` stops it by itself. Interceptors of the server see a tunnel's outer call and
 * what comes in it, and not what goes out, where Node tells of the stream below.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelService<in out I = undefined> {
  readonly definition: ServiceDefinition
  readonly implementation: UntypedServiceImplementation
  /** `server.addService(definition, implementation)`. */
  readonly addTo: (server: Server) => void
  readonly reverse: ReverseTunnels<I>
  /** How many tunnels are open, of both kinds. */
  readonly tunnels: Effect.Effect<number>
  /** Takes no new tunnels and no new streams on forward tunnels from now on. */
  readonly refuseNew: Effect.Effect<void>
  /**
   * `refuseNew`, and drains the reverse tunnels too: no new call is placed on them, and their agents are told to open
   * their next ones elsewhere. Then waits until no stream runs: true, or false when the limit passed first.
   */
  readonly drain: (limit?: Duration.Input) => Effect.Effect<boolean>
  /**
   * `drain`, and then closes every tunnel: true when every stream ended by itself. What has not ended at the limit is
   * cancelled. A `GrpcServer` of `@curfew/grpc` does this when it stops, whichever of the two was made first.
   *
   * **When cancelled**
   *
   * The streams that are left are cancelled.
   */
  readonly stop: (limit?: Duration.Input) => Effect.Effect<boolean>
  readonly [stopKey]: (limit?: Duration.Input) => Effect.Effect<boolean>
}

/**
 * Options for the `grpc.Server` that a service is added to: pings that notice openers that are frozen or cut off, within
 * `time` and `timeout` together, 40 seconds by default. grpc-js pings nobody by itself, and a tunnel service cannot: the
 * connection is the server's. `GrpcServer` of `@curfew/grpc` has these values without being asked.
 *
 * **Example**
 *
 * ```ts
 * import { TunnelService } from "@curfew/tunnel"
 *
 * TunnelService.serverOptions({ time: "10 seconds" })["grpc.keepalive_time_ms"] // => 10000
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const serverOptions = (keepalive?: KeepaliveOptions): ServerOptions => keepaliveOptions(keepalive)

/**
 * Makes the service; it lives as long as the surrounding scope.
 *
 * **When cancelled**
 *
 * See {@link TunnelService}.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Server } from "@grpc/grpc-js"
 * import { Services, TunnelService } from "@curfew/tunnel"
 *
 * const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const service = yield* TunnelService.make({ services: Services.empty })
 *     const server = new Server()
 *     service.addTo(server)
 *     return yield* service.tunnels
 *   })
 * )
 * Effect.runSync(program) // => 0
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const make = <I = undefined>(
  options: TunnelServiceOptions<I> = {}
): Effect.Effect<TunnelService<I>, never, Scope.Scope> => makeService(options)
