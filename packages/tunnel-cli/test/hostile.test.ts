/** What callers and agents can send to hurt others, who share a connection or a gateway with them. */
import { Agent, Services } from "@curfew/tunnel"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { beforeAll, describe, expect, test } from "vitest"
import { type Gateway, startAgent, startGateway } from "./support/program.ts"
import { type Backend, clientOf, metadataFor, serverStream, startBackend, unary } from "./support/voice.ts"

let gateway: Gateway
let backend: Backend
let client: grpc.Client

beforeAll(async () => {
  backend = await startBackend()
  gateway = await startGateway()
  await startAgent(gateway, backend.address)
  client = clientOf(gateway.expose)
})

/** A call that stays open, and what becomes of it. */
const neighbour = async () => {
  const { waiting } = backend.nextWait()
  const call = serverStream(client, "Wait", "x")
  let ended: grpc.StatusObject | undefined
  call.on("data", () => undefined)
  call.on("error", () => undefined)
  call.on("status", (status) => {
    ended = status
  })
  await waiting
  return { call, ended: () => ended }
}

describe("of two calls of one connection", () => {
  test("one that names an agent with tens of thousands of letters costs the other nothing", async () => {
    const { call, ended } = await neighbour()
    const { status } = await unary(client, "Shout", "hello", undefined, {}, metadataFor("x".repeat(40_000)))
    expect(ended()).toBeUndefined()
    expect(status.code).toBe(grpc.status.UNAVAILABLE)
    expect(status.details).toMatch(/^No agent with the key "x+…" is connected/)
    expect((await unary(client, "Shout", "hello")).value).toBe("HELLO")
    call.cancel()
  })

  test("one that asks about health in tens of thousands of letters costs the other nothing", async () => {
    const { call, ended } = await neighbour()
    const path = `/grpc.health.v1.Health/${"x".repeat(60_000)}`
    const bytes = (value: Buffer): Buffer => value
    const code = await new Promise<number>((resolve) => {
      const metadata = new grpc.Metadata()
      const asked = client.makeUnaryRequest(path, bytes, bytes, Buffer.alloc(0), metadata, () => undefined)
      asked.on("status", (status) => resolve(status.code))
    })
    expect(ended()).toBeUndefined()
    expect(code).toBe(grpc.status.UNIMPLEMENTED)
    call.cancel()
  })

  test("one whose handler has a great deal to say costs the other nothing", async () => {
    const { call, ended } = await neighbour()
    const loud: grpc.UntypedServiceImplementation[string] = (
      _: grpc.ServerUnaryCall<Buffer, Buffer>,
      respond: grpc.sendUnaryData<Buffer>
    ) => respond({ code: grpc.status.NOT_FOUND, details: "ü".repeat(30_000) })
    const bytes = (value: Buffer): Buffer => value
    const definition = {
      Shout: {
        path: "/demo.Voice/Shout",
        requestStream: false,
        responseStream: false,
        requestSerialize: bytes,
        requestDeserialize: bytes,
        responseSerialize: bytes,
        responseDeserialize: bytes
      }
    }
    const services = Services.empty.pipe(Services.add(definition, { Shout: loud }))
    const to = { address: gateway.listen, credentials: grpc.credentials.createInsecure() }
    const status = await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          yield* Agent.serve(to, services, { metadata: metadataFor("loud") })
          yield* Effect.promise(() => gateway.says(/tunnel opened key=loud/))
          return (yield* Effect.promise(() => unary(client, "Shout", "hello", "loud"))).status
        })
      )
    )
    expect(ended()).toBeUndefined()
    expect(status.code).toBe(grpc.status.NOT_FOUND)
    expect(status.details).toMatch(/^ü{1000,}…$/)
    expect((await unary(client, "Shout", "hello")).value).toBe("HELLO")
    call.cancel()
  })
})

describe("a question about health", () => {
  const ask = (
    write: (call: grpc.ClientDuplexStream<Buffer, Buffer>) => void
  ): Promise<grpc.StatusObject> => {
    const bytes = (value: Buffer): Buffer => value
    const call = client.makeBidiStreamRequest("/grpc.health.v1.Health/Check", bytes, bytes)
    call.on("data", () => undefined)
    call.on("error", () => undefined)
    const status = new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve))
    write(call)
    call.end()
    return status
  }

  test("that is garbage is refused, and the gateway lives", async () => {
    const { code } = await ask((call) => call.write(Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])))
    expect(code).toBe(grpc.status.INTERNAL)
    expect((await unary(client, "Shout", "hello")).value).toBe("HELLO")
  })

  test("that never asks anything is refused", async () => {
    const { code } = await ask(() => undefined)
    expect(code).toBe(grpc.status.UNIMPLEMENTED)
  })
})
