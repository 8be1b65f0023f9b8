/** What is on the wire, and what is observed, when an answer does not go the usual way. */
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { BidiHandler, Handlers, ServerStreamHandler, UnaryHandler } from "./support/echo.ts"
import { metadata } from "./support/echo.ts"
import { type CloseFrame, serverEnd, statusFromWire } from "./support/engines.ts"

const { status: Code } = grpc
const path = (method: keyof Handlers): string => `/curfew.test.Echo/${method}`

const outcome = (frame: CloseFrame) => {
  const status = statusFromWire(frame.trailers, frame.status)
  return "code" in status
    ? { code: status.code, details: status.details }
    : { code: -1, details: status.detail }
}

/** A call with one request. */
const asked = (handlers: Partial<Handlers>, method: keyof Handlers) =>
  Effect.gen(function* () {
    const end = yield* serverEnd({ handlers })
    end.open(1, path(method))
    end.send({ _tag: "Message", id: 1, size: 1, data: Buffer.from("q") })
    end.send({ _tag: "HalfClose", id: 1 })
    return end
  })

const destroyed = { code: Code.CANCELLED, details: "The handler destroyed the call and did not answer it" }

describe("a call that its handler destroys without an error", () => {
  it.live("and only writes to is CANCELLED", () =>
    Effect.gen(function* () {
      const ServerStream: ServerStreamHandler = (call) => void call.destroy()
      const end = yield* asked({ ServerStream }, "ServerStream")
      expect(outcome(yield* end.closeOf(1))).toEqual(destroyed)
    }).pipe(Effect.scoped)
  )

  it.live("and reads and writes is CANCELLED once the handler's promise has settled", () =>
    Effect.gen(function* () {
      let leave: (() => void) | undefined
      const Bidi = ((call: Parameters<BidiHandler>[0]) => {
        call.destroy()
        return new Promise<void>((resolve) => {
          leave = resolve
        })
      }) as BidiHandler
      const end = yield* asked({ Bidi }, "Bidi")
      yield* Effect.repeat(Effect.yieldNow, { until: () => leave !== undefined })
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      expect(end.written.some((frame) => frame._tag === "CloseStream")).toBe(false)
      leave?.()
      expect(outcome(yield* end.closeOf(1))).toEqual(destroyed)
    }).pipe(Effect.scoped)
  )

  it.live("keeps the answer that it was given before, or is given by the promise's end", () =>
    Effect.gen(function* () {
      const ServerStream: ServerStreamHandler = (call) => {
        call.once("finish", () => call.destroy())
        call.end()
      }
      const early = yield* asked({ ServerStream }, "ServerStream")
      expect(outcome(yield* early.closeOf(1)).code).toBe(Code.OK)
      // Leaving the loop destroys the call, as Node has it.
      const Bidi = (async (call: Parameters<BidiHandler>[0]) => {
        for await (const _message of call) break
        call.end()
      }) as BidiHandler
      const late = yield* asked({ Bidi }, "Bidi")
      expect(outcome(yield* late.closeOf(1)).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )

  it.live("because the peer cancelled makes no late write", () =>
    Effect.gen(function* () {
      const end = yield* asked({ ServerStream: () => undefined }, "ServerStream")
      end.send({ _tag: "Cancel", id: 1 })
      yield* Effect.repeat(Effect.yieldNow, {
        until: () => end.events.some((event) => event._tag === "StreamClosed")
      })
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      expect(end.events.some((event) => event._tag === "LateWrite")).toBe(false)
    }).pipe(Effect.scoped)
  )
})

describe("the status that is observed", () => {
  it.live.each([
    ["trailers that cannot be carried", metadata({ "k-bin": Buffer.from([0xff]) }), Code.INTERNAL],
    ["trailers over the limit", metadata({ k: "x".repeat(70_000) }), Code.RESOURCE_EXHAUSTED]
  ] as const)("is the one on the wire, for %s", ([_what, trailers, code]) =>
    Effect.gen(function* () {
      const Unary: UnaryHandler = (call, callback) => callback(null, call.request, trailers)
      const end = yield* asked({ Unary }, "Unary")
      const closed = outcome(yield* end.closeOf(1))
      yield* Effect.repeat(Effect.yieldNow, {
        until: () => end.events.some((event) => event._tag === "StreamClosed")
      })
      expect(closed.code).toBe(code)
      expect(end.events.find((event) => event._tag === "StreamClosed")).toMatchObject(closed)
    }).pipe(Effect.scoped)
  )
})

describe("headers that a handler has sent", () => {
  it.live("come before the status of a call that ends in the same turn", () =>
    Effect.gen(function* () {
      const Bidi: BidiHandler = (call) => call.sendMetadata(metadata({ served: "yes" }))
      const end = yield* serverEnd({ handlers: { Bidi } })
      end.open(1, path("Bidi"))
      end.send({ _tag: "Unset", id: 1 })
      expect(outcome(yield* end.closeOf(1)).code).toBe(Code.INTERNAL)
      expect(end.written.map((frame) => frame._tag)).toEqual(["Settings", "ResponseHeaders", "CloseStream"])
    }).pipe(Effect.scoped)
  )

  it.live("go nowhere when the caller has cancelled: nobody listens", () =>
    Effect.gen(function* () {
      const Bidi: BidiHandler = (call) => call.sendMetadata(metadata({ served: "yes" }))
      const end = yield* serverEnd({ handlers: { Bidi } })
      end.open(1, path("Bidi"))
      end.send({ _tag: "Cancel", id: 1 })
      end.call(2, "next")
      yield* end.closeOf(2)
      expect(end.written.some((frame) => frame.id === 1)).toBe(false)
    }).pipe(Effect.scoped)
  )
})
