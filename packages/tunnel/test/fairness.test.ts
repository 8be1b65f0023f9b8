/** Whose bytes stand before whose on the wire: counted, never timed. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { decodeClientFrame } from "../src/internal/decode.ts"
import { Encoder } from "../src/internal/encode.ts"
import { type ClientFrame, longPiece, maxChunk, type ServerFrame } from "../src/internal/frame.ts"
import { SendWindow } from "../src/internal/window.ts"
import { Outbound, Outbox } from "../src/internal/writer.ts"
import { type BidiHandler, metadata, type ServerStreamHandler } from "./support/echo.ts"
import { clientEnd, serverEnd } from "./support/engines.ts"

const batch = 65_536
const megabytes = 4 * 1024 * 1024
const wide = 0x7fff_ffff

const fill = (outbox: Outbox): ReadonlyArray<ClientFrame> => {
  const encoder = new Encoder()
  outbox.fill(encoder, [])
  return encoder.take().map((bytes) => decodeClientFrame(Buffer.from(bytes)) as ClientFrame)
}

const payload = (frame: ClientFrame | ServerFrame | { readonly _tag: "Malformed" }): number =>
  frame._tag === "Message" || frame._tag === "MoreData" ? frame.data.length : 0

const bytesOf = (frames: ReadonlyArray<Parameters<typeof payload>[0]>): number =>
  frames.reduce((sum, frame) => sum + payload(frame), 0)

describe("a small message behind streams with megabytes", () => {
  it("waits for one piece of each of them, however many they are", () => {
    for (const others of [1, 2, 3, 7, 20]) {
      const outbox = new Outbox()
      for (let id = 1; id <= others; id++) {
        outbox.message(new Outbound(new SendWindow(wide, 1), id), Buffer.alloc(megabytes), () => undefined)
      }
      // They have been at it for a while, so the ring stands anywhere.
      for (let count = 0; count < 5; count++) fill(outbox)
      const small = others + 1
      outbox.message(new Outbound(new SendWindow(wide, 1), small), Buffer.alloc(10), () => undefined)
      const frames: Array<ClientFrame> = []
      while (!frames.some(({ id }) => id === small)) frames.push(...fill(outbox))
      const ahead = frames.slice(
        0,
        frames.findIndex(({ id }) => id === small)
      )
      expect(bytesOf(ahead), `${others} others`).toBeLessThanOrEqual(others * maxChunk)
      for (let id = 1; id <= others; id++) {
        expect(ahead.filter((frame) => frame.id === id).length).toBeLessThanOrEqual(1)
      }
    }
  })

  it("waits for one message of each that has many small ones", () => {
    const outbox = new Outbox()
    const busy = new Outbound(new SendWindow(wide, 1), 1)
    for (let count = 0; count < 1000; count++) outbox.message(busy, Buffer.alloc(10), () => undefined)
    outbox.message(new Outbound(new SendWindow(wide, 1), 2), Buffer.alloc(10), () => undefined)
    expect(fill(outbox).findIndex(({ id }) => id === 2)).toBe(1)
  })

  it("is not held up by a stream that has no credit, nor by one whose turn came with nothing left", () => {
    const outbox = new Outbox()
    const stalled = new Outbound(new SendWindow(0, 1), 1)
    outbox.message(stalled, Buffer.alloc(megabytes), () => undefined)
    const cancelled = new Outbound(new SendWindow(wide, 1), 2)
    outbox.message(cancelled, Buffer.alloc(megabytes), () => undefined)
    outbox.discard(cancelled)
    outbox.message(new Outbound(new SendWindow(wide, 1), 3), Buffer.alloc(10), () => undefined)
    expect(fill(outbox).map(({ id }) => id)).toEqual([3])
  })

  it.live("goes out at the serving end behind what is on its way and one piece", () =>
    Effect.gen(function* () {
      const ServerStream: ServerStreamHandler = (call) => {
        call.write(Buffer.alloc(megabytes))
        call.end()
      }
      const end = yield* serverEnd({ handlers: { ServerStream } })
      end.open(1, "/curfew.test.Echo/ServerStream", { window: wide })
      end.send({ _tag: "Message", id: 1, size: 1, data: Buffer.from("q") })
      end.flow(false)
      end.send({ _tag: "HalfClose", id: 1 })
      yield* end.next((frame): frame is ServerFrame => frame._tag === "Message" && frame.id === 1)
      const before = end.written.length
      end.call(2, "small")
      end.flow(true)
      yield* end.closeOf(2)
      const after = end.written.slice(before)
      const ahead = after.slice(
        0,
        after.findIndex((frame) => frame._tag === "Message" && frame.id === 2)
      )
      expect(bytesOf(end.written.slice(0, before))).toBeLessThanOrEqual(batch + maxChunk)
      expect(bytesOf(ahead)).toBeLessThanOrEqual(batch + maxChunk)
    }).pipe(Effect.scoped)
  )

  it.live("goes out at the calling end behind what is on its way and one piece", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd({
        settings: { _tag: "Settings", id: -1, revisions: [0, 1], window: wide }
      })
      const ends: Array<unknown> = []
      const ended = (error: unknown): void => void ends.push(error)
      end.flow(false)
      end.client.Unary(Buffer.alloc(megabytes), metadata(), {}, ended)
      yield* end.sent(1, "Message")
      const before = end.written.length
      end.client.Unary(Buffer.alloc(10), metadata(), {}, ended)
      end.flow(true)
      yield* end.sent(2, "Message")
      const after = end.written.slice(before)
      const ahead = after.slice(
        0,
        after.findIndex((frame) => frame._tag === "Message" && frame.id === 2)
      )
      expect(bytesOf(ahead)).toBeLessThanOrEqual(batch + maxChunk)
    }).pipe(Effect.scoped)
  )
})

describe("between ends that agreed on long pieces", () => {
  const wideOpen = (id: number): Outbound => new Outbound(new SendWindow(wide, 1), id)
  const sizes = (outbox: Outbox): ReadonlyArray<string> =>
    fill(outbox).map((frame) => `${frame.id}: ${payload(frame)}`)

  it("a stream that is alone sends long ones, and ends them with the turn in which another comes", () => {
    const outbox = new Outbox()
    outbox.longest = longPiece
    outbox.message(wideOpen(1), Buffer.alloc(megabytes), () => undefined)
    expect(sizes(outbox)).toEqual([`1: ${longPiece}`])
    outbox.message(wideOpen(2), Buffer.alloc(10), () => undefined)
    expect(sizes(outbox)).toEqual([`1: ${maxChunk}`, "2: 10", `1: ${longPiece}`])
  })

  it("a batch holds no more than without", () => {
    const outbox = new Outbox()
    outbox.longest = longPiece
    outbox.message(wideOpen(1), Buffer.alloc(megabytes), () => undefined)
    for (let count = 0; count < 10; count++)
      expect(bytesOf(fill(outbox))).toBeLessThanOrEqual(batch + maxChunk)
  })
})

describe("a message that is lent to the carrier", () => {
  it("is copied from where its last piece begins, and is its sender's again when that has left", () => {
    const outbox = new Outbox()
    outbox.longest = longPiece
    const encoder = new Encoder(4096, "messages")
    const message = Buffer.alloc(3 * longPiece + 100)
    let sent = 0
    outbox.message(new Outbound(new SendWindow(wide, 1), 1), message, () => sent++)
    const lent = (): boolean => {
      const callbacks: Array<() => void> = []
      outbox.fill(encoder, callbacks)
      const chunks = encoder.take()
      encoder.reset()
      for (const callback of callbacks) callback()
      return chunks.some((chunk) => chunk.buffer === message.buffer)
    }
    expect([lent(), sent]).toEqual([true, 0])
    expect([lent(), sent]).toEqual([true, 0])
    expect([lent(), sent]).toEqual([true, 0])
    expect([lent(), sent]).toEqual([false, 1])
  })

  it("is not lent while its last piece fits into the same batch", () => {
    const outbox = new Outbox()
    const encoder = new Encoder(4096, "messages")
    const message = Buffer.alloc(maxChunk * 2)
    outbox.message(new Outbound(new SendWindow(wide, 1), 1), message, () => undefined)
    outbox.fill(encoder, [])
    expect(encoder.take().some((chunk) => chunk.buffer === message.buffer)).toBe(false)
  })
})

describe("urgent frames", () => {
  it("go before all data, and take no room from it", () => {
    const outbox = new Outbox()
    outbox.message(new Outbound(new SendWindow(wide, 1), 1), Buffer.alloc(megabytes), () => undefined)
    for (let id = 2; id < 30_000; id++) outbox.urgent({ _tag: "Cancel", id })
    const frames = fill(outbox)
    const cancels = frames.filter((frame) => frame._tag === "Cancel").length
    expect(cancels).toBe(29_998)
    expect(frames.slice(0, cancels).every((frame) => frame._tag === "Cancel")).toBe(true)
    expect(bytesOf(frames)).toBe(batch)
  })

  it("of a stream that a batch is about do not wait for its data", () => {
    const outbox = new Outbox()
    const stream = new Outbound(new SendWindow(wide, 1), 1)
    outbox.message(stream, Buffer.alloc(megabytes), () => undefined)
    fill(outbox)
    outbox.announce(stream, 100)
    outbox.urgent({ _tag: "Cancel", id: 7 })
    expect(
      fill(outbox)
        .slice(0, 2)
        .map(({ _tag }) => _tag)
    ).toEqual(["Cancel", "WindowUpdate"])
  })
})

describe("a reader that has stopped", () => {
  it.live("holds up no other stream of its tunnel, and its peer sends it no more than its window", () =>
    Effect.gen(function* () {
      const Bidi: BidiHandler = () => undefined
      const end = yield* serverEnd({ window: 1000, handlers: { Bidi } })
      end.open(1, "/curfew.test.Echo/Bidi")
      end.send({ _tag: "Message", id: 1, size: 5000, data: Buffer.alloc(1000) })
      for (let id = 2; id < 40; id++) {
        end.call(id, "q")
        yield* end.closeOf(id)
      }
      expect(end.written.some((frame) => frame._tag === "WindowUpdate" && frame.id === 1)).toBe(false)
    }).pipe(Effect.scoped)
  )
})
