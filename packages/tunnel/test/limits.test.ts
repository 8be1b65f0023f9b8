import { CleanupBudget } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as fc from "fast-check"
import { openForward, Services, serveReverse, type TunnelOptions, TunnelService } from "../src/index.ts"
import { Assembler } from "../src/internal/assembler.ts"
import { Encoder } from "../src/internal/encode.ts"
import { Held } from "../src/internal/held.ts"
import { limitsOf } from "../src/internal/limits.ts"
import { metadataToWire } from "../src/internal/metadata.ts"
import { SendWindow } from "../src/internal/window.ts"
import { Outbound, Outbox } from "../src/internal/writer.ts"
import {
  type BidiHandler,
  collect,
  definition,
  EchoClient,
  implementation,
  metadata,
  type UnaryHandler,
  unary
} from "./support/echo.ts"
import { type CloseFrame, clientEnd, serverEnd, statusFromWire } from "./support/engines.ts"
import { listen } from "./support/network.ts"

const { status: Code } = grpc
const bidi = "/curfew.test.Echo/Bidi"
const unaryPath = "/curfew.test.Echo/Unary"

const outcome = (frame: CloseFrame) => {
  const status = statusFromWire(frame.trailers, frame.status)
  return "code" in status
    ? { code: status.code, details: status.details }
    : { code: -1, details: status.detail }
}

const unread: BidiHandler = () => undefined

describe("every limit of a tunnel", () => {
  it("is finite, by default and when it is set to infinity", () => {
    const finite = (options: TunnelOptions) =>
      Object.values(limitsOf(options)).filter((value) => typeof value === "number")
    expect(finite({}).every(Number.isFinite)).toBe(true)
    expect(limitsOf({})).toMatchObject({ maxBuffered: 64 * 1024 * 1024, maxHandlers: 1024, maxStreams: 1024 })
    const { POSITIVE_INFINITY: most } = Number
    const infinite = {
      maxBuffered: most,
      maxHandlers: most,
      maxStreams: most,
      maxMessageSize: most,
      window: most
    }
    expect(finite(infinite).every(Number.isFinite)).toBe(true)
  })

  it.live.each(
    (
      [
        "maxBuffered",
        "maxHandlers",
        "maxMessageSize",
        "maxMetadataSize",
        "maxStreams",
        "maxUnread",
        "window"
      ] as const
    ).flatMap((name) => [0, -1, 0.5, Number.NaN].map((value) => [name, value] as const))
  )("is looked at before any work starts: %s of %s", ([name, value]) =>
    Effect.gen(function* () {
      const options = { [name]: value }
      const to = { address: "127.0.0.1:1", credentials: grpc.credentials.createInsecure() }
      const illegal = { _tag: "IllegalArgument", argument: `the ${name} of a tunnel`, value }
      for (const attempt of [
        openForward(to, options),
        serveReverse(to, Services.empty, options),
        TunnelService.make(options)
      ]) {
        const exit = yield* Effect.exit(
          Effect.scoped(attempt as Effect.Effect<unknown, unknown, Scope.Scope>)
        )
        expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toMatchObject(illegal)
      }
    })
  )

  it("on held bytes leaves room for the largest message there may be", () => {
    expect(limitsOf({ maxMessageSize: 100_000_000 }).maxBuffered).toBe(200_000_000)
  })
})

describe("the bytes that a tunnel holds", () => {
  it("are what its assemblers hold, whatever comes, is read and is dropped", () => {
    const event = fc.oneof(
      fc.record({ at: fc.nat(2), begin: fc.nat(50), piece: fc.nat(50) }),
      fc.record({ at: fc.nat(2), more: fc.nat(50) }),
      fc.record({ at: fc.nat(2), read: fc.constant(true) }),
      fc.record({ at: fc.nat(2), drop: fc.constant(true) })
    )
    fc.assert(
      fc.property(fc.array(event, { maxLength: 80 }), (events) => {
        const tunnel = new Held()
        const streams = [0, 1, 2].map(() => new Assembler(1000, tunnel))
        for (const it of events) {
          const stream = streams[it.at] as Assembler
          const step =
            "begin" in it
              ? stream.begin(it.begin, Buffer.alloc(Math.min(it.begin, it.piece)))
              : "more" in it
                ? stream.more(Buffer.alloc(it.more))
                : "read" in it
                  ? stream.read()
                  : undefined
          if (step === undefined || step._tag === "Fault") stream.drop()
          expect(tunnel.bytes).toBe(streams.reduce((sum, { held }) => sum + held, 0))
          expect(Math.min(...streams.map(({ held }) => held))).toBeGreaterThanOrEqual(0)
        }
        for (const stream of streams) stream.drop()
        expect(tunnel.bytes).toBe(0)
      })
    )
  })

  it("leave a quarter of the limit to be set aside for messages, which is given back when they are there or dropped", () => {
    const tunnel = new Held(4000)
    const streams = [0, 1, 2].map(() => new Assembler(1000, tunnel))
    const [one, two, three] = streams as [Assembler, Assembler, Assembler]
    for (const stream of [one, two]) stream.begin(500, Buffer.alloc(1))
    expect(tunnel.setAside(1)).toBe(false)
    // Without room it grows with what comes, and is as whole in the end.
    three.read()
    three.begin(900, Buffer.alloc(100, 1))
    for (let count = 0; count < 7; count++) three.more(Buffer.alloc(100, 1))
    expect(three.more(Buffer.alloc(100, 1))).toMatchObject({ message: Buffer.alloc(900, 1) })
    one.more(Buffer.alloc(499))
    two.drop()
    expect(tunnel.setAside(1000)).toBe(true)
  })

  it("are what its outbox holds, until it is sent or forgotten", () => {
    const tunnel = new Held()
    const outbox = new Outbox(tunnel)
    const [sent, forgotten] = [1, 2].map((id) => new Outbound(new SendWindow(30_000, 1), id))
    if (sent === undefined || forgotten === undefined) throw new Error("no streams")
    for (const stream of [sent, forgotten]) outbox.message(stream, Buffer.alloc(40_000), () => undefined)
    expect(tunnel.bytes).toBe(80_000)
    outbox.fill(new Encoder(), [])
    expect(tunnel.bytes).toBe(20_000)
    outbox.discard(forgotten)
    expect(tunnel.bytes).toBe(10_000)
    expect(sent.queued).toBe(10_000)
  })

  it.live("end the call that holds most of those that wait for a reader, and no other", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ maxBuffered: 1000, handlers: { Bidi: unread } })
      for (const id of [1, 2, 3]) end.open(id, bidi)
      end.send({ _tag: "Message", id: 1, size: 300, data: Buffer.alloc(300) })
      end.send({ _tag: "Message", id: 2, size: 700, data: Buffer.alloc(600) })
      end.send({ _tag: "Message", id: 3, size: 101, data: Buffer.alloc(101) })
      expect(outcome(yield* end.closeOf(2))).toEqual({
        code: Code.RESOURCE_EXHAUSTED,
        details: "The tunnel holds more than 1000 bytes, and this call most of them"
      })
      end.send({ _tag: "Message", id: 1, size: 500, data: Buffer.alloc(500) })
      end.call(4, "still there")
      expect(outcome(yield* end.closeOf(4)).code).toBe(Code.OK)
      expect(end.written.filter((frame) => frame._tag === "CloseStream").map(({ id }) => id)).toEqual([2, 4])
      expect(end.events.find((event) => event._tag === "StreamCancelled")).toMatchObject({
        by: "fault",
        reason: { _tag: "LimitExceeded", limit: "bytes held" }
      })
    }).pipe(Effect.scoped)
  )

  it.live("end the call whose handler answers more than may wait for credit", () =>
    Effect.gen(function* () {
      const Unary: UnaryHandler = (_call, callback) => callback(null, Buffer.alloc(2000))
      const end = yield* serverEnd({ maxBuffered: 1000, handlers: { Unary } })
      end.open(1, unaryPath, { window: 0 })
      end.send({ _tag: "Message", id: 1, size: 0, data: Buffer.alloc(0) })
      end.send({ _tag: "HalfClose", id: 1 })
      expect(outcome(yield* end.closeOf(1)).code).toBe(Code.RESOURCE_EXHAUSTED)
    }).pipe(Effect.scoped)
  )

  it.live("end a call at the calling end too, and the server hears of it", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd({ maxBuffered: 1000 })
      const call = end.client.Bidi()
      const answer = collect(call)
      yield* end.sent(1, "NewStream")
      call.write(Buffer.alloc(2000))
      expect(yield* Effect.promise(() => answer)).toMatchObject({
        code: Code.RESOURCE_EXHAUSTED,
        details: "The tunnel holds more than 1000 bytes, and this call most of them"
      })
      yield* end.sent(1, "Cancel")
      expect(end.written.some((frame) => frame._tag === "Message")).toBe(false)
    }).pipe(Effect.scoped)
  )
})

describe("a limit that a peer passes answers with a sentence of its own:", () => {
  const sized = (size: number, bytes: number) => (end: Effect.Success<ReturnType<typeof serverEnd>>) => {
    end.open(1, bidi)
    end.send({ _tag: "Message", id: 1, size, data: Buffer.alloc(bytes) })
  }
  const longHeaders = (end: Effect.Success<ReturnType<typeof serverEnd>>) =>
    end.open(1, bidi, { headers: metadataToWire(metadata({ k: "x".repeat(200) })) as Buffer })

  it.live.each([
    [
      "message size",
      { maxMessageSize: 100 },
      sized(101, 1),
      "A message is larger than 100 bytes, the most that is taken here"
    ],
    [
      "window",
      { window: 100 },
      sized(200, 101),
      "More bytes came than the window of 100 allows: send what was granted"
    ],
    [
      "unread bytes",
      { flowControl: false, maxUnread: 100 },
      (end: Effect.Success<ReturnType<typeof serverEnd>>) => {
        end.open(1, bidi, { revision: 0 })
        end.send({ _tag: "Message", id: 1, size: 200, data: Buffer.alloc(101) })
      },
      "More than 100 bytes wait for their reader: read them, or use flow control"
    ],
    ["metadata size", { maxMetadataSize: 100 }, longHeaders, "The request metadata is larger than 100 bytes"],
    [
      "streams",
      { maxStreams: 1 },
      (end: Effect.Success<ReturnType<typeof serverEnd>>) => {
        end.open(0, bidi)
        end.open(1, bidi)
      },
      "More than 1 streams at the same time"
    ]
  ] as const)("%s", ([_what, options, act, details]) =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ ...options, handlers: { Bidi: unread } })
      act(end)
      expect(outcome(yield* end.closeOf(1))).toEqual({ code: Code.RESOURCE_EXHAUSTED, details })
    }).pipe(Effect.scoped)
  )
})

describe("what a tunnel tells of itself", () => {
  it.live("counts the bytes that wait, and the streams that have no credit", () =>
    Effect.gen(function* () {
      const Bidi: BidiHandler = (call) => void call.write(Buffer.alloc(300))
      const end = yield* serverEnd({ handlers: { Bidi } })
      const told = Effect.map(end.handle.stats, ({ stalled, heldBytes }) => ({ stalled, heldBytes }))
      expect(yield* told).toEqual({ stalled: 0, heldBytes: 0 })
      end.open(1, bidi, { window: 100 })
      end.send({ _tag: "Message", id: 1, size: 50, data: Buffer.alloc(20) })
      yield* end.next((frame): frame is never => frame._tag === "Message")
      expect(yield* told).toEqual({ stalled: 1, heldBytes: 220 })
      end.send({ _tag: "WindowUpdate", id: 1, increment: 200 })
      yield* Effect.repeat(Effect.yieldNow, { until: () => end.written.length === 4 })
      expect(yield* told).toEqual({ stalled: 0, heldBytes: 20 })
    }).pipe(Effect.scoped)
  )
})

describe("a call that holds most before it has reached the wire", () => {
  it.live("ends itself, and no other", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd({ maxBuffered: 1000, secure: true })
      const other = unary(end.client, Buffer.alloc(10))
      yield* end.sent(1, "HalfClose")
      const silent = grpc.credentials.createFromMetadataGenerator(() => undefined)
      const answer = unary(end.client, Buffer.alloc(2000), { call: { credentials: silent } })
      expect((yield* Effect.promise(() => answer)).code).toBe(Code.RESOURCE_EXHAUSTED)
      end.send({ _tag: "Message", id: 1, size: 2, data: Buffer.from("ok") })
      end.send({ _tag: "CloseStream", id: 1, trailers: undefined, status: undefined })
      expect((yield* Effect.promise(() => other)).code).toBe(Code.OK)
      expect(yield* Effect.map(end.channel.stats, ({ heldBytes }) => heldBytes)).toBe(0)
    }).pipe(Effect.scoped)
  )
})

describe("the handlers that run at the same time", () => {
  /** Never ends, whatever it is told. */
  const deaf = (() => new Promise(() => undefined)) as unknown as UnaryHandler

  it.live("are limited for a tunnel, and those that were left behind count", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ maxHandlers: 1, handlers: { Unary: deaf } })
      end.call(1, "never")
      end.send({ _tag: "Cancel", id: 1 })
      yield* Effect.repeat(Effect.yieldNow, {
        until: () => end.events.some((event) => event._tag === "StreamClosed")
      })
      expect(yield* Effect.map(end.handle.stats, ({ streams }) => streams)).toBe(0)
      end.call(2, "more")
      expect(outcome(yield* end.closeOf(2))).toEqual({
        code: Code.RESOURCE_EXHAUSTED,
        details: "More than 1 handlers run for this tunnel"
      })
    }).pipe(Effect.scoped, Effect.provideService(CleanupBudget, Duration.millis(20)))
  )

  it.live("make room again when they end", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ maxHandlers: 1 })
      for (const id of [1, 2, 3]) {
        end.call(id, "q")
        expect(outcome(yield* end.closeOf(id)).code).toBe(Code.OK)
        yield* Effect.repeat(Effect.yieldNow, {
          until: () => end.events.filter((event) => event._tag === "StreamClosed").length === id
        })
      }
    }).pipe(Effect.scoped)
  )

  it.live("are limited for all tunnels of a service together", () =>
    Effect.gen(function* () {
      let started = 0
      const Unary: UnaryHandler = () => void started++
      const services = Services.empty.pipe(Services.add(definition, implementation({ Unary })))
      const service = yield* TunnelService.make({ services, maxServiceHandlers: 1 })
      const { address } = yield* listen(service.addTo)
      const to = { address, credentials: grpc.credentials.createInsecure() }
      const [first, second] = [yield* openForward(to), yield* openForward(to)]
      const running = unary(first.client(EchoClient), Buffer.from("q"))
      yield* Effect.repeat(Effect.yieldNow, { until: () => started === 1 })
      const answer = yield* Effect.promise(() => unary(second.client(EchoClient), Buffer.from("q")))
      expect(answer).toMatchObject({
        code: Code.RESOURCE_EXHAUSTED,
        details: "More than 1 handlers run for all tunnels"
      })
      yield* first.close()
      expect((yield* Effect.promise(() => running)).code).toBe(Code.UNAVAILABLE)
    }).pipe(Effect.scoped)
  )
})

describe("a flood of refused streams", () => {
  it.live("is answered in short frames, however long the names are that it asks for", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      end.open(1, `/${"x".repeat(30_000)}/${"y".repeat(30_000)}`)
      end.open(2, "z".repeat(60_000))
      for (const id of [1, 2]) expect((yield* end.closeOf(id)).status?.length).toBeLessThan(200)
    }).pipe(Effect.scoped)
  )

  it("that nobody reads is held up to a number of answers and to a number of bytes", () => {
    const outbox = new Outbox()
    const answer = { _tag: "CloseStream", id: 1, trailers: undefined, status: Buffer.alloc(65_536) } as const
    let held = 0
    while (outbox.provoked(answer)) held += answer.status.length
    expect(held).toBe(16 * 1024 * 1024)
  })
})
