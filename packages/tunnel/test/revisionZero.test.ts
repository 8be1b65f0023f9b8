/** Streams without flow control: towards peers that do not negotiate, and where it is switched off. */
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { tunnelId } from "../src/internal/frame.ts"
import { unary } from "./support/echo.ts"
import { clientEnd, serverEnd, statusFromWire } from "./support/engines.ts"
import { kinds, tunnelPair } from "./support/network.ts"

const unaryPath = "/curfew.test.Echo/Unary"
const bidiPath = "/curfew.test.Echo/Bidi"

describe("a tunnel client without flow control", () => {
  it.live.each([
    ["does not negotiate, and is not waited for", { negotiates: false }],
    ["names no revision", { settings: { _tag: "Settings", id: tunnelId, revisions: [], window: 0 } }],
    ["speaks nothing else", { settings: { _tag: "Settings", id: tunnelId, revisions: [0, 7], window: 0 } }],
    ["would have it, but it is switched off here", { flowControl: false }]
  ] as const)("opens such streams to a peer that %s", ([_what, options]) =>
    Effect.gen(function* () {
      const end = yield* clientEnd(options)
      end.client.Unary(Buffer.alloc(100_000), new grpc.Metadata(), {}, () => undefined)
      yield* end.sent(1, "HalfClose")
      // 100,000 bytes without a window update, from a window of nothing.
      expect(end.written[0]).toMatchObject({ _tag: "NewStream", revision: 0 })
      const sizes = end.written.flatMap((frame) => ("data" in frame ? [frame.data.length] : []))
      expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(100_000)
      expect(Math.max(...sizes)).toBe(16_384)
    }).pipe(Effect.scoped)
  )

  it.live("announces no bytes, and takes more than a window of them", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd({ negotiates: false })
      const answer = new Promise<number>((resolve, reject) => {
        end.client.Unary(Buffer.from("x"), new grpc.Metadata(), {}, (error, value) =>
          error ? reject(error) : resolve(value?.length ?? -1)
        )
      })
      yield* end.sent(1, "HalfClose")
      end.send({ _tag: "Message", id: 1, size: 200_000, data: Buffer.alloc(150_000) })
      end.send({ _tag: "MoreData", id: 1, data: Buffer.alloc(50_000) })
      end.send({ _tag: "CloseStream", id: 1, status: undefined, trailers: undefined })
      expect(yield* Effect.promise(() => answer)).toBe(200_000)
      expect(end.written.some((frame) => frame._tag === "WindowUpdate")).toBe(false)
    }).pipe(Effect.scoped)
  )
})

describe("a tunnel server without flow control", () => {
  it.live("says so in its settings when it is switched off", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ flowControl: false })
      expect(yield* end.next((frame): frame is never => frame._tag === "Settings")).toMatchObject({
        revisions: [0]
      })
    }).pipe(Effect.scoped)
  )

  it.live("answers such a stream beside one with windows, whatever was negotiated", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      end.call(1, "with")
      end.open(2, unaryPath, { revision: 0, window: 0 })
      end.send({ _tag: "Message", id: 2, size: 100_000, data: Buffer.alloc(100_000, 1) })
      end.send({ _tag: "HalfClose", id: 2 })
      yield* end.closeOf(1)
      yield* end.closeOf(2)
      const answered = end.written.flatMap((frame) =>
        frame.id === 2 && "data" in frame ? [frame.data.length] : []
      )
      expect(answered.reduce((sum, size) => sum + size, 0)).toBe(100_000)
    }).pipe(Effect.scoped)
  )

  it.live("ends a stream whose reader has stopped at the bytes that may be unread, and no other", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ maxUnread: 1_000, handlers: { Bidi: (call) => void call.pause() } })
      end.open(1, bidiPath, { revision: 0 })
      for (let count = 0; count < 40; count++)
        end.send({ _tag: "Message", id: 1, size: 900, data: Buffer.alloc(900) })
      const { status, trailers } = yield* end.closeOf(1)
      expect(statusFromWire(trailers, status)).toMatchObject({ code: grpc.status.RESOURCE_EXHAUSTED })
      end.call(2, "other")
      yield* end.closeOf(2)
      expect(end.ended()).toBeUndefined()
    }).pipe(Effect.scoped)
  )
})

describe.each(kinds)("two ends of a %s tunnel", (kind) => {
  it.live.each(["dialling", "dialled"] as const)(
    "speak without flow control when the one that is %s has none",
    (which) =>
      Effect.gen(function* () {
        const { client } = yield* tunnelPair(kind, { [which]: { flowControl: false } })
        const answer = yield* Effect.promise(() => unary(client, Buffer.alloc(300_000, 3)))
        expect(answer.code).toBe(grpc.status.OK)
        expect(answer.value?.length).toBe(300_000)
      }).pipe(Effect.scoped)
  )
})
