import { CancelReason } from "@curfew/reason"
import { TaskScope } from "@curfew/scope"
import { countUnsafe } from "@curfew/scope/Argument"
import {
  status as Code,
  type Metadata,
  type Server,
  type ServerDuplexStream,
  type ServerOptions,
  type ServiceDefinition,
  type UntypedServiceImplementation
} from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Admission } from "./internal/admission.ts"
import { rememberChannel } from "./internal/callInfo.ts"
import type { Carrier } from "./internal/carrier.ts"
import { allFull, noTunnel, TunnelGrpcChannel } from "./internal/channel.ts"
import { admit, type Entrant, refuse } from "./internal/entry.ts"
import { accept, identity, paths } from "./internal/grpcCarrier.ts"
import { keepaliveOptions } from "./internal/keepalive.ts"
import { checkLimits, serviceHandlers } from "./internal/limits.ts"
import type { Pooled } from "./internal/pool.ts"
import { changesKept, noCall, ReverseRegistry } from "./internal/reverseRegistry.ts"
import { runClient, runServer } from "./internal/tunnel.ts"
import { notReadyAfter, waitingFor } from "./internal/waiting.ts"
import type { ReverseChange, ReverseChannelOptions, ReverseTunnel, ReverseTunnels } from "./ReverseTunnels.ts"
import type { Services } from "./Services.ts"
import type { AccessRefused, Authenticate, Authorize, TunnelOrigin } from "./TunnelAuth.ts"
import type { TunnelOpenError } from "./TunnelError.ts"
import type { TunnelKind } from "./TunnelEvent.ts"
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
 * `grpc.Server.tryShutdown` waits for tunnels, and tunnels do not end by themselves: `stop` the service first, or close its
 * scope. A `GrpcServer` of `@curfew/grpc` stops it by itself.
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

// Registered: a server that stops finds it without this package.
const stopKey: unique symbol = /* @__PURE__ */ Symbol.for("curfew.stop") as never

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

/** Keeps a reverse tunnel in the registry for as long as it can be picked. */
const listed = <I>(
  registry: ReverseRegistry<I>,
  member: Pooled<ReverseTunnel<I>>,
  { onReverseClose, onReverseOpen }: TunnelServiceOptions<I>
): Effect.Effect<void, never, Scope.Scope> => {
  const { engine, tunnel } = member
  const { link } = engine
  return Effect.acquireRelease(
    Effect.sync(() => {
      registry.add(member)
      link.guard("onReverseOpen callback", () => onReverseOpen?.(tunnel.key, tunnel))
      registry.notify("Opened", tunnel)
      const drains = Effect.map(Deferred.await(link.drained), () => registry.notify("Draining", tunnel))
      link.note(drains, "drain of a reverse tunnel")
    }),
    () =>
      Effect.sync(() => {
        registry.remove(member)
        link.guard("onReverseClose callback", () => onReverseClose?.(tunnel.key, tunnel))
        registry.notify("Closed", tunnel)
      })
  )
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
): Effect.Effect<TunnelService<I>, never, Scope.Scope> =>
  Effect.gen(function* () {
    yield* checkLimits(options)
    const maxTunnels = countUnsafe("the maxTunnels of a service", options.maxTunnels ?? 10_000, 1)
    const tasks = yield* TaskScope.make({ name: "tunnels" })
    const spawn = yield* TaskScope.makeRuntime(tasks)
    const changes = yield* Effect.acquireRelease(
      PubSub.sliding<ReverseChange<I>>(changesKept),
      PubSub.shutdown
    )
    const registry = new ReverseRegistry<I>(changes)
    const admission = new Admission(serviceHandlers(options.maxServiceHandlers))
    let closed = false
    let accepting = true
    let open = 0
    // Signals every tunnel with the service's own reason before the task scope's end would give a vaguer one.
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        closed = true
        return tasks.cancel(CancelReason.Shutdown({ phase: "force" }))
      })
    )

    /** Runs a tunnel's life once its opener has been let in. */
    const serve = (
      call: OuterCall,
      kind: TunnelKind,
      life: (carrier: Carrier, entrant: Entrant<I>) => Effect.Effect<void, TunnelOpenError, Scope.Scope>
    ): void => {
      if (admission.refusing) {
        refuse(call, Code.UNAVAILABLE, "The server is shutting down")
        return
      }
      if (open >= maxTunnels) {
        refuse(call, Code.RESOURCE_EXHAUSTED, `More than ${maxTunnels} tunnels at the same time`)
        return
      }
      const whole = Effect.flatMap(admit(call, kind, options), (entrant) =>
        entrant === undefined
          ? Effect.void
          : Effect.catch(
              Effect.scoped(
                Effect.suspend(() => life(accept(call, options.metadata, entrant.origin), entrant))
              ),
              (error) => Effect.logDebug(error.message)
            )
      )
      open++
      const counted = Effect.ensuring(
        whole,
        Effect.sync(() => {
          open--
        })
      )
      const task = spawn(counted, { name: `${kind} tunnel of ${call.getPeer()}` })
      if (task !== undefined) return
      open--
      refuse(call, Code.UNAVAILABLE, "The server is shutting down")
    }

    const openTunnel = (call: OuterCall): void => {
      if (services === undefined) {
        refuse(call, Code.UNIMPLEMENTED, "No services are offered to forward tunnels")
        return
      }
      serve(call, "forward", (carrier) =>
        runServer(carrier, "forward", services, admission, options, () => Effect.void)
      )
    }

    const openReverseTunnel = (call: OuterCall): void => {
      if (options.reverse === false) {
        refuse(call, Code.UNIMPLEMENTED, "Reverse tunnels are not accepted")
        return
      }
      if (!accepting) {
        refuse(call, Code.UNAVAILABLE, "Reverse tunnels are not accepted at present")
        return
      }
      serve(call, "reverse", (carrier, { key, origin }) =>
        runClient(carrier, "reverse", options, (channel, engine) => {
          const tunnel: ReverseTunnel<I> = {
            ...channel,
            key,
            identity: origin.identity,
            get streams() {
              return engine.size
            }
          }
          rememberChannel(engine.link.authContext, tunnel)
          return listed(registry, { tunnel, engine }, options)
        })
      )
    }

    const implementation = { OpenTunnel: openTunnel, OpenReverseTunnel: openReverseTunnel }
    const services =
      typeof options.services === "function"
        ? options.services({ definition, implementation })
        : options.services
    const refuseNew = Effect.sync(() => admission.refuse())
    const note = (work: Effect.Effect<unknown>, name: string) => spawn(work, { name })

    const channel = ({ key, pick = "roundRobin", wait = false }: ReverseChannelOptions<I> = {}) =>
      new TunnelGrpcChannel({
        target: `reverse:${key ?? ""}`,
        pick: (call) => registry.pick(key, pick, call)?.engine,
        ready: () => registry.ready(key),
        refusal: () => (registry.full(key) ? allFull : noTunnel),
        over: () => closed,
        ...waitingFor(wait, (waiter) => registry.wait(key, { policy: pick, ...waiter })),
        note,
        changed: registry.changed
      })

    const drain = (limit?: Duration.Input): Effect.Effect<boolean> =>
      Effect.suspend(() => {
        admission.refuse()
        const reverse = Effect.forEach(registry.list, (tunnel) => tunnel.drain(limit), {
          concurrency: "unbounded"
        })
        return Effect.zipWith(
          admission.idle(limit),
          reverse,
          (forward, each) => forward && each.every(Boolean),
          { concurrent: true }
        )
      })
    const stop = (limit?: Duration.Input): Effect.Effect<boolean> =>
      Effect.onExit(drain(limit), (exit) => {
        const phase = exit._tag === "Success" && exit.value ? "drain" : "force"
        return tasks.cancel(CancelReason.Shutdown({ phase }))
      })

    return {
      definition,
      implementation,
      stop,
      [stopKey]: stop,
      drain,
      addTo: (server) => server.addService(definition, implementation),
      reverse: {
        list: Effect.sync(() => registry.list),
        keys: Effect.sync(() => registry.keys),
        pick: (key) =>
          Effect.sync(() =>
            Option.map(Option.fromUndefinedOr(registry.pick(key, "roundRobin", noCall)), (it) => it.tunnel)
          ),
        awaitReverse: (key) => registry.await(key),
        ready: (key) => Effect.sync(() => registry.ready(key)),
        awaitReady: (key, limit) =>
          notReadyAfter(
            limit,
            key === undefined ? "A reverse tunnel" : `A reverse tunnel with the key "${key}"`,
            registry.await(key)
          ),
        channel,
        accepting: Effect.sync(() => accepting),
        setAccepting: (accept) =>
          Effect.sync(() => {
            accepting = accept
          }),
        changes: Stream.fromPubSub(changes)
      },
      tunnels: Effect.sync(() => open),
      refuseNew
    }
  })
