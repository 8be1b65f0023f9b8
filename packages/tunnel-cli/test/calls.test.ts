/** Plain grpc-js clients and servers, with a gateway and an agent between them as processes of their own. */
import * as grpc from "@grpc/grpc-js"
import { beforeAll, describe, expect, test } from "vitest"
import { type Running, startAgent, startGateway } from "./support/program.ts"
import {
  type Backend,
  clientOf,
  clientStream,
  collect,
  details,
  duplex,
  gone,
  metadataFor,
  serverStream,
  startBackend,
  unary,
  waitUntil
} from "./support/voice.ts"

let backend: Backend
let client: grpc.Client
let agent: Running
let address: string

beforeAll(async () => {
  backend = await startBackend()
  const gateway = await startGateway()
  agent = await startAgent(gateway, backend.address, ["--log-level", "debug"])
  address = gateway.expose
  client = clientOf(address)
})

describe("through a gateway and an agent", () => {
  test("calls of all four kinds are answered as they would be directly", async () => {
    const shouted = await unary(client, "Shout", "hello")
    expect(shouted.value).toBe("HELLO")
    expect(shouted.status.code).toBe(grpc.status.OK)
    expect((await collect(serverStream(client, "Spell", "abc"))).parts).toEqual(["a", "b", "c"])
    expect(await clientStream(client, ["a", "", "c"])).toBe("ac")
    const echo = duplex(client)
    const echoed = collect(echo)
    echo.write("one")
    echo.write("two")
    echo.end()
    expect((await echoed).parts).toEqual(["one", "two"])
  })

  test("headers, trailers, metadata of the request and details of a status arrive as they were sent", async () => {
    const metadata = metadataFor("home")
    metadata.add("x-twice", "one")
    metadata.add("x-twice", "two")
    metadata.set("x-some-bin", Buffer.from("some bytes"))
    const shouted = await unary(client, "Shout", "hello", "home", {}, metadata)
    expect(shouted.headers?.get("x-header")).toEqual(["first"])
    expect(shouted.status.metadata.get("x-trailer")).toEqual(["last"])
    expect(shouted.status.metadata.get("x-bytes-bin")).toEqual([Buffer.from("bytes")])
    const seen = backend.seen.at(-1)
    expect(`${seen?.metadata.get("x-twice")}`).toBe("one, two")
    expect(seen?.metadata.get("x-some-bin")).toEqual([Buffer.from("some bytes")])
    const failed = await unary(client, "Fail", "x")
    expect(failed.status.code).toBe(grpc.status.NOT_FOUND)
    expect(failed.status.details).toBe(gone)
    expect(failed.status.metadata.get("grpc-status-details-bin")).toEqual([details])
    expect(failed.status.metadata.get("x-trailer")).toEqual(["last"])
  })

  test("a method that the backend does not have is UNIMPLEMENTED, as the backend says", async () => {
    const { status } = await new Promise<{ status: grpc.StatusObject }>((resolve) => {
      const call = client.makeUnaryRequest(
        "/no.such/Method",
        (value: Buffer) => value,
        (value: Buffer) => value,
        Buffer.from(""),
        metadataFor("home"),
        () => undefined
      )
      call.on("status", (status) => resolve({ status }))
    })
    expect(status.code).toBe(grpc.status.UNIMPLEMENTED)
  })

  test("a cancel reaches the backend, and the agent knows why", async () => {
    const { cancelled, waiting } = backend.nextWait()
    const call = serverStream(client, "Wait", "x")
    const outcome = collect(call)
    await waiting
    call.cancel()
    expect((await outcome).status.code).toBe(grpc.status.CANCELLED)
    await cancelled
    // What the tunnel knows, and behind it what the gateway told.
    await agent.says(
      /call cancelled method=\/demo\.Voice\/Wait .*by=ClientGone reason=".*: the client has gone \(grpc\)"/
    )
  })

  test("the backend gets what is left of the time, and its handler ends at the deadline", async () => {
    const before = Date.now()
    await unary(client, "Shout", "hello", "home", { deadline: before + 30_000 })
    const left = (backend.seen.at(-1)?.deadline ?? 0) - before
    expect(left).toBeGreaterThan(20_000)
    // Each leg rounds up to whole milliseconds.
    expect(left).toBeLessThan(30_500)
    const { cancelled } = backend.nextWait()
    const late = waitUntil(client, Date.now() + 300)
    expect((await collect(late)).status.code).toBe(grpc.status.DEADLINE_EXCEEDED)
    await cancelled
  })

  test("a caller that writes without end is slowed down by a backend that does not read", async () => {
    // Without the retry buffer grpc-js says a message is written when it is.
    const honest = clientOf(address, grpc.credentials.createInsecure(), {
      "grpc.per_rpc_retry_buffer_size": 0,
      "grpc.enable_retries": 0
    })
    const call = duplex(honest, "Stall")
    call.on("error", () => undefined)
    const part = "x".repeat(64 * 1024)
    let written = 0
    const fill = async () => {
      for (;;) {
        const stalled = new Promise<boolean>((resolve) => {
          const timer = setTimeout(() => resolve(true), 2_000)
          call.write(part, () => {
            clearTimeout(timer)
            resolve(false)
          })
        })
        if (await stalled) return
        written += part.length
        // Far more than all the windows on the way.
        if (written > 32 * 1024 * 1024) throw new Error("Nothing slowed the caller down.")
      }
    }
    await fill()
    expect(written).toBeGreaterThan(0)
    call.cancel()
  })
})
