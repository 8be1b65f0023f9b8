/** Which agent gets a call, and what becomes of calls when agents, backends and gateways come and go. */
import { GrpcServer } from "@curfew/grpc"
import { Owner } from "@curfew/scope"
import { Services, TunnelService } from "@curfew/tunnel"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { beforeAll, describe, expect, test } from "vitest"
import { type Gateway, start, startAgent, startConnect, startGateway } from "./support/program.ts"
import {
  clientOf,
  clientStream,
  collect,
  definition,
  duplex,
  metadataFor,
  serverStream,
  startBackend,
  unary
} from "./support/voice.ts"

const { status: Code } = grpc

describe("which agent gets a call", { timeout: 120_000 }, () => {
  let gateway: Gateway

  beforeAll(async () => {
    gateway = await startGateway(["--default-key", "usual"])
    const backends = await Promise.all(["one ", "two ", "usual "].map((name) => startBackend(name)))
    const [one, two, usual] = backends.map(({ address }) => address)
    await startAgent(gateway, one ?? "", ["--key", "shared"])
    await startAgent(gateway, two ?? "", ["--key", "shared"])
    await startAgent(gateway, usual ?? "", ["--key", "usual"])
  }, 120_000)

  test("two agents with one key take turns", async () => {
    const client = clientOf(gateway.expose)
    const answers: (string | undefined)[] = []
    for (let call = 0; call < 4; call++) answers.push((await unary(client, "Shout", "x", "shared")).value)
    expect(answers.filter((answer) => answer === "one X")).toHaveLength(2)
    expect(answers.filter((answer) => answer === "two X")).toHaveLength(2)
  })

  test.each([
    ["the whole host", "shared"],
    ["the first label of the host", "shared.example.com:8080"]
  ])("%s names it", async (_, authority) => {
    const client = clientOf(gateway.expose, undefined, { "grpc.default_authority": authority })
    expect((await unary(client, "Shout", "x", undefined, {}, metadataFor(undefined))).value).toMatch(
      /^(one|two) X$/
    )
  })

  test("the metadata wins over the host", async () => {
    const client = clientOf(gateway.expose, undefined, { "grpc.default_authority": "shared" })
    expect((await unary(client, "Shout", "x", "usual")).value).toBe("usual X")
  })

  test("a call that names none gets the default", async () => {
    const client = clientOf(gateway.expose)
    expect((await unary(client, "Shout", "x", undefined, {}, metadataFor(undefined))).value).toBe("usual X")
  })

  test("a key that nobody has is UNAVAILABLE, and says how to start an agent", async () => {
    const { status } = await unary(clientOf(gateway.expose), "Shout", "x", "nobody")
    expect(status.code).toBe(Code.UNAVAILABLE)
    expect(status.details).toBe(
      'No agent with the key "nobody" is connected; start one: curfew-tunnel agent --key nobody'
    )
  })
})

describe("when agents have much to do", { timeout: 120_000 }, () => {
  test("--pick least-loaded takes the one with the fewest calls", async () => {
    const gateway = await startGateway(["--pick", "least-loaded"])
    const backends = await Promise.all(["one ", "two "].map((name) => startBackend(name)))
    for (const { address } of backends) await startAgent(gateway, address)
    const client = clientOf(gateway.expose)
    const [busy, free] = backends.map((backend) => backend.nextWait().waiting)
    const call = serverStream(client, "Wait", "x")
    const outcome = collect(call)
    const other = await Promise.race([busy?.then(() => "two X"), free?.then(() => "one X")])
    for (let count = 0; count < 4; count++) expect((await unary(client, "Shout", "x")).value).toBe(other)
    call.cancel()
    await outcome
  })

  test.each([
    ["is refused", [], Code.RESOURCE_EXHAUSTED],
    ["that has waited in vain is refused", ["--wait", "100ms"], Code.UNAVAILABLE]
  ])("a call over --max-streams %s with a sentence", async (_, wait, code) => {
    const gateway = await startGateway(["--max-streams", "1", ...wait])
    const backend = await startBackend()
    await startAgent(gateway, backend.address)
    const client = clientOf(gateway.expose)
    const { cancelled, waiting } = backend.nextWait()
    const call = serverStream(client, "Wait", "x")
    const outcome = collect(call)
    await waiting
    const { status } = await unary(client, "Shout", "x")
    expect(status.code).toBe(code)
    expect(status.details).toBe(
      'Every agent with the key "home" has as many calls as it may; start another one, or give a larger --max-streams to both ends'
    )
    call.cancel()
    await outcome
    await cancelled
  })
})

describe("what flags allow", { timeout: 120_000 }, () => {
  test("--insecure, --tunnels and --max-message", async () => {
    const gateway = await startGateway(["--listen", "0.0.0.0:0", "--insecure", "--max-message", "1KiB"])
    const backend = await startBackend()
    const to = { ...gateway, listen: gateway.listen.replace("0.0.0.0", "127.0.0.1") }
    await startAgent(to, backend.address, ["--tunnels", "2", "--max-message", "1KiB"])
    await gateway.says(/tunnel opened key=home/)
    const client = clientOf(gateway.expose)
    const shout = (length: number) => unary(client, "Shout", "x".repeat(length))
    expect((await shout(1024)).value).toBe("X".repeat(1024))
    expect((await shout(1025)).status.code).toBe(Code.RESOURCE_EXHAUSTED)
    expect((await shout(1024)).value).toBe("X".repeat(1024))
    expect(gateway.log()).not.toContain("tunnel closed")
  })
})

describe("when something goes", { timeout: 120_000 }, () => {
  test("a gateway without agents answers UNAVAILABLE with a sentence", async () => {
    const gateway = await startGateway()
    const { status } = await unary(
      clientOf(gateway.expose),
      "Shout",
      "x",
      undefined,
      {},
      metadataFor(undefined)
    )
    expect(status.code).toBe(Code.UNAVAILABLE)
    expect(status.details).toMatch(/^No agent is connected; start one: curfew-tunnel agent /)
  })

  test.each([
    ["agent", ["--key", "home", "--backend", "127.0.0.1:1"]],
    ["connect", ["--listen", "127.0.0.1:0"]]
  ])("%s is told which port to dial when it dials the callers'", async (command, words) => {
    const gateway = await startGateway()
    const lost = start([command, "--gateway", gateway.expose, ...words])
    await lost.says(/warn {2}not connected .*for callers; agents and connects dial the gateway's --listen/)
  })

  test("a killed agent costs its calls, the other one goes on, and the gateway says one line", async () => {
    const gateway = await startGateway()
    const [first, second] = [await startBackend("first "), await startBackend("second ")]
    const doomed = await startAgent(gateway, first.address)
    const client = clientOf(gateway.expose)
    const { waiting } = first.nextWait()
    const outcome = collect(serverStream(client, "Wait", "x"))
    await waiting
    await startAgent(gateway, second.address)
    doomed.signal("SIGKILL")
    expect((await outcome).status.code).toBe(Code.UNAVAILABLE)
    await gateway.says(/info {2}tunnel closed key=home .*calls=1 ms=\d+ reason=/)
    expect((await unary(client, "Shout", "x")).value).toBe("second X")
    expect((await unary(client, "Shout", "x")).value).toBe("second X")
  })

  test("a backend that is down costs the call, and the agent stays connected", async () => {
    const gateway = await startGateway()
    const backend = await startBackend()
    backend.stop()
    const agent = await startAgent(gateway, backend.address)
    const client = clientOf(gateway.expose)
    const { status } = await unary(client, "Shout", "x")
    expect(status.code).toBe(Code.UNAVAILABLE)
    expect(status.details).toBe(
      `The agent is connected, but its backend at ${backend.address} cannot be reached`
    )
    await startBackend("back ", backend.port)
    let answer = await unary(client, "Shout", "x")
    while (answer.value === undefined) answer = await unary(client, "Shout", "x")
    expect(answer.value).toBe("back X")
    expect(agent.log()).not.toContain("tunnel closed")
  })

  test("an agent comes back when its gateway does, and calls can wait for it", async () => {
    const gateway = await startGateway()
    const backend = await startBackend()
    const agent = await startAgent(gateway, backend.address)
    gateway.signal("SIGKILL")
    await agent.says(/tunnel closed/)
    const again = await startGateway(["--listen", gateway.listen, "--wait", "60s"])
    // It is not connected yet, or only just.
    expect((await unary(clientOf(again.expose), "Shout", "x")).value).toBe("X")
    await agent.says(/tunnel opened/)
  })
})

describe("who may open tunnels", { timeout: 120_000 }, () => {
  test("is who knows the token, with a key that is allowed", async () => {
    const gateway = await startGateway(["--allow-keys", "home,office"], { CURFEW_TUNNEL_TOKEN: "right" })
    const backend = await startBackend()
    const words = ["--gateway", gateway.listen, "--backend", backend.address]
    const wrong = start(["agent", ...words, "--key", "home", "--token", "wrong"])
    await wrong.says(/warn {2}the gateway refuses the tunnel .*code=UNAUTHENTICATED .*asks for a token/)
    await gateway.says(/warn {2}tunnel refused peer=\S+ code=UNAUTHENTICATED/)
    const other = start(["agent", ...words, "--key", "other", "--token", "right"])
    await other.says(/warn {2}the gateway refuses the tunnel .*code=PERMISSION_DENIED .*--allow-keys/)
    await startAgent(gateway, backend.address, [], { CURFEW_TUNNEL_TOKEN: "right" })
    expect((await unary(clientOf(gateway.expose), "Shout", "x")).value).toBe("X")
    expect(`${gateway.log()}${wrong.log()}${other.log()}`).not.toMatch(/Bearer|=right|"right"/)
  })
})

describe("connect, the other direction", { timeout: 120_000 }, () => {
  test("carries the calls of a local port through one tunnel", async () => {
    const backend = await startBackend()
    const gateway = await startGateway(["--forward", backend.address])
    const connect = await startConnect(gateway)
    const client = clientOf(connect.listen)
    const shouted = await unary(client, "Shout", "hello")
    expect(shouted.value).toBe("HELLO")
    expect(shouted.status.metadata.get("x-trailer")).toEqual(["last"])
    expect((await collect(serverStream(client, "Spell", "abc"))).parts).toEqual(["a", "b", "c"])
    expect(await clientStream(client, ["a", "b"])).toBe("ab")
    const echo = duplex(client)
    const echoed = collect(echo)
    echo.write("one")
    echo.end()
    expect((await echoed).parts).toEqual(["one"])
    const { cancelled, waiting } = backend.nextWait()
    const call = serverStream(client, "Wait", "x")
    const outcome = collect(call)
    await waiting
    call.cancel()
    await cancelled
    expect((await outcome).status.code).toBe(Code.CANCELLED)
  })

  test("reaches any tunnel server, whose handlers know their kinds", async () => {
    await Effect.runPromise(
      Effect.gen(function* () {
        const server = yield* GrpcServer.make({ services: [], address: "127.0.0.1:0" })
        const services = Services.empty.pipe(
          Services.add(definition, {
            Shout: (call: grpc.ServerUnaryCall<string, string>, respond: grpc.sendUnaryData<string>) =>
              respond(null, call.request.toUpperCase()),
            Spell: (call: grpc.ServerWritableStream<string, string>) => {
              for (const letter of call.request) call.write(letter)
              call.end()
            }
          })
        )
        yield* server.add(yield* TunnelService.make({ services }))
        const connect = yield* Effect.promise(() => startConnect({ listen: server.address }))
        const client = clientOf(connect.listen)
        expect((yield* Effect.promise(() => unary(client, "Shout", "x"))).value).toBe("X")
        const spelled = yield* Effect.promise(() => collect(serverStream(client, "Spell", "abc")))
        expect(spelled.parts).toEqual(["a", "b", "c"])
        const { status } = yield* Effect.promise(() => unary(client, "Fail", "x"))
        expect(status.code).toBe(Code.UNIMPLEMENTED)
      }).pipe(Effect.scoped, Effect.provide(Owner.layer()))
    )
  })

  test("says what is missing while there is no tunnel", async () => {
    const gateway = await startGateway()
    const connect = await startConnect(gateway, ["--wait", "100ms"], false)
    const { status } = await unary(clientOf(connect.listen), "Shout", "hello")
    expect(status.code).toBe(Code.UNAVAILABLE)
    expect(status.details).toMatch(/^There is no tunnel to \S+: see that the gateway runs, has --forward/)
  })
})
