import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as protoLoader from "@grpc/proto-loader"
import * as Effect from "effect/Effect"
import { openForward, Services, TunnelService } from "../src/index.ts"
import { batchKey } from "../src/internal/batch.ts"
import { type BidiHandler, collect, EchoClient, metadata, unary } from "./support/echo.ts"
import { kindsAndDials, listen, tunnelPair } from "./support/network.ts"

const { status: Code } = grpc
const sizes = [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 100_000, 1_048_576, 3_900_000]

const patterned = (size: number): Buffer => Buffer.alloc(size, "0123456789abcdef-")

describe.each(kindsAndDials)("messages over a %s tunnel dialled over %s", (kind, dialled) => {
  it.live("of every size around the chunk and the window arrive whole, both ways", () =>
    Effect.gen(function* () {
      const { client } = yield* tunnelPair(kind, { with: dialled })
      for (const size of sizes) {
        const answer = yield* Effect.promise(() => unary(client, patterned(size)))
        expect(answer.code, `${size} bytes`).toBe(Code.OK)
        expect(answer.value?.equals(patterned(size)), `${size} bytes`).toBe(true)
      }
    }).pipe(Effect.scoped)
  )

  it.live("arrive whole with the smallest window there is", () =>
    Effect.gen(function* () {
      const { client } = yield* tunnelPair(kind, { with: dialled, tunnel: { window: 1 } })
      const answer = yield* Effect.promise(() => unary(client, Buffer.from("a longer text")))
      expect(answer.value?.toString()).toBe("a longer text")
    }).pipe(Effect.scoped)
  )

  it.live("over the limit fail their call with RESOURCE_EXHAUSTED, from either side", () =>
    Effect.gen(function* () {
      const { client } = yield* tunnelPair(kind, { with: dialled, tunnel: { maxMessageSize: 1000 } })
      expect((yield* Effect.promise(() => unary(client, patterned(1001)))).code).toBe(Code.RESOURCE_EXHAUSTED)
      expect((yield* Effect.promise(() => unary(client, patterned(1000)))).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )

  it.live("of a hundred calls at the same time do not get mixed up", () =>
    Effect.gen(function* () {
      const { channel, client } = yield* tunnelPair(kind, { with: dialled })
      const calls = Array.from({ length: 100 }, (_, index) => patterned(1 + index * 977).fill(index, 0, 1))
      const answers = yield* Effect.promise(() => Promise.all(calls.map((request) => unary(client, request))))
      expect(answers.every((answer, index) => answer.value?.equals(calls[index] as Buffer))).toBe(true)
      expect(yield* channel.stats).toMatchObject({ opened: 100, cancelled: 0 })
    }).pipe(Effect.scoped)
  )

  it.live("that nobody reads hold up their own stream and no other", () =>
    Effect.gen(function* () {
      const Bidi: BidiHandler = () => undefined
      const { client } = yield* tunnelPair(kind, { with: dialled, handlers: { Bidi } })
      const stalled = client.Bidi()
      stalled.on("error", () => undefined)
      for (let count = 0; count < 10; count++) stalled.write(patterned(40_000))
      const answers = yield* Effect.promise(() =>
        Promise.all(Array.from({ length: 20 }, () => unary(client, patterned(100_000))))
      )
      expect(answers.every((answer) => answer.code === Code.OK)).toBe(true)
      stalled.cancel()
    }).pipe(Effect.scoped)
  )
})

describe("a grpc-js client that is there already", () => {
  it.live("carries a tunnel too, with grpc-js' own retry buffer, and stays open after it", () =>
    Effect.gen(function* () {
      const { listening } = yield* tunnelPair("forward")
      const own = new grpc.Client(listening.address, grpc.credentials.createInsecure())
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tunnel = yield* openForward({ client: own })
          const client = tunnel.client(EchoClient)
          const requests = Array.from({ length: 20 }, (_, index) => patterned(50_000 + index))
          const answers = yield* Effect.promise(() =>
            Promise.all(requests.map((request) => unary(client, request)))
          )
          expect(answers.every((answer, index) => answer.value?.equals(requests[index] as Buffer))).toBe(true)
        })
      )
      const tunnel = yield* openForward({ client: own })
      expect(tunnel.kind).toBe("forward")
    }).pipe(Effect.scoped)
  )

  it.live("carries a tunnel whose announcement of batches was lost on the way, frame by frame", () =>
    Effect.gen(function* () {
      const { listening } = yield* tunnelPair("forward")
      const strip: grpc.Interceptor = (options, next) =>
        new grpc.InterceptingCall(next(options), {
          start: (headers, listener, start) => {
            headers.remove(batchKey)
            start(headers, listener)
          }
        })
      const own = new grpc.Client(listening.address, grpc.credentials.createInsecure(), {
        interceptors: [strip]
      })
      const tunnel = yield* openForward({ client: own })
      const client = tunnel.client(EchoClient)
      const requests = Array.from({ length: 20 }, (_, index) => patterned(50_000 + index))
      const answers = yield* Effect.promise(() =>
        Promise.all(requests.map((request) => unary(client, request)))
      )
      expect(answers.every((answer, index) => answer.value?.equals(requests[index] as Buffer))).toBe(true)
    }).pipe(Effect.scoped)
  )
})

describe("a handler that answers more than is read", () => {
  it.live("is slowed down: its writes wait for the reader", () =>
    Effect.gen(function* () {
      let written = 0
      const { client } = yield* tunnelPair("forward", {
        handlers: {
          ServerStream: (call) => {
            const more = (): void => {
              if (written++ < 1000) call.write(patterned(10_000), more)
              else call.end()
            }
            more()
          }
        }
      })
      const call = client.ServerStream(Buffer.from("q"))
      call.on("error", () => undefined)
      yield* Effect.promise(() => new Promise((resolve) => call.once("readable", resolve)))
      // Another call's whole round trip passes meanwhile.
      yield* Effect.promise(() => unary(client, Buffer.from("x")))
      expect(written).toBeLessThan(100)
      const { code } = yield* Effect.promise(() => collect(call))
      expect(code).toBe(Code.OK)
      expect(written).toBe(1001)
    }).pipe(Effect.scoped)
  )
})

describe("a service loaded from a .proto file", () => {
  it.live("works over a tunnel as it does over a connection", () =>
    Effect.gen(function* () {
      const loaded = grpc.loadPackageDefinition(
        protoLoader.loadSync(new URL("./fixtures/greeter.proto", import.meta.url).pathname)
      ) as unknown as {
        readonly curfew: { readonly test: { readonly Greeter: grpc.ServiceClientConstructor } }
      }
      const { Greeter } = loaded.curfew.test
      const handlers = {
        greet: (
          call: grpc.ServerUnaryCall<{ name: string }, { text: string }>,
          callback: grpc.sendUnaryData<{ text: string }>
        ) => callback(null, { text: `Hello, ${call.request.name}` })
      }
      const services = Services.empty.pipe(Services.add(Greeter.service, handlers))
      const service = yield* TunnelService.make({ services })
      const { address } = yield* listen(service.addTo)
      const tunnel = yield* openForward({ address, credentials: grpc.credentials.createInsecure() })
      const stub = tunnel.client(Greeter)
      const text = yield* Effect.promise(
        () =>
          new Promise((resolve, reject) =>
            stub["greet"]?.({ name: "you" }, (error: Error | null, answer: { text: string }) =>
              error ? reject(error) : resolve(answer.text)
            )
          )
      )
      expect(text).toBe("Hello, you")
    }).pipe(Effect.scoped)
  )
})

describe("client interceptors", () => {
  it.live("run over a tunnel", () =>
    Effect.gen(function* () {
      const { channel } = yield* tunnelPair("forward")
      const interceptor: grpc.Interceptor = (options, next) =>
        new grpc.InterceptingCall(next(options), {
          start: (headers, listener, start) => {
            headers.set("tail-added", "yes")
            start(headers, listener)
          }
        })
      const client = new EchoClient("tunnel", grpc.credentials.createInsecure(), {
        channelOverride: channel.grpc,
        interceptors: [interceptor]
      })
      const answer = yield* Effect.promise(() => unary(client, Buffer.from("q"), { metadata: metadata() }))
      expect(answer.trailers?.get("tail-added")).toEqual(["yes"])
    }).pipe(Effect.scoped)
  )
})
