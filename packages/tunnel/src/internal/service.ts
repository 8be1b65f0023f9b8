/**
 * The network server's end: what is open, who is let in, and how it ends.
 *
 * **Invariants**
 * 1. Every tunnel is a task of the service from the turn in which its outer call came, and counted until it has ended.
 * 2. A reverse tunnel is in the registry exactly as long as it can be told of; see there.
 * 3. Once the service has ended nobody waits for its tunnels any more.
 */
import { CancelReason, tellCancels } from "@curfew/reason"
import { TaskScope } from "@curfew/scope"
import { countUnsafe } from "@curfew/scope/Argument"
import { status as Code, type ServerDuplexStream, type ServiceDefinition } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ReverseChange, ReverseChannelOptions, ReverseTunnel } from "../ReverseTunnels.ts"
import { type TunnelOpenError, TunnelsNotReady } from "../TunnelError.ts"
import type { TunnelKind } from "../TunnelEvent.ts"
import type { TunnelService, TunnelServiceOptions } from "../TunnelService.ts"
import { Admission } from "./admission.ts"
import { rememberChannel } from "./callInfo.ts"
import type { Carrier } from "./carrier.ts"
import { allFull, noTunnel, TunnelGrpcChannel } from "./channel.ts"
import { admit, type Entrant, refuse } from "./entry.ts"
import { accept, identity, paths } from "./grpcCarrier.ts"
import { checkLimits, connectionWindow, serviceHandlers } from "./limits.ts"
import type { Pooled } from "./pool.ts"
import { changesKept, noCall, ReverseRegistry } from "./reverseRegistry.ts"
import { claimStream, noticeServerStreams } from "./serverStreams.ts"
import { runClient, runServer } from "./tunnel.ts"
import { notReadyAfter, waitingFor } from "./waiting.ts"

// Registered: a server that stops finds it without this package.
export const stopKey: unique symbol = /* @__PURE__ */ Symbol.for("curfew.stop") as never

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

export const makeService = <I>(
  options: TunnelServiceOptions<I>
): Effect.Effect<TunnelService<I>, never, Scope.Scope> =>
  Effect.gen(function* () {
    // A server counts its cancels, also where a bundler left out what nobody mentions.
    tellCancels()
    yield* checkLimits(options)
    const maxTunnels = countUnsafe("the maxTunnels of a service", options.maxTunnels ?? 10_000, 1)
    const tasks = yield* TaskScope.make({ name: "tunnels" })
    const spawn = yield* TaskScope.makeRuntime(tasks)
    const changes = yield* Effect.acquireRelease(
      PubSub.sliding<ReverseChange<I>>(changesKept),
      PubSub.shutdown
    )
    yield* noticeServerStreams(connectionWindow)
    const registry = new ReverseRegistry<I>(changes)
    const admission = new Admission(serviceHandlers(options.maxServiceHandlers))
    let closed = false
    const over = Deferred.makeUnsafe<void>()
    let accepting = true
    let open = 0
    // Signals every tunnel with the service's own reason before the task scope's end would give a vaguer one.
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        closed = true
        Deferred.doneUnsafe(over, Effect.void)
        return tasks.cancel(CancelReason.Shutdown({ phase: "force" }))
      })
    )

    /** Runs a tunnel's life once its opener has been let in. */
    const serve = (
      call: OuterCall,
      kind: TunnelKind,
      life: (carrier: Carrier, entrant: Entrant<I>) => Effect.Effect<void, TunnelOpenError, Scope.Scope>
    ): void => {
      const stream = claimStream(call)
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
                Effect.suspend(() => life(accept(call, options.metadata, entrant.origin, stream), entrant))
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
        moves: true,
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
        awaitReady: (key, limit) => {
          const what = key === undefined ? "A reverse tunnel" : `A reverse tunnel with the key "${key}"`
          const never = Effect.flatMap(Deferred.await(over), () => Effect.fail(new TunnelsNotReady({ what })))
          return notReadyAfter(limit, what, Effect.raceFirst(registry.await(key), never))
        },
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
