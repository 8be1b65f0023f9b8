import { CancelReason } from "@curfew/reason"
import { TaskScope } from "@curfew/scope"
import {
  type ChannelInterface,
  status as Code,
  type Metadata,
  type Server,
  type ServerDuplexStream,
  type ServiceDefinition,
  type UntypedServiceImplementation
} from "@grpc/grpc-js"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { Admission } from "./internal/admission.ts"
import { TunnelGrpcChannel } from "./internal/channel.ts"
import { accept, identity, paths } from "./internal/grpcCarrier.ts"
import { checkLimits, serviceHandlers } from "./internal/limits.ts"
import { type Listed, ReverseRegistry } from "./internal/reverseRegistry.ts"
import { runClient, runServer } from "./internal/tunnel.ts"
import type { Services } from "./Services.ts"
import type { TunnelChannel } from "./TunnelChannel.ts"
import type { TunnelOptions } from "./TunnelOptions.ts"

/**
 * Options of the network server's end.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelServiceOptions extends TunnelOptions {
  /**
   * What forward tunnels may call. Without it they are answered `UNIMPLEMENTED`. A function is given the tunnel service
   * itself, for tunnels inside tunnels: `(self) => services.pipe(Services.add(self.definition, self.implementation))`.
   */
  readonly services?: Services | ((self: Pick<TunnelService, "definition" | "implementation">) => Services)
  /** Whether reverse tunnels are accepted. Default true; otherwise they are answered `UNIMPLEMENTED`. */
  readonly reverse?: boolean
  /**
   * Handlers that may run at the same time for all forward tunnels together, besides `maxHandlers` for each. One more
   * call is refused with `RESOURCE_EXHAUSTED`. Default 16,384.
   */
  readonly maxServiceHandlers?: number
  /** Names a reverse tunnel, from who its peer is and what its request headers say. Default: the empty string. */
  readonly affinityKey?: (tunnel: { readonly peer: string; readonly metadata: Metadata }) => string
  /** Response headers of the outer calls: who this is, for the peer. They are sent at once. */
  readonly metadata?: Metadata
  /** Called synchronously once a reverse tunnel can be picked. */
  readonly onReverseOpen?: (key: string, tunnel: TunnelChannel) => void
  /** Called synchronously once a reverse tunnel can no longer be picked. */
  readonly onReverseClose?: (key: string, tunnel: TunnelChannel) => void
}

/**
 * The reverse tunnels of a {@link TunnelService} that are open. Without a key every tunnel counts.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ReverseTunnels {
  readonly list: Effect.Effect<ReadonlyArray<TunnelChannel>>
  /** The next tunnel in turn. */
  readonly pick: (key?: string) => Effect.Effect<Option.Option<TunnelChannel>>
  /** Waits until there is one, then the next in turn. */
  readonly awaitReverse: (key?: string) => Effect.Effect<TunnelChannel>
  /** A channel that picks for each call; a call gets `UNAVAILABLE` when there is no tunnel. */
  readonly channel: (key?: string) => ChannelInterface
}

/**
 * The network server's end of tunnels, to be added to a `grpc.Server`.
 *
 * **Guarantees**
 *
 * - **Owned**: every tunnel is a task of the scope that the service was made in, every stream a task of its tunnel.
 * - **Reverse tunnels are ready**: one is listed only after its settings arrived, and no longer once it closes.
 * - **Refused, not broken**: after `refuseNew` a new stream gets `UNAVAILABLE`; those that run go on.
 *
 * **When cancelled**
 *
 * The end of the scope cancels every tunnel and every stream in it, and waits for each within the clean-up budget.
 *
 * **Gotchas**
 *
 * `grpc.Server.tryShutdown` waits for tunnels, and tunnels do not end by themselves: close the scope first.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelService {
  readonly definition: ServiceDefinition
  readonly implementation: UntypedServiceImplementation
  /** `server.addService(definition, implementation)`. */
  readonly addTo: (server: Server) => void
  readonly reverse: ReverseTunnels
  /** How many tunnels are open, of both kinds. */
  readonly tunnels: Effect.Effect<number>
  /** Takes no new tunnels and no new streams on forward tunnels from now on. */
  readonly refuseNew: Effect.Effect<void>
  /** `refuseNew`, then waits until no forward stream runs: true, or false when the limit passed first. */
  readonly drain: (limit?: Duration.Input) => Effect.Effect<boolean>
}

const method = (path: string) => ({
  path,
  requestStream: true,
  responseStream: true,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity
})

const definition: ServiceDefinition = {
  OpenTunnel: /* @__PURE__ */ method(paths.forward),
  OpenReverseTunnel: /* @__PURE__ */ method(paths.reverse)
}

type OuterCall = ServerDuplexStream<Buffer, Buffer>

const refuse = (call: OuterCall, code: number, details: string): void => {
  call.emit("error", { code, details })
}

/** Keeps a reverse tunnel in the registry for as long as it can be picked. */
const listed = (
  registry: ReverseRegistry,
  tunnel: Listed,
  { onReverseClose, onReverseOpen }: TunnelServiceOptions
): Effect.Effect<void, never, Scope.Scope> => {
  const { channel, engine, key } = tunnel
  return Effect.acquireRelease(
    Effect.sync(() => {
      registry.add(tunnel)
      engine.link.guard("onReverseOpen callback", () => onReverseOpen?.(key, channel))
      registry.notify()
    }),
    () =>
      Effect.sync(() => {
        registry.remove(tunnel)
        engine.link.guard("onReverseClose callback", () => onReverseClose?.(key, channel))
        registry.notify()
      })
  )
}

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
export const make = (options: TunnelServiceOptions = {}): Effect.Effect<TunnelService, never, Scope.Scope> =>
  Effect.gen(function* () {
    yield* checkLimits(options)
    const tasks = yield* TaskScope.make({ name: "tunnels" })
    const spawn = yield* TaskScope.makeRuntime(tasks)
    const registry = new ReverseRegistry()
    const admission = new Admission(serviceHandlers(options.maxServiceHandlers))
    let closed = false
    // Signals every tunnel with the service's own reason before the task scope's end would give a vaguer one.
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        closed = true
        return tasks.cancel(CancelReason.Shutdown({ phase: "force" }))
      })
    )

    const serve = (call: OuterCall, name: string, life: Effect.Effect<void>): void => {
      const task = admission.refusing ? undefined : spawn(life, { name })
      if (task === undefined) refuse(call, Code.UNAVAILABLE, "The server is shutting down")
    }

    const openTunnel = (call: OuterCall): void => {
      if (services === undefined) {
        refuse(call, Code.UNIMPLEMENTED, "No services are offered to forward tunnels")
        return
      }
      const life = Effect.suspend(() =>
        runServer(accept(call, options.metadata), "forward", services, admission, options, () => Effect.void)
      )
      serve(call, `forward tunnel of ${call.getPeer()}`, Effect.scoped(life))
    }

    const openReverseTunnel = (call: OuterCall): void => {
      if (options.reverse === false) {
        refuse(call, Code.UNIMPLEMENTED, "Reverse tunnels are not accepted")
        return
      }
      const life = Effect.suspend(() =>
        runClient(accept(call, options.metadata), "reverse", options, (channel, engine) => {
          const key = options.affinityKey?.(channel) ?? ""
          return listed(registry, { key, channel, engine }, options)
        })
      )
      const settled = Effect.catch(Effect.scoped(life), (error) => Effect.logDebug(error.message))
      serve(call, `reverse tunnel of ${call.getPeer()}`, settled)
    }

    const implementation = { OpenTunnel: openTunnel, OpenReverseTunnel: openReverseTunnel }
    const services =
      typeof options.services === "function"
        ? options.services({ definition, implementation })
        : options.services
    const refuseNew = Effect.sync(() => admission.refuse())

    return {
      definition,
      implementation,
      addTo: (server) => server.addService(definition, implementation),
      reverse: {
        list: Effect.sync(() => registry.list),
        pick: (key) =>
          Effect.sync(() => Option.map(Option.fromUndefinedOr(registry.pick(key)), (it) => it.channel)),
        awaitReverse: (key) => registry.await(key),
        channel: (key) =>
          new TunnelGrpcChannel({
            target: `reverse:${key ?? ""}`,
            pick: () => registry.pick(key)?.engine,
            over: () => closed,
            note: (work, name) => {
              spawn(work, { name })
            },
            changed: registry.changed
          })
      },
      tunnels: tasks.size,
      refuseNew,
      drain: (limit) => Effect.andThen(refuseNew, admission.idle(limit))
    }
  })
