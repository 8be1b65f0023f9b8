/** What the protocol's own library gets wrong in ways of which no other test here speaks: see docs/tunnel-compared-with-go.md. */
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Services, serveReverse, TunnelService } from "../src/index.ts"
import { encodeFrame } from "../src/internal/encode.ts"
import { metadataToWire } from "../src/internal/metadata.ts"
import {
  type BidiHandler,
  definition,
  EchoClient,
  implementation,
  metadata,
  type ServerStreamHandler,
  type UnaryHandler,
  unary
} from "./support/echo.ts"
import { serverEnd, statusFromWire } from "./support/engines.ts"
import { listen } from "./support/network.ts"

const { status: Code } = grpc
const credentials = grpc.credentials.createInsecure()
const bidi = "/curfew.test.Echo/Bidi"

const until = (holds: () => boolean) => Effect.repeat(Effect.yieldNow, { until: holds })

describe("an agent behind a reverse tunnel", () => {
  const agent = (handlers: Parameters<typeof implementation>[0] = {}) =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address } = yield* listen(service.addTo)
      const services = Services.empty.pipe(Services.add(definition, implementation(handlers)))
      const serving = yield* serveReverse({ address, credentials }, services)
      const channel = yield* service.reverse.awaitReverse()
      return { service, serving, channel, client: channel.client(EchoClient) }
    })

  it.live("that is idle is drained at once, and its tunnel can be closed", () =>
    Effect.gen(function* () {
      const { channel, service, serving } = yield* agent()
      expect(yield* serving.drain()).toBe(true)
      expect(yield* channel.awaitDraining).toBe("peer")
      expect((yield* service.reverse.pick())._tag).toBe("None")
      yield* serving.close()
      expect((yield* channel.closed)._tag).toBe("ClosedByPeer")
    }).pipe(Effect.scoped)
  )

  it.live("that drains finishes the calls in flight, and closes with nothing lost", () =>
    Effect.gen(function* () {
      const answers: Array<() => void> = []
      const Unary: UnaryHandler = (call, callback) => void answers.push(() => callback(null, call.request))
      const { client, serving } = yield* agent({ Unary })
      const calls = ["a", "b", "c"].map((text) => unary(client, Buffer.from(text)))
      yield* until(() => answers.length === 3)
      const drained = yield* Effect.forkChild(serving.drain())
      yield* serving.awaitDraining
      for (const answer of answers) answer()
      expect(yield* Fiber.join(drained)).toBe(true)
      yield* serving.close()
      const codes = (yield* Effect.promise(() => Promise.all(calls))).map(({ code }) => code)
      expect(codes).toEqual([Code.OK, Code.OK, Code.OK])
    }).pipe(Effect.scoped)
  )

  it.live("that sees a broken rule ends the outer call, and says which rule it was", () =>
    Effect.gen(function* () {
      const cut = Deferred.makeUnsafe<void>()
      const service = yield* TunnelService.make()
      const { address } = yield* listen((server) => {
        server.addService(service.definition, {
          OpenTunnel: () => undefined,
          OpenReverseTunnel: (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
            const headers = new grpc.Metadata()
            headers.set("grpctunnel-negotiate", "on")
            call.sendMetadata(headers)
            call.on("cancelled", () => Deferred.doneUnsafe(cut, Effect.void))
            call.on("error", () => undefined)
            call.once("data", () => call.write(encodeFrame({ _tag: "Cancel", id: 7 })))
          }
        })
      })
      const serving = yield* serveReverse({ address, credentials }, Services.empty)
      expect(yield* serving.closed).toMatchObject({ _tag: "Violated", error: { rule: "stream-unknown" } })
      yield* Deferred.await(cut)
    }).pipe(Effect.scoped)
  )
})

describe("a handler that waits for a message gets none that was not sent", () => {
  const listening = () => {
    const seen: Array<string> = []
    const Bidi: BidiHandler = (call) => {
      call.on("data", (message: Buffer) => seen.push(`message of ${message.length}`))
      for (const event of ["end", "cancelled", "close"]) call.on(event, () => seen.push(event))
    }
    return { seen, Bidi }
  }
  type End = Effect.Success<ReturnType<typeof serverEnd>>

  it.live.each([
    ["its deadline passes", "20m", () => undefined],
    ["the caller cancels", undefined, (end: End) => end.send({ _tag: "Cancel", id: 1 })],
    ["the tunnel is lost", undefined, (end: End) => end.end({ code: 14, details: "cut" })]
  ] as const)("when %s", ([_what, timeout, act]) =>
    Effect.gen(function* () {
      const { Bidi, seen } = listening()
      const end = yield* serverEnd({ handlers: { Bidi } })
      const headers = metadataToWire(metadata(timeout === undefined ? {} : { "grpc-timeout": timeout }))
      end.open(1, bidi, { headers: headers as Buffer })
      end.send({ _tag: "Message", id: 1, size: 3, data: Buffer.from("one") })
      yield* until(() => seen.length === 1)
      act(end)
      yield* until(() => seen.includes("close"))
      expect(seen).toEqual(["message of 3", "cancelled", "close"])
    }).pipe(Effect.scoped)
  )
})

describe("a deadline at the serving end", () => {
  it.live("ends the stream on the wire by itself, as DEADLINE_EXCEEDED", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ handlers: { Bidi: () => undefined } })
      end.open(1, bidi, { headers: metadataToWire(metadata({ "grpc-timeout": "10m" })) as Buffer })
      const { status, trailers } = yield* end.closeOf(1)
      expect(statusFromWire(trailers, status)).toMatchObject({ code: Code.DEADLINE_EXCEEDED })
    }).pipe(Effect.scoped)
  )
})

describe("trailers", () => {
  it.live("are there with the status, in each of a thousand calls", () =>
    Effect.gen(function* () {
      const services = Services.empty.pipe(Services.add(definition, implementation()))
      const service = yield* TunnelService.make()
      const { address } = yield* listen(service.addTo)
      yield* serveReverse({ address, credentials }, services)
      const client = (yield* service.reverse.awaitReverse()).client(EchoClient)
      for (let round = 0; round < 10; round++) {
        const calls = Array.from({ length: 100 }, (_, index) => {
          const own = String(round * 100 + index)
          return Effect.map(
            Effect.promise(() => unary(client, Buffer.from("q"), { metadata: metadata({ "tail-n": own }) })),
            ({ trailers }) => trailers?.get("tail-n")[0] === own
          )
        })
        expect((yield* Effect.all(calls, { concurrency: "unbounded" })).every(Boolean)).toBe(true)
      }
    }).pipe(Effect.scoped)
  )
})

describe("a peer that does not read", () => {
  it.live("is heard all the same: its cancels reach the handlers while nothing can be written", () =>
    Effect.gen(function* () {
      const cancelled: Array<string> = []
      const ServerStream: ServerStreamHandler = (call) => {
        call.on("cancelled", () => cancelled.push("stream"))
        call.write(Buffer.alloc(1_000_000))
      }
      const end = yield* serverEnd({ handlers: { ServerStream } })
      end.flow(false)
      end.open(1, "/curfew.test.Echo/ServerStream", { window: 0x7fff_ffff })
      end.send({ _tag: "Message", id: 1, size: 1, data: Buffer.from("q") })
      end.send({ _tag: "HalfClose", id: 1 })
      yield* end.next((frame): frame is never => frame._tag === "Message")
      end.send({ _tag: "Cancel", id: 1 })
      yield* until(() => cancelled.length === 1)
      expect(yield* Effect.map(end.handle.stats, ({ cancelled: count }) => count)).toBe(1)
      end.flow(true)
    }).pipe(Effect.scoped)
  )
})

describe("a stream that was closed", () => {
  it.live("sends nothing more, whatever its handler still writes", () =>
    Effect.gen(function* () {
      let more: (() => void) | undefined
      const ServerStream: ServerStreamHandler = (call) => {
        more = () => {
          call.write(Buffer.from("late"))
          call.end()
        }
      }
      const end = yield* serverEnd({ handlers: { ServerStream } })
      end.open(1, "/curfew.test.Echo/ServerStream", {
        headers: metadataToWire(metadata({ "grpc-timeout": "5m" })) as Buffer
      })
      end.send({ _tag: "Message", id: 1, size: 1, data: Buffer.from("q") })
      end.send({ _tag: "HalfClose", id: 1 })
      yield* end.closeOf(1)
      yield* until(() => end.events.some((event) => event._tag === "StreamClosed"))
      more?.()
      end.call(2, "next")
      yield* end.closeOf(2)
      const own = end.written.filter((frame) => frame.id === 1).map(({ _tag }) => _tag)
      expect(own).toEqual(["CloseStream"])
      expect(end.events.filter((event) => event._tag === "LateWrite").length).toBeGreaterThan(0)
    }).pipe(Effect.scoped)
  )
})
