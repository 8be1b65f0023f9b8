import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import { decodeClientFrame, decodeServerFrame } from "../src/internal/decode.ts"
import { Encoder, encodeFrame } from "../src/internal/encode.ts"
import type { ClientFrame, ServerFrame } from "../src/internal/frame.ts"

const id = fc.oneof(
  fc.constantFrom(-1, 0, 1, 127, 128, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER),
  fc.maxSafeInteger()
)
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array))
const uint32 = fc.oneof(fc.constantFrom(0, 1, 127, 128, 65_536, 0xffff_ffff), fc.nat(0xffff_ffff))

const shared = [
  fc.record({ _tag: fc.constant("Message" as const), id, size: uint32, data: bytes }),
  fc.record({ _tag: fc.constant("MoreData" as const), id, data: bytes }),
  fc.record({ _tag: fc.constant("WindowUpdate" as const), id, increment: uint32 }),
  fc.record({ _tag: fc.constant("Unset" as const), id })
]

const clientFrame: fc.Arbitrary<ClientFrame> = fc.oneof(
  ...shared,
  fc.record({
    _tag: fc.constant("NewStream" as const),
    id,
    method: fc.string({ unit: "grapheme", maxLength: 40 }),
    headers: fc.option(bytes, { nil: undefined }),
    window: uint32,
    revision: fc.nat(5)
  }),
  fc.record({ _tag: fc.constant("HalfClose" as const), id }),
  fc.record({ _tag: fc.constant("Cancel" as const), id })
)

const serverFrame: fc.Arbitrary<ServerFrame> = fc.oneof(
  ...shared,
  fc.record({ _tag: fc.constant("ResponseHeaders" as const), id, headers: bytes }),
  fc.record({
    _tag: fc.constant("CloseStream" as const),
    id,
    trailers: fc.option(bytes, { nil: undefined }),
    status: fc.option(bytes, { nil: undefined })
  }),
  fc.record({
    _tag: fc.constant("Settings" as const),
    id,
    revisions: fc.array(fc.nat(300), { maxLength: 5 }),
    window: uint32
  })
)

describe("the frame codec", () => {
  it("reads back what it wrote, for a tunnel client's frames", () => {
    fc.assert(
      fc.property(clientFrame, (frame) => void expect(decodeClientFrame(encodeFrame(frame))).toEqual(frame))
    )
  })

  it("reads back what it wrote, for a tunnel server's frames", () => {
    fc.assert(
      fc.property(serverFrame, (frame) => void expect(decodeServerFrame(encodeFrame(frame))).toEqual(frame))
    )
  })

  it("writes many frames into one slab without mixing them up", () => {
    fc.assert(
      fc.property(fc.array(clientFrame, { maxLength: 30 }), (frames) => {
        const encoder = new Encoder(16)
        for (const frame of frames) encoder.frame(frame)
        expect(encoder.take().map(decodeClientFrame)).toEqual(frames)
      })
    )
  })

  it("answers any bytes with a frame or with Malformed, and never throws", () => {
    fc.assert(
      fc.property(bytes, (raw) => {
        expect(typeof decodeClientFrame(raw)._tag).toBe("string")
        expect(typeof decodeServerFrame(raw)._tag).toBe("string")
      })
    )
  })

  it("answers every cut-off frame with Malformed or a shorter frame, and keeps the id when it was read", () => {
    const whole = encodeFrame({
      _tag: "NewStream",
      id: 7,
      method: "/a/b",
      headers: Buffer.from("0a00", "hex"),
      window: 9,
      revision: 1
    })
    for (let length = 2; length < whole.length; length++) {
      const result = decodeClientFrame(whole.subarray(0, length))
      expect(result.id).toBe(7)
      expect(["Malformed", "Unset"]).toContain(result._tag)
    }
  })

  it("refuses ids that a number cannot hold, rather than rounding them", () => {
    const tooLarge = Buffer.from("08ffffffffffffffff7f2a00", "hex")
    expect(decodeClientFrame(tooLarge)).toMatchObject({ _tag: "Malformed", id: undefined })
  })

  it("reads fields in any order, skips unknown ones, and lets the last member count", () => {
    const reordered = Buffer.from("2a000807", "hex")
    expect(decodeClientFrame(reordered)).toEqual({ _tag: "HalfClose", id: 7 })
    const unknown = Buffer.from("08077a03616263" + "2a00", "hex")
    expect(decodeClientFrame(unknown)).toEqual({ _tag: "HalfClose", id: 7 })
    const twice = Buffer.from("08072a003200", "hex")
    expect(decodeClientFrame(twice)).toEqual({ _tag: "Cancel", id: 7 })
  })
})
