/**
 * The Curfew ends of the rates, a process each: `serve` listens with the test service and prints "port N", `call
 * <address>` measures how fast calls go over a forward tunnel and prints "rates" with them.
 */
import { openForward, Services, TunnelService } from "@curfew/tunnel"
import { credentials, Metadata, makeClientConstructor, Server, ServerCredentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { TestClient } from "./cases.ts"
import { definition, implementation } from "./testService.ts"

const options = { maxMessageSize: 16 << 20 }
const seconds = 2

const serve = Effect.gen(function* () {
  const services = Services.empty.pipe(Services.add(definition, implementation))
  const service = yield* TunnelService.make({ ...options, services })
  const server = new Server()
  service.addTo(server)
  server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
    if (error !== null) throw error
    console.log(`port ${port}`)
  })
  yield* Effect.never
})

/** How often per second, after a quarter of the time to warm up. */
const measure = async (callers: number, call: () => Promise<number>): Promise<number> => {
  let count = 0
  const begin = performance.now() + (seconds * 1000) / 4
  const end = begin + seconds * 1000
  const caller = async (): Promise<void> => {
    for (let now = performance.now(); now < end; now = performance.now()) {
      const done = await call()
      if (now > begin) count += done
    }
  }
  await Promise.all(Array.from({ length: callers }, caller))
  return count / seconds
}

const unary = (client: TestClient, size: number) => () =>
  new Promise<number>((resolve, reject) => {
    client.Unary({ payload: Buffer.alloc(size) }, new Metadata(), {}, (error) =>
      error === null ? resolve(1) : reject(error)
    )
  })

const stream = (client: TestClient) => () =>
  new Promise<number>((resolve, reject) => {
    const call = client.ServerStream({ payload: Buffer.alloc(1_000_000), count: 5 }, new Metadata(), {})
    call.on("data", () => undefined)
    call.on("error", reject)
    call.on("end", () => resolve(5))
  })

const call = (address: string) =>
  Effect.gen(function* () {
    const tunnel = yield* openForward({ address, credentials: credentials.createInsecure() }, options)
    const client = tunnel.client(makeClientConstructor(definition, "test")) as unknown as TestClient
    const results: Record<string, number> = {}
    for (const [callers, size] of [
      [1, 100],
      [16, 100],
      [16, 10_000],
      [16, 100_000]
    ] as const)
      results[`unary ${callers} ${size}`] = yield* Effect.promise(() => measure(callers, unary(client, size)))
    results["stream 1000000"] = yield* Effect.promise(() => measure(1, stream(client)))
    console.log(`rates ${JSON.stringify(results)}`)
  })

const [role, address = ""] = process.argv.slice(2)
await Effect.runPromise(Effect.scoped(role === "serve" ? serve : call(address)))
