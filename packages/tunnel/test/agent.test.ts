import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  Agent,
  type AgentEvent,
  type AgentState,
  Services,
  type TunnelHandle,
  TunnelService
} from "../src/index.ts"
import { audited } from "./support/audit.ts"
import { definition, EchoClient, implementation, type UnaryHandler, unary } from "./support/echo.ts"
import { listen, listenWith } from "./support/network.ts"

const { status: Code } = grpc
const insecure = grpc.credentials.createInsecure()

const offering = (name: string) =>
  Services.empty.pipe(
    Services.add(
      definition,
      implementation({ Unary: (_call, callback) => callback(null, Buffer.from(name)) })
    )
  )

/** Short waits: what is tested is their order, and that they end. */
const backoff = { initial: "10 millis", cap: "40 millis", lasting: 0 } as const

/** Waits for a state, from now on or now. */
const reached = (agent: Agent.Agent, tag: AgentState["_tag"]) =>
  agent.changes.pipe(
    Stream.filter((state) => state._tag === tag),
    Stream.runHead
  )

/** A server that can be taken away and put back under the same address. */
const server = (port: number, add: (server: grpc.Server) => void) =>
  listenWith(grpc.ServerCredentials.createInsecure(), add, { port })

const portOf = (address: string): number => Number(address.slice(address.lastIndexOf(":") + 1))

describe("an agent that serves", () => {
  it.live("reconnects when its server has gone and come back, and serves again", () =>
    Effect.gen(function* () {
      const first = yield* Scope.make()
      const { address, service } = yield* Scope.provide(
        Effect.gen(function* () {
          const made = yield* TunnelService.make()
          return { service: made, address: (yield* server(0, made.addTo)).address }
        }),
        first
      )
      const events: Array<AgentEvent> = []
      const agent = yield* Agent.serve({ address, credentials: insecure }, offering("A"), {
        backoff,
        onEvent: (event) => events.push(event)
      })
      yield* agent.awaitReady()
      expect(yield* agent.ready).toBe(true)
      yield* service.reverse.awaitReady()
      const away = yield* Effect.forkChild(reached(agent, "Waiting"))
      yield* Scope.close(first, Exit.void)
      yield* Fiber.join(away)
      expect(yield* agent.ready).toBe(false)
      const again = yield* TunnelService.make()
      yield* server(portOf(address), again.addTo)
      const tunnel = yield* again.reverse.awaitReverse()
      yield* agent.awaitReady()
      const answer = yield* Effect.promise(() => unary(tunnel.client(EchoClient), Buffer.from("q")))
      expect(String(answer.value)).toBe("A")
      expect(events.filter(({ _tag }) => _tag === "Opened")).toHaveLength(2)
      expect(events.filter(({ _tag }) => _tag === "Closed")).toHaveLength(1)
    }).pipe(Effect.scoped)
  )

  it.live("keeps as many tunnels as it is told to, each over a connection of its own", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address } = yield* listen(service.addTo)
      const agent = yield* Agent.serve({ address, credentials: insecure }, offering("A"), { tunnels: 3 })
      yield* agent.changes.pipe(
        Stream.filter((state) => state._tag === "Ready" && state.tunnels === 3),
        Stream.runHead
      )
      yield* Effect.repeat(Effect.yieldNow, {
        until: () => Effect.runSync(service.reverse.list).length === 3
      })
      const peers = (yield* service.reverse.list).map(({ peer }) => peer)
      expect(new Set(peers).size).toBe(3)
      expect((yield* agent.slots).map(({ _tag }) => _tag)).toEqual(["Ready", "Ready", "Ready"])
    }).pipe(Effect.scoped)
  )

  it.live("stops when asked: what runs is answered, nothing new is opened, nothing is left", () =>
    Effect.gen(function* () {
      const [, findings] = yield* audited(
        Effect.scoped(
          Effect.gen(function* () {
            const service = yield* TunnelService.make()
            const { address } = yield* listen(service.addTo)
            const asked = Deferred.makeUnsafe<() => void>()
            const Unary: UnaryHandler = (call, callback) =>
              Deferred.doneUnsafe(
                asked,
                Effect.succeed(() => callback(null, call.request))
              )
            const services = Services.empty.pipe(Services.add(definition, implementation({ Unary })))
            const ends: Array<unknown> = []
            const onEvent = (event: Agent.AgentEvent) => {
              if (event._tag === "Closed") ends.push(event.end)
            }
            const to = { address, credentials: insecure }
            const agent = yield* Agent.serve(to, services, { backoff, onEvent })
            const tunnel = yield* service.reverse.awaitReverse()
            const running = unary(tunnel.client(EchoClient), Buffer.from("q"))
            const answer = yield* Deferred.await(asked)
            const stopping = yield* Effect.forkChild(agent.stop())
            yield* tunnel.awaitDraining
            expect((yield* agent.state)._tag).toBe("Draining")
            answer()
            expect(yield* Fiber.join(stopping)).toBe(true)
            expect((yield* Effect.promise(() => running)).code).toBe(Code.OK)
            expect(yield* agent.stopped).toBeUndefined()
            expect(yield* agent.state).toEqual({ _tag: "Stopped", failure: undefined })
            expect((yield* tunnel.closed)._tag).toBe("ClosedByPeer")
            // Nothing had to be forced.
            expect(ends).toMatchObject([{ reason: { _tag: "Shutdown", phase: "drain" } }])
            expect(yield* Effect.flip(agent.awaitReady())).toMatchObject({ _tag: "TunnelsNotReady" })
          })
        )
      )
      expect(findings).toMatchObject({ liveFibers: 0, errorLogs: [] })
    })
  )

  it.live("opens the next tunnel when its peer drains, before the call in the old one has ended", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address } = yield* listen(service.addTo)
      const asked = Deferred.makeUnsafe<() => void>()
      const Unary: UnaryHandler = (call, callback) => {
        if (call.request.toString() === "hang") {
          Deferred.doneUnsafe(
            asked,
            Effect.succeed(() => callback(null, call.request))
          )
        } else callback(null, call.request)
      }
      const services = Services.empty.pipe(Services.add(definition, implementation({ Unary })))
      const agent = yield* Agent.serve({ address, credentials: insecure }, services, { backoff })
      const old = yield* service.reverse.awaitReverse()
      const running = unary(old.client(EchoClient), Buffer.from("hang"))
      const answer = yield* Deferred.await(asked)
      const drained = yield* Effect.forkChild(old.drain())
      yield* old.awaitDraining
      const next = yield* service.reverse.awaitReverse()
      expect(next).not.toBe(old)
      const second = yield* Effect.promise(() => unary(next.client(EchoClient), Buffer.from("q")))
      expect(second.code).toBe(Code.OK)
      expect(yield* agent.tunnels).toHaveLength(2)
      answer()
      expect(yield* Fiber.join(drained)).toBe(true)
      expect((yield* Effect.promise(() => running)).code).toBe(Code.OK)
      expect((yield* old.closed)._tag).toBe("ClosedByPeer")
    }).pipe(Effect.scoped)
  )

  it.live(
    "tells a refusal that cannot heal, and tries again near the cap, or stops where it is told to",
    () =>
      Effect.gen(function* () {
        const service = yield* TunnelService.make({ reverse: false })
        const { address } = yield* listen(service.addTo)
        const to = { address, credentials: insecure }
        const refused: Array<number> = []
        const onEvent = (event: AgentEvent): void => {
          if (event._tag === "Refused") refused.push(event.error.code)
        }
        const stubborn = yield* Agent.serve(to, offering("A"), { backoff: { cap: "1 hour" }, onEvent })
        const waiting = yield* Effect.map(reached(stubborn, "Waiting"), (state) => Object(state).value)
        expect(Duration.toMillis(waiting.delay)).toBeGreaterThanOrEqual(1_800_000)
        expect(waiting.failure).toMatchObject({ _tag: "NotOpened", error: { code: Code.UNIMPLEMENTED } })
        const yielding = yield* Agent.serve(to, offering("A"), { onRefused: "stop", onEvent })
        expect(yield* yielding.stopped).toMatchObject({ error: { code: Code.UNIMPLEMENTED } })
        expect(refused).toEqual([Code.UNIMPLEMENTED, Code.UNIMPLEMENTED])
      }).pipe(Effect.scoped)
  )

  it.live(
    "opens the next tunnel when its connection gets a GOAWAY, and the call in the old one is answered",
    () =>
      Effect.gen(function* () {
        const service = yield* TunnelService.make()
        const aged = { "grpc.max_connection_age_ms": 500, "grpc.max_connection_age_grace_ms": 60_000 }
        const { address } = yield* listenWith(grpc.ServerCredentials.createInsecure(), service.addTo, aged)
        const asked = Deferred.makeUnsafe<() => void>()
        const Unary: UnaryHandler = (call, callback) =>
          Deferred.doneUnsafe(
            asked,
            Effect.succeed(() => callback(null, call.request))
          )
        const services = Services.empty.pipe(Services.add(definition, implementation({ Unary })))
        yield* Agent.serve({ address, credentials: insecure }, services, { backoff })
        const old = yield* service.reverse.awaitReverse()
        const running = unary(old.client(EchoClient), Buffer.from("q"))
        const answer = yield* Deferred.await(asked)
        yield* old.awaitDraining
        yield* service.reverse.awaitReverse()
        answer()
        expect((yield* Effect.promise(() => running)).code).toBe(Code.OK)
        expect((yield* old.closed)._tag).toBe("ClosedByPeer")
      }).pipe(Effect.scoped)
  )
})

describe("an agent that calls", () => {
  it.live("has a channel that survives its tunnels, where calls wait for the next one", () =>
    Effect.gen(function* () {
      const first = yield* Scope.make()
      const { address } = yield* Scope.provide(
        Effect.gen(function* () {
          const made = yield* TunnelService.make({ services: offering("first") })
          return yield* server(0, made.addTo)
        }),
        first
      )
      const agent = yield* Agent.connect({ address, credentials: insecure }, { backoff, wait: true })
      const client = agent.client(EchoClient)
      const ask = Effect.map(
        Effect.promise(() => unary(client, Buffer.from("q"))),
        ({ details, value }) => (value === undefined ? details : String(value))
      )
      // It waits for the first tunnel too.
      expect(yield* ask).toBe("first")
      const away = yield* Effect.forkChild(reached(agent, "Waiting"))
      yield* Scope.close(first, Exit.void)
      yield* Fiber.join(away)
      const waiting = yield* Effect.forkChild(ask)
      yield* Effect.yieldNow
      const again = yield* TunnelService.make({ services: offering("second") })
      yield* server(portOf(address), again.addTo)
      expect(yield* Fiber.join(waiting)).toBe("second")
      yield* agent.stop()
      expect(yield* ask).toBe("The agent has stopped")
    }).pipe(Effect.scoped)
  )

  it.live("moves to the next tunnel when its peer drains, while the call in the old one is answered", () =>
    Effect.gen(function* () {
      const asked = Deferred.makeUnsafe<() => void>()
      const Unary: UnaryHandler = (call, callback) => {
        if (call.request.toString() === "hang") {
          Deferred.doneUnsafe(
            asked,
            Effect.succeed(() => callback(null, call.request))
          )
        } else callback(null, call.request)
      }
      const scope = yield* Scope.make()
      const services = Services.empty.pipe(Services.add(definition, implementation({ Unary })))
      const service = yield* Scope.provide(TunnelService.make({ services }), scope)
      const { address } = yield* listen(service.addTo)
      const agent = yield* Agent.connect({ address, credentials: insecure }, { backoff })
      const client = agent.client(EchoClient)
      const running = unary(client, Buffer.from("hang"))
      const answer = yield* Deferred.await(asked)
      const [old] = yield* agent.tunnels
      const drained = yield* Effect.forkChild(service.drain())
      expect(yield* (old as TunnelHandle).awaitDraining).toBe("peer")
      answer()
      expect(yield* Fiber.join(drained)).toBe(true)
      expect((yield* Effect.promise(() => running)).code).toBe(Code.OK)
      // A service that drains takes no new tunnel, so the next attempt is refused and the agent goes on trying.
      expect(yield* reached(agent, "Waiting")).toMatchObject({
        value: { failure: { error: { code: Code.UNAVAILABLE } } }
      })
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.scoped)
  )
})

it.live("agents that lost many tunnels and calls leave nothing behind, and log no errors", () =>
  Effect.gen(function* () {
    const [, findings] = yield* audited(
      Effect.scoped(
        Effect.gen(function* () {
          const Unary: UnaryHandler = () => undefined
          const services = Services.empty.pipe(Services.add(definition, implementation({ Unary })))
          const service = yield* TunnelService.make({ services })
          const { address } = yield* listen(service.addTo)
          const to = { address, credentials: insecure }
          const serving = yield* Agent.serve(to, services, { backoff, tunnels: 2, drain: 0 })
          const calling = yield* Agent.connect(to, { backoff, wait: true, drain: 0 })
          const client = calling.client(EchoClient)
          for (let round = 0; round < 5; round++) {
            const tunnel = yield* service.reverse.awaitReverse()
            yield* calling.awaitReady()
            const calls = [
              unary(tunnel.client(EchoClient), Buffer.from("q")),
              unary(client, Buffer.from("q"))
            ]
            const [forward] = yield* calling.tunnels
            yield* Effect.repeat(Effect.yieldNow, {
              until: () =>
                Effect.runSync(tunnel.stats).streams > 0 &&
                forward !== undefined &&
                Effect.runSync(forward.stats).streams > 0
            })
            yield* Effect.all([tunnel.close(), forward?.close() ?? Effect.void], { concurrency: "unbounded" })
            for (const call of calls) expect((yield* Effect.promise(() => call)).code).toBe(Code.UNAVAILABLE)
          }
          // Ended by the scope: with a call that waits, one that runs, and slots in every state.
          yield* serving.awaitReady()
          void unary(client, Buffer.from("q"))
        })
      )
    )
    expect(findings).toMatchObject({ liveFibers: 0, errorLogs: [] })
  })
)
