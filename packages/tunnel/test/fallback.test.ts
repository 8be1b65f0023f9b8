/** One handler for every method that was not added, and the figures of a tunnel that somebody does not read. */
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { openForward, Services, type TunnelChannel, TunnelService } from "../src/index.ts"
import { listen } from "./support/network.ts"

const bytes = (value: Buffer): Buffer => value
const paths: Array<string> = []

/** Echoes at `/any.Thing/Echo`, and never reads otherwise. */
const services = Services.empty.pipe(
  Services.fallback((call) => {
    paths.push(call.getPath())
    if (!call.getPath().endsWith("Echo")) return
    call.on("data", (message: Buffer) => call.write(message))
    call.on("end", () => call.end())
  }),
  Services.add(
    {
      Own: {
        path: "/own.Service/Own",
        requestStream: false,
        responseStream: false,
        requestSerialize: bytes,
        requestDeserialize: bytes,
        responseSerialize: bytes,
        responseDeserialize: bytes
      }
    },
    { Own: (_: unknown, respond: grpc.sendUnaryData<Buffer>) => respond(null, Buffer.from("own")) }
  )
)

const tunnel: Effect.Effect<TunnelChannel, unknown, Scope.Scope> = Effect.gen(function* () {
  const service = yield* TunnelService.make({ services })
  const { address } = yield* listen(service.addTo)
  return yield* openForward({ address, credentials: grpc.credentials.createInsecure() })
})

const unary = (client: grpc.Client, path: string, message: string) =>
  Effect.callback<string>((resume) => {
    client.makeUnaryRequest(path, bytes, bytes, Buffer.from(message), (error, answer) =>
      resume(Effect.succeed(error === null ? `${answer}` : error.message))
    )
  })

describe("the services of a tunnel with a fallback", () => {
  it.live("give it the methods that were not added, as bytes, and leave the others to their handlers", () =>
    Effect.gen(function* () {
      const client = (yield* tunnel).client(grpc.Client)
      expect(yield* unary(client, "/any.Thing/Echo", "hello")).toBe("hello")
      expect(yield* unary(client, "/other.Thing/Echo", "")).toBe("")
      expect(yield* unary(client, "/own.Service/Own", "")).toBe("own")
      expect(paths).toEqual(["/any.Thing/Echo", "/other.Thing/Echo"])
    }).pipe(Effect.scoped)
  )
})

describe("the figures of a tunnel", () => {
  it.live("tell what was carried, what is held, and which streams have no window", () =>
    Effect.gen(function* () {
      const channel = yield* tunnel
      const client = channel.client(grpc.Client)
      expect(yield* unary(client, "/any.Thing/Echo", "hello")).toBe("hello")
      expect(yield* channel.stats).toMatchObject({
        sentBytes: 5,
        receivedBytes: 5,
        held: 0,
        blocked: 0
      })
      const unread = client.makeBidiStreamRequest("/any.Thing/Stall", bytes, bytes)
      unread.on("error", () => undefined)
      unread.write(Buffer.alloc(100_000))
      // The peer allows 65,536 ahead, and its handler does not read.
      const stalled = Effect.repeat(Effect.andThen(Effect.yieldNow, channel.stats), {
        until: (stats) => stats.blocked === 1
      })
      expect(yield* stalled).toMatchObject({ sentBytes: 5 + 65_536, held: 100_000 - 65_536 })
      unread.cancel()
      const over = Effect.repeat(Effect.andThen(Effect.yieldNow, channel.stats), {
        until: (stats) => stats.streams === 0
      })
      expect(yield* over).toMatchObject({ held: 0, blocked: 0 })
    }).pipe(Effect.scoped)
  )
})
