/**
 * An agent that calls: its tunnels are a pool, and its channel outlives them.
 *
 * **Invariants**
 * 1. A tunnel is in the pool from before the agent says that it is ready until its end is being cleaned up.
 * 2. Calls that wait are tasks of the agent's scope, and end with `UNAVAILABLE` when it stops.
 */
import { TaskScope } from "@curfew/scope"
import { status as Code } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { CallingAgent, CallingAgentOptions } from "../Agent.ts"
import type { LoadedTunnel } from "../Picking.ts"
import type { Endpoint } from "../Tunnel.ts"
import type { ClientConstructor } from "../TunnelChannel.ts"
import { type Life, make } from "./agent.ts"
import { rememberChannel } from "./callInfo.ts"
import { allFull, noTunnel, TunnelGrpcChannel } from "./channel.ts"
import { checkEndpoint, runForward } from "./dialling.ts"
import { Pool } from "./pool.ts"
import { waitingFor } from "./waiting.ts"

export const connect = (
  to: Endpoint,
  options: CallingAgentOptions
): Effect.Effect<CallingAgent, never, Scope.Scope> =>
  Effect.gen(function* () {
    yield* checkEndpoint(to)
    const pool = new Pool<LoadedTunnel>()
    const watchers = new Set<() => void>()
    const { pick = "roundRobin", wait = "5 seconds" } = options
    let over = false
    const changed = (): void => {
      pool.notify()
      for (const watcher of [...watchers]) watcher()
    }
    const calls = yield* TaskScope.make({ name: "calls that wait for a forward tunnel" })
    const spawn = yield* TaskScope.makeRuntime(calls)
    const life: Life = (own, ready) =>
      runForward(to, own, (channel, engine) => {
        const tunnel: LoadedTunnel = {
          ...channel,
          get streams() {
            return engine.size
          }
        }
        const member = { tunnel, engine }
        rememberChannel(engine.link.authContext, tunnel)
        const { link } = engine
        return Effect.andThen(
          Effect.acquireRelease(
            Effect.sync(() => {
              engine.onFree = () => pool.notify()
              pool.add(member)
              changed()
              link.note(Effect.map(Deferred.await(link.drained), changed), "drain of a forward tunnel")
            }),
            () =>
              Effect.sync(() => {
                engine.onFree = undefined
                pool.remove(member)
                changed()
              })
          ),
          ready(tunnel)
        )
      })
    const agent = yield* make("forward", options, life, () => {
      over = true
      changed()
    })
    const target = "client" in to ? to.client.getChannel().getTarget() : to.address
    const grpc = new TunnelGrpcChannel({
      target,
      pick: (call) => (over ? undefined : pool.pick(pick, call)?.engine),
      ready: () => !over && pool.ready,
      refusal: () => (over ? [Code.UNAVAILABLE, "The agent has stopped"] : pool.full ? allFull : noTunnel),
      over: () => over,
      moves: true,
      ...waitingFor(wait, (waiter) => pool.wait({ policy: pick, ...waiter })),
      note: (work, name) => spawn(work, { name }),
      changed: Effect.callback<void>((resume) => {
        const watcher = () => {
          watchers.delete(watcher)
          resume(Effect.void)
        }
        watchers.add(watcher)
        return Effect.sync(() => watchers.delete(watcher))
      })
    })
    return {
      ...agent,
      grpc,
      client: <C>(Client: ClientConstructor<C>) => grpc.stub(Client)
    }
  })
