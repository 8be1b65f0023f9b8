import { readFileSync } from "node:fs"
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import { decodeClientFrame, decodeServerFrame } from "../src/internal/decode.ts"
import { Encoder, encodeFrame } from "../src/internal/encode.ts"
import type { ClientFrame, ServerFrame } from "../src/internal/frame.ts"
import { MetadataProblem, metadataFromWire, metadataToWire } from "../src/internal/metadata.ts"
import { statusFromWire, statusToWire } from "../src/internal/rpcStatus.ts"

interface Recorded {
  readonly scenario: string
  readonly sender: string
  readonly bytes: Buffer
  readonly says: string
}

const recorded: ReadonlyArray<Recorded> = readFileSync(
  new URL("./fixtures/goFrames.txt", import.meta.url),
  "utf8"
)
  .split("\n")
  .filter((line) => line !== "" && !line.startsWith("#"))
  .map((line) => {
    const [scenario = "", sender = "", hex = "", says = ""] = line.split("\t")
    return { scenario, sender, bytes: Buffer.from(hex, "hex"), says }
  })

const decoded = ({ bytes, sender }: Recorded) =>
  sender === "client" ? decodeClientFrame(bytes) : decodeServerFrame(bytes)

const kindOf: Readonly<Record<string, string>> = {
  settings: "Settings",
  new_stream: "NewStream",
  request_message: "Message",
  response_message: "Message",
  more_request_data: "MoreData",
  more_response_data: "MoreData",
  half_close: "HalfClose",
  cancel: "Cancel",
  window_update: "WindowUpdate",
  response_headers: "ResponseHeaders",
  close_stream: "CloseStream"
}

describe("frames recorded from the Go implementation", () => {
  it("are all there", () => {
    expect(recorded.length).toBeGreaterThan(60)
  })

  it.each(recorded)("$scenario: $says", (frame) => {
    const result = decoded(frame)
    const [, id, kind = ""] = /^id=(-?\d+) (\w*)/.exec(frame.says) ?? []
    expect(result._tag).toBe(kindOf[kind] ?? "Unset")
    expect(result.id).toBe(Number(id))
    if (result._tag === "Malformed") throw new Error(result.detail)
    expect(encodeFrame(result).toString("hex")).toBe(frame.bytes.toString("hex"))
  })

  it("carry metadata that encodes to the same bytes again", () => {
    const blocks = recorded.flatMap((frame) => {
      const result = decoded(frame)
      const block =
        result._tag === "CloseStream" ? result.trailers : "headers" in result ? result.headers : undefined
      return block === undefined ? [] : [block]
    })
    let carried = 0
    for (const block of blocks) {
      const metadata = metadataFromWire(block)
      if (metadata instanceof MetadataProblem) continue
      carried++
      const keys = Object.keys(metadata.toJSON())
      const again = metadataToWire(metadata) as Buffer
      // grpc-js lower-cases keys, so a block with others cannot come back byte for byte.
      const lower = block.toString("latin1").includes("Foo") === false
      if (lower) expect(again.toString("hex"), keys.join()).toBe(block.toString("hex"))
    }
    expect(carried).toBeGreaterThan(10)
  })

  it("carry statuses that encode to the same bytes again", () => {
    let errors = 0
    for (const frame of recorded) {
      const result = decoded(frame)
      if (result._tag !== "CloseStream" || result.status?.length === 0) continue
      const status = statusFromWire(result.trailers, result.status)
      if (status instanceof MetadataProblem) throw new Error(status.detail)
      const again = statusToWire(status)
      if (again instanceof MetadataProblem) throw new Error(again.detail)
      expect(again.status?.toString("hex")).toBe(result.status?.toString("hex"))
      if (result.status !== undefined) errors++
    }
    expect(errors).toBeGreaterThan(3)
  })
})

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
