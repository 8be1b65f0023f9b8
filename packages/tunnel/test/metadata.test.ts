import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { describe, expect, it } from "@effect/vitest"
import { status as Code, Metadata } from "@grpc/grpc-js"
import * as fc from "fast-check"
import { MetadataProblem, metadataToWire } from "../src/internal/metadata.ts"
import { metadataFromWire } from "../src/internal/metadataFromWire.ts"
import { makeStatus, statusFromWire, statusToWire } from "../src/internal/rpcStatus.ts"
import { deadlineMillis, formatTimeout, parseTimeout, takeTimeout } from "../src/internal/timeout.ts"
import { metadata } from "./support/echo.ts"

const key = fc.stringMatching(/^[a-z][a-z0-9_.-]{0,10}$/).filter((name) => !name.endsWith("-bin"))
const value = fc.stringMatching(/^[ -~]{0,20}$/)
const binary = fc.string({ unit: "grapheme", maxLength: 20 }).map((text) => Buffer.from(text))

setFlagsFromString("--expose-gc")
const gc = runInNewContext("gc") as () => void

const liveBytes = (): number => {
  // What only caches hold is let go with the second one.
  gc()
  gc()
  return process.memoryUsage().heapUsed
}

describe("metadata on the wire", () => {
  it("comes back as it went, values in order and UTF-8 binary values as bytes", () => {
    const entries = fc.array(
      fc.oneof(
        fc.tuple(key, value),
        fc.tuple(
          key.map((name) => `${name}-bin`),
          binary
        )
      ),
      { maxLength: 12 }
    )
    fc.assert(
      fc.property(entries, (list) => {
        const sent = new Metadata()
        for (const [name, content] of list) sent.add(name, content)
        const received = metadataFromWire(metadataToWire(sent) as Buffer) as Metadata
        expect(received.toJSON()).toEqual(sent.toJSON())
      })
    )
  })

  it("is what was sent also where it nearly repeats the metadata before it", () => {
    // Few keys and values, of few lengths: most are like one that has been seen.
    const few = fc.tuple(
      fc.constantFrom("aa", "ab", "ba", "k", "k-bin"),
      fc.constantFrom("", "x", "y", "xx", "xy")
    )
    fc.assert(
      fc.property(fc.array(fc.array(few, { maxLength: 4 }), { maxLength: 8 }), (calls) => {
        const sent = calls.map((list) => {
          const made = new Metadata()
          for (const [name, text] of list) made.add(name, name.endsWith("-bin") ? Buffer.from(text) : text)
          return made
        })
        const received = sent.map((each) => metadataFromWire(metadataToWire(each) as Buffer) as Metadata)
        expect(received.map((each) => each.toJSON())).toEqual(sent.map((each) => each.toJSON()))
      })
    )
  })

  it("that repeats has values of its own", () => {
    const wire = metadataToWire(metadata({ k: "x" })) as Buffer
    const [first, second] = [metadataFromWire(wire) as Metadata, metadataFromWire(wire) as Metadata]
    first.add("k", "y")
    expect(second.get("k")).toEqual(["x"])
  })

  it("refuses a value that is not legal below a key that was, and takes the next one that is", () => {
    const legal = metadataToWire(metadata({ k: "x" })) as Buffer
    const illegal = Buffer.from(legal)
    illegal[illegal.length - 1] = 1
    expect(metadataFromWire(legal)).toBeInstanceOf(Metadata)
    expect(metadataFromWire(illegal)).toBeInstanceOf(MetadataProblem)
    expect(metadataFromWire(illegal)).toBeInstanceOf(MetadataProblem)
    expect((metadataFromWire(legal) as Metadata).get("k")).toEqual(["x"])
  })

  it("has the timeout that it goes out with, in the place of its own, and does not keep it", () => {
    const sent = metadata({ "grpc-timeout": "1S", k: "x" })
    const received = metadataFromWire(metadataToWire(sent, false, "2S") as Buffer) as Metadata
    expect(received.toJSON()).toEqual({ k: ["x"], "grpc-timeout": ["2S"] })
    expect(sent.get("grpc-timeout")).toEqual(["1S"])
  })

  it("of another copy of grpc-js, which holds it elsewhere, goes out as well", () => {
    const own = metadata({ k: "x" })
    const foreign = { toJSON: () => own.toJSON() } as Metadata
    expect(metadataToWire(foreign)).toEqual(metadataToWire(own))
  })

  it.each([undefined, null, 5, {}, ["x"]])("cannot carry %s, which grpc-js lets in, and says so", (odd) => {
    const sent = metadata({ k: "x" })
    sent.set("odd", odd as never)
    for (const anyBytes of [false, true])
      expect(metadataToWire(sent, anyBytes)).toEqual(
        new MetadataProblem(
          'The value of "odd" is neither text nor a Buffer: leave the key out where there is nothing to send'
        )
      )
  })

  it("cannot carry a binary value that is not UTF-8, and says so", () => {
    expect(metadataToWire(metadata({ "k-bin": Buffer.from([0xff, 0xfe]) }))).toBeInstanceOf(MetadataProblem)
  })

  it.each([
    ["an empty key", "0a07" + "0a00" + "1203" + "0a0178"],
    ["a key with a space", "0a0a" + "0a0361206212" + "03" + "0a0178"],
    ["a control character in a value", "0a08" + "0a0161" + "1203" + "0a0101"],
    ["a cut-off entry", "0a09" + "0a0161"]
  ])("with %s is a problem of its call", (_what, hex) => {
    expect(metadataFromWire(Buffer.from(hex, "hex"))).toBeInstanceOf(MetadataProblem)
  })

  it.each(["foo", "__proto__"])("accepts %s in capitals as the key that grpc-js has", (name) => {
    const capitals = metadataToWire(metadata({ [name]: "bar" })) as Buffer
    capitals.write(name.toUpperCase(), capitals.indexOf(name))
    expect((metadataFromWire(capitals) as Metadata).get(name)).toEqual(["bar"])
  })

  it("leaves nothing of long keys behind, however many there were", () => {
    const wire = metadataToWire(metadata({ ["k".repeat(60_000)]: "x" })) as Buffer
    const start = wire.indexOf("kkk")
    const before = liveBytes()
    for (let each = 0; each < 500; each++) {
      wire.write(String(each).padStart(4, "0"), start)
      expect(metadataFromWire(wire)).toBeInstanceOf(Metadata)
    }
    // They are 30 MB.
    expect(liveBytes() - before).toBeLessThan(8_000_000)
  })
})

describe("a status on the wire", () => {
  it("is absent for OK, and absent means OK", () => {
    const wire = statusToWire(makeStatus(Code.OK, "OK"))
    expect(wire).toMatchObject({ status: undefined })
    expect(statusFromWire(Buffer.alloc(0), undefined)).toMatchObject({ code: 0 })
  })

  it("carries details both ways through grpc-status-details-bin", () => {
    // A google.rpc.Status: code 5, message "gone", one Any of type "t" with two bytes.
    const details = Buffer.from("0805" + "1204676f6e65" + "1a07" + "0a0174" + "12020102", "hex")
    const sent = makeStatus(5, "gone", metadata({ "grpc-status-details-bin": details, other: "x" }))
    const wire = statusToWire(sent)
    if (wire instanceof MetadataProblem) throw new Error(wire.detail)
    expect(wire.status?.equals(details)).toBe(true)
    const received = statusFromWire(wire.trailers, wire.status)
    if (received instanceof MetadataProblem) throw new Error(received.detail)
    expect(received).toMatchObject({ code: 5, details: "gone" })
    expect(received.metadata.get("grpc-status-details-bin")).toEqual([details])
    expect(received.metadata.get("other")).toEqual(["x"])
  })

  it("with details that are no status fails that call only", () => {
    const broken = makeStatus(5, "gone", metadata({ "grpc-status-details-bin": Buffer.from([0xff]) }))
    expect(statusToWire(broken)).toBeInstanceOf(MetadataProblem)
  })

  it("with trailers that throw when they are looked at fails that call only", () => {
    const hostile = metadata()
    hostile.get = () => {
      throw new Error("not today")
    }
    expect(statusToWire(makeStatus(5, "gone", hostile))).toEqual(
      new MetadataProblem("The trailers cannot be read: not today")
    )
  })

  it("outside gRPC's codes is UNKNOWN", () => {
    expect(statusFromWire(Buffer.alloc(0), Buffer.from("0863", "hex"))).toMatchObject({ code: Code.UNKNOWN })
  })
})

describe("grpc-timeout", () => {
  it.each([
    [0, "1n"],
    [-5, "1n"],
    [0.4, "1m"],
    [1500, "1500m"],
    [99_999_999, "99999999m"],
    [100_000_000, "100000S"],
    [365 * 24 * 3_600_000, "31536000S"],
    [Number.MAX_SAFE_INTEGER, "99999999H"]
  ])("of %d ms is %s", (millis, text) => {
    expect(formatTimeout(millis)).toBe(text)
  })

  it.each([
    ["5S", 5000],
    ["10m", 10],
    ["2M", 120_000],
    ["1H", 3_600_000],
    ["500u", 0.5],
    ["0S", 0],
    ["-1S", -1000],
    ["5", undefined],
    ["S", undefined],
    ["5s", undefined],
    ["1.5S", undefined],
    ["", undefined]
  ])("%j is %s ms", (text, millis) => {
    expect(parseTimeout(text)).toBe(millis)
  })

  it("is taken out of the metadata, and its last value counts", () => {
    const received = new Metadata()
    received.add("grpc-timeout", "1S")
    received.add("grpc-timeout", "2S")
    expect(takeTimeout(received)).toBe(2000)
    expect(received.get("grpc-timeout")).toEqual([])
  })

  it("never promises more than a millisecond beyond what remains", () => {
    fc.assert(
      fc.property(fc.double({ min: 1e-3, max: 1e14, noNaN: true }), (millis) => {
        expect(parseTimeout(formatTimeout(millis)) as number).toBeLessThan(millis + 1)
      })
    )
  })

  it("comes from any form of a grpc-js deadline", () => {
    expect(deadlineMillis(new Date(5))).toBe(5)
    expect(deadlineMillis(7)).toBe(7)
    expect(deadlineMillis(null)).toBe(Number.POSITIVE_INFINITY)
    expect(deadlineMillis(Number.NaN)).toBe(Number.POSITIVE_INFINITY)
  })
})
