import { type ChildProcess, fork } from "node:child_process"
import { createServer, type Http2Session } from "node:http2"
import type { AddressInfo } from "node:net"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Agent, type AgentEvent, openForward, Services, TunnelService } from "../src/index.ts"
import { definition, EchoClient, implementation, unary } from "./support/echo.ts"
import { listen, listenWith } from "./support/network.ts"
import { relayTo } from "./support/relay.ts"

const { status: Code } = grpc
const insecure = grpc.credentials.createInsecure()
const clear = grpc.ServerCredentials.createInsecure()
const hanging = Services.empty.pipe(Services.add(definition, implementation({ Unary: () => undefined })))

/** Small, so that the tests are quick; that they end at all is what is tested. */
const keepalive = { time: "100 millis", timeout: "100 millis" } as const

const program = fileURLToPath(new URL("support/peerProcess.ts", import.meta.url))

/** Another process, and what it said first. */
const peer = (
  ...argv: ReadonlyArray<string>
): Effect.Effect<{ readonly child: ChildProcess; readonly said: string }, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<{ readonly child: ChildProcess; readonly said: string }>((resume) => {
      const child = fork(program, argv, { execArgv: ["--conditions=@curfew/source"] })
      child.once("message", (said) => resume(Effect.succeed({ child, said: String(said) })))
    }),
    ({ child }) =>
      Effect.callback<void>((resume) => {
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )

describe("a network server that is gone without a word is noticed by who dialled it", () => {
  it.live("when its process is frozen", () =>
    Effect.gen(function* () {
      const { child, said } = yield* peer("server")
      const tunnel = yield* openForward({ address: said, credentials: insecure }, { keepalive })
      const running = unary(tunnel.client(EchoClient), Buffer.from("hang"))
      child.kill("SIGSTOP")
      expect(yield* tunnel.closed).toMatchObject({ _tag: "Lost", error: { code: Code.UNAVAILABLE } })
      expect((yield* Effect.promise(() => running)).code).toBe(Code.UNAVAILABLE)
    }).pipe(Effect.scoped)
  )

  it.live("when the cable is cut, and the agent opens its next tunnel", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address } = yield* listen(service.addTo)
      const relay = yield* relayTo(address)
      const opened: Array<AgentEvent> = []
      const again = Deferred.makeUnsafe<void>()
      yield* Agent.serve({ address: relay.address, credentials: insecure }, hanging, {
        keepalive,
        backoff: { initial: "10 millis" },
        onEvent: (event) => {
          if (event._tag === "Opened" && opened.push(event) === 2) Deferred.doneUnsafe(again, Effect.void)
        }
      })
      yield* service.reverse.awaitReverse()
      yield* relay.cut
      yield* Deferred.await(again)
    }).pipe(Effect.scoped)
  )
})

describe("an agent that is gone without a word is noticed by its server", () => {
  it.live("when its process is frozen", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address } = yield* listenWith(clear, service.addTo, TunnelService.serverOptions(keepalive))
      const { child } = yield* peer("agent", address)
      const tunnel = yield* service.reverse.awaitReverse()
      const running = unary(tunnel.client(EchoClient), Buffer.from("hang"))
      child.kill("SIGSTOP")
      expect((yield* tunnel.closed)._tag).toBe("Lost")
      expect((yield* Effect.promise(() => running)).code).toBe(Code.UNAVAILABLE)
      expect(yield* service.reverse.ready()).toBe(false)
      expect(yield* service.reverse.keys).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("when the cable is cut", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address } = yield* listenWith(clear, service.addTo, TunnelService.serverOptions(keepalive))
      const relay = yield* relayTo(address)
      yield* Agent.serve({ address: relay.address, credentials: insecure }, hanging)
      const tunnel = yield* service.reverse.awaitReverse()
      const running = unary(tunnel.client(EchoClient), Buffer.from("q"))
      yield* relay.cut
      expect((yield* tunnel.closed)._tag).toBe("Lost")
      expect((yield* Effect.promise(() => running)).code).toBe(Code.UNAVAILABLE)
    }).pipe(Effect.scoped)
  )
})

it.live("an agent whose pings are too many for its server pings half as often on the next connection", () =>
  Effect.gen(function* () {
    const sessions: Array<Http2Session> = []
    const started: Array<number> = []
    const times: Array<number> = []
    const second = Deferred.makeUnsafe<void>()
    const { port } = yield* Effect.acquireRelease(
      Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
        const server = createServer()
        server.on("session", (session) => {
          const index = sessions.push(session) - 1
          started.push(performance.now())
          session.on("error", () => undefined)
          session.on("ping", () => {
            times[index] ??= performance.now() - (started[index] ?? 0)
            // What a Go server does whose enforcement policy is broken.
            if (index === 0) session.goaway(11, 0, Buffer.from("too_many_pings"))
            else Deferred.doneUnsafe(second, Effect.void)
          })
        })
        server.on("stream", (stream) => {
          stream.on("error", () => undefined)
          stream.respond({ ":status": 200, "content-type": "application/grpc", "grpctunnel-negotiate": "on" })
        })
        server.listen(0, "127.0.0.1", () =>
          resume(
            Effect.succeed({ port: (server.address() as AddressInfo).port, close: () => server.close() })
          )
        )
      }),
      ({ close }) =>
        Effect.sync(() => {
          for (const session of sessions) session.destroy()
          close()
        })
    )
    const events: Array<AgentEvent> = []
    yield* Agent.serve({ address: `127.0.0.1:${port}`, credentials: insecure }, hanging, {
      keepalive,
      backoff: { initial: "10 millis" },
      onEvent: (event) => events.push(event)
    })
    yield* Deferred.await(second)
    const closed = events.find(({ _tag }) => _tag === "Closed")
    expect(closed).toMatchObject({ end: { _tag: "Lost", error: { code: Code.RESOURCE_EXHAUSTED } } })
    // The first connection was pinged once after the time, the second after twice that.
    expect(times[1]).toBeGreaterThan(150)
  }).pipe(Effect.scoped)
)
