import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { encodeFrame } from "../src/internal/encode.ts"
import { allExtensions, extensionsKey, readExtensions } from "../src/internal/extensions.ts"
import { audited } from "./support/audit.ts"
import { type BidiHandler, collect, metadata, type UnaryHandler, unary } from "./support/echo.ts"
import { clientEnd, serverEnd, statusFromWire } from "./support/engines.ts"
import { type Kind, kinds, tunnelPair } from "./support/network.ts"

const { status: Code } = grpc

const drain = { _tag: "Drain", id: -1 } as const

/** A handler that answers when it is told to. */
const held = () => {
  const waiting: Array<() => void> = []
  const Unary: UnaryHandler = (call, callback) => void waiting.push(() => callback(null, call.request))
  return {
    Unary,
    started: (count: number) => Effect.repeat(Effect.yieldNow, { until: () => waiting.length >= count }),
    answer: () => {
      for (const answer of waiting.splice(0)) answer()
    }
  }
}

describe("the announcement of a drain", () => {
  it("is these bytes, in both directions", () => {
    expect(encodeFrame(drain).toString("hex")).toBe("08ffffffffffffffffff017a00")
  })

  it("is agreed on in the outer headers: what both ends name, and nothing that is not known", () => {
    const named = (value: string) => [...readExtensions(metadata({ [extensionsKey]: value }))]
    expect(named("more, drain ,,later")).toEqual(["drain"])
    expect(named("on")).toEqual([])
    expect([...readExtensions(new grpc.Metadata())]).toEqual([])
    expect([...allExtensions]).toContain("drain")
  })

  it.live("leaves a serving end for a peer that agreed on it, and for no other", () =>
    Effect.gen(function* () {
      const told = yield* serverEnd({ extensions: ["drain"] })
      expect(yield* told.handle.drain()).toBe(true)
      expect(told.written.map((frame) => frame._tag)).toEqual(["Settings", "Drain"])
      const other = yield* serverEnd()
      expect(yield* other.handle.drain()).toBe(true)
      expect(other.written.map((frame) => frame._tag)).toEqual(["Settings"])
    }).pipe(Effect.scoped)
  )

  it.live("leaves a calling end once, however often it drains", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd({ extensions: ["drain"] })
      expect(yield* end.channel.drain()).toBe(true)
      expect(yield* end.channel.drain()).toBe(true)
      expect(end.written).toEqual([drain])
      expect(end.events.filter((event) => event._tag === "TunnelDraining")).toMatchObject([
        { by: "here", side: "client" }
      ])
    }).pipe(Effect.scoped)
  )

  it.live("of the peer ends the calling end's new calls and none that run", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd({ extensions: ["drain"] })
      const running = unary(end.client, Buffer.from("q"))
      yield* end.sent(1, "HalfClose")
      end.send(drain)
      end.send(drain)
      expect(yield* end.channel.draining).toBe(true)
      expect(yield* end.channel.awaitDraining).toBe("peer")
      const late = yield* Effect.promise(() => unary(end.client, Buffer.from("q")))
      expect(late).toMatchObject({
        code: Code.UNAVAILABLE,
        details: "The tunnel is draining: make the call over another one"
      })
      end.send({ _tag: "Message", id: 1, size: 2, data: Buffer.from("ok") })
      end.send({ _tag: "CloseStream", id: 1, trailers: undefined, status: undefined })
      expect((yield* Effect.promise(() => running)).code).toBe(Code.OK)
      expect(end.written.filter((frame) => frame._tag === "NewStream").length).toBe(1)
      expect(end.events.filter((event) => event._tag === "TunnelDraining")).toMatchObject([{ by: "peer" }])
    }).pipe(Effect.scoped)
  )

  it.live("of the peer is known to the serving end, which goes on", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ extensions: ["drain"] })
      end.send(drain)
      expect(yield* end.handle.awaitDraining).toBe("peer")
      end.call(1, "after all")
      expect((yield* end.closeOf(1)).status).toBeUndefined()
    }).pipe(Effect.scoped)
  )

  it.live("means nothing from a peer that has not agreed on it", () =>
    Effect.gen(function* () {
      const server = yield* serverEnd()
      server.send(drain)
      const client = yield* clientEnd()
      client.send(drain)
      expect(yield* server.handle.draining).toBe(false)
      expect(yield* client.channel.draining).toBe(false)
      expect([...server.events, ...client.events].some((event) => event._tag === "TunnelDraining")).toBe(
        false
      )
    }).pipe(Effect.scoped)
  )

  it.live("on a stream's id is a frame of no kind, and costs that stream", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ extensions: ["drain"] })
      end.open(1, "/curfew.test.Echo/Bidi")
      end.send({ _tag: "Drain", id: 1 })
      const closed = yield* end.closeOf(1)
      expect(statusFromWire(closed.trailers, closed.status)).toMatchObject({ code: Code.INTERNAL })
      expect(yield* end.handle.draining).toBe(false)
    }).pipe(Effect.scoped)
  )
})

describe("a serving end that drains", () => {
  it.live("refuses new streams, counts their ids as seen, and waits for what runs to be written", () =>
    Effect.gen(function* () {
      const handler = held()
      const end = yield* serverEnd({ handlers: { Unary: handler.Unary }, extensions: ["drain"] })
      end.call(1, "first")
      yield* handler.started(1)
      expect(yield* end.handle.drain(0)).toBe(false)
      end.call(2, "late")
      const refused = yield* end.closeOf(2)
      expect(statusFromWire(refused.trailers, refused.status)).toMatchObject({ code: Code.UNAVAILABLE })
      // The refusal's own write ends first.
      yield* Effect.yieldNow
      end.flow(false)
      handler.answer()
      const drained = yield* Effect.forkChild(end.handle.drain())
      yield* end.closeOf(1)
      expect(drained.pollUnsafe()).toBeUndefined()
      end.flow(true)
      expect(yield* Fiber.join(drained)).toBe(true)
      expect(end.ended()).toBeUndefined()
    }).pipe(Effect.scoped)
  )

  it.live("is done waiting when its tunnel ends", () =>
    Effect.gen(function* () {
      const handler = held()
      const end = yield* serverEnd({ handlers: { Unary: handler.Unary } })
      end.call(1, "first")
      yield* handler.started(1)
      const drained = yield* Effect.forkChild(end.handle.drain())
      yield* Effect.yieldNow
      end.end({ code: 14, details: "cut" })
      expect(yield* Fiber.join(drained)).toBe(true)
    }).pipe(Effect.scoped)
  )
})

describe("an answer that was handed over before its tunnel was closed at the same end", () => {
  const closing = (options: Parameters<typeof serverEnd>[0], window = 65_536) =>
    Effect.gen(function* () {
      const end = yield* serverEnd(options)
      // The writer is busy with a refusal while the answer is handed over.
      end.flow(false)
      end.open(1, "/curfew.test.Echo/Nothing")
      yield* end.closeOf(1)
      end.open(2, "/curfew.test.Echo/Unary", { window })
      end.send({ _tag: "Message", id: 2, size: 3, data: Buffer.from("yes") })
      end.send({ _tag: "HalfClose", id: 2 })
      const closed = yield* Effect.forkChild(end.handle.close())
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      expect(end.written.some(({ id }) => id === 2)).toBe(false)
      end.flow(true)
      const close = yield* end.closeOf(2)
      yield* Fiber.join(closed)
      return { end, close }
    })

  it.live("leaves, and is not replaced", () =>
    Effect.gen(function* () {
      const { close, end } = yield* closing({})
      expect(close.status).toBeUndefined()
      const own = end.written.filter(({ id }) => id === 2).map((frame) => frame._tag)
      expect(own).toEqual(["ResponseHeaders", "Message", "CloseStream"])
      expect(end.events.some((event) => event._tag === "StreamCancelled")).toBe(false)
    }).pipe(Effect.scoped)
  )

  it.live("is UNAVAILABLE when the peer has given no credit for it", () =>
    Effect.gen(function* () {
      const { close } = yield* closing({}, 2)
      expect(statusFromWire(close.trailers, close.status)).toMatchObject({ code: Code.UNAVAILABLE })
    }).pipe(Effect.scoped)
  )
})

describe.each(kinds)("draining a %s tunnel", (kind: Kind) => {
  it.live("at the calling end waits for its calls, and then closes with nothing lost", () =>
    Effect.gen(function* () {
      const [codes, findings] = yield* audited(
        Effect.scoped(
          Effect.gen(function* () {
            const handler = held()
            const { channel, client } = yield* tunnelPair(kind, { handlers: { Unary: handler.Unary } })
            const running = ["a", "b", "c"].map((text) => unary(client, Buffer.from(text)))
            yield* handler.started(3)
            expect(yield* channel.drain("10 millis")).toBe(false)
            handler.answer()
            expect(yield* channel.drain()).toBe(true)
            yield* channel.close()
            return (yield* Effect.promise(() => Promise.all(running))).map(({ code }) => code)
          })
        )
      )
      expect(codes).toEqual([Code.OK, Code.OK, Code.OK])
      expect(findings).toMatchObject({ liveFibers: 0, errorLogs: [] })
    })
  )

  it.live("is known to the stub: its channel is no longer ready, and who waits hears of it", () =>
    Effect.gen(function* () {
      const { channel } = yield* tunnelPair(kind)
      const { grpc: over } = channel
      const { READY, TRANSIENT_FAILURE } = grpc.connectivityState
      const watch = (state: grpc.connectivityState) =>
        new Promise<string>((resolve) =>
          over.watchConnectivityState(state, Number.POSITIVE_INFINITY, (error) =>
            resolve(error?.message ?? "changed")
          )
        )
      const first = watch(READY)
      yield* channel.drain()
      expect(yield* Effect.promise(() => first)).toBe("changed")
      expect(over.getConnectivityState(false)).toBe(TRANSIENT_FAILURE)
      const second = watch(TRANSIENT_FAILURE)
      yield* Effect.yieldNow
      yield* channel.close()
      // The watch belongs to the tunnel, and is over with it.
      expect(yield* Effect.promise(() => second)).toMatch(/changed|closed/)
    }).pipe(Effect.scoped)
  )
})

describe("a service that drains", () => {
  it.live("tells the other ends of its forward tunnels, and a stream in flight ends as it would", () =>
    Effect.gen(function* () {
      const Bidi: BidiHandler = (call) => {
        call.on("data", (part: Buffer) => call.write(part))
        call.on("end", () => call.end())
      }
      const { channel, client, events, service } = yield* tunnelPair("forward", { handlers: { Bidi } })
      const call = client.Bidi()
      const collected = collect(call)
      call.write(Buffer.from("one"))
      yield* Effect.promise(() => new Promise((resolve) => call.once("data", resolve)))
      const drained = yield* Effect.forkChild(service.drain())
      expect(yield* channel.awaitDraining).toBe("peer")
      call.write(Buffer.from("two"))
      call.end()
      const { code, messages } = yield* Effect.promise(() => collected)
      expect([code, messages.map(String)]).toEqual([Code.OK, ["one", "two"]])
      expect(yield* Fiber.join(drained)).toBe(true)
      yield* channel.close(CancelReason.Requested({ message: "drained" }))
      expect(events.filter((event) => event._tag === "TunnelDraining")).toMatchObject([
        { by: "here", side: "server" },
        { by: "peer", side: "client" }
      ])
    }).pipe(Effect.scoped)
  )

  it.live("does not pick a reverse tunnel that drains", () =>
    Effect.gen(function* () {
      const { service } = yield* tunnelPair("reverse")
      const [first] = yield* service.reverse.list
      yield* first?.drain() ?? Effect.void
      expect((yield* service.reverse.pick())._tag).toBe("None")
    }).pipe(Effect.scoped)
  )
})
