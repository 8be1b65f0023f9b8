import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { describe, expect, it } from "@effect/vitest"
import { Metadata } from "@grpc/grpc-js"
import * as fc from "fast-check"
import { GrpcError } from "../src/GrpcError.ts"
import { callMetadata } from "../src/internal/client/metadata.ts"
import { copyUnsafe } from "../src/internal/metadata.ts"
import { BadMetadata, checked } from "../src/internal/server/metadata.ts"

setFlagsFromString("--expose-gc")
const gc = runInNewContext("gc") as () => void

const liveBytes = (): number => {
  // What only caches hold is let go with the second one.
  gc()
  gc()
  return process.memoryUsage().heapUsed
}

const key = fc.constantFrom("a", "A", "b", "a-bin", "a b", "", "x".repeat(70))
const value = fc.oneof(
  fc.constantFrom("", "x", "~", " ", "\u0001", "\u00e9", "\u20ac", "x\n", "x".repeat(63), "x".repeat(65)),
  fc.constant(Buffer.from([0, 255])),
  fc.array(fc.constantFrom("x", "y"), { maxLength: 2 })
)

/** What grpc-js makes of it, or that it makes nothing of it. */
const byGrpc = (input: Readonly<Record<string, string | Buffer | ReadonlyArray<string>>>) => {
  const metadata = new Metadata()
  try {
    for (const [name, values] of Object.entries(input))
      for (const each of Array.isArray(values) ? values : [values]) metadata.add(name, each)
    return metadata.toJSON()
  } catch (error) {
    return (error as Error).message
  }
}

const byUs = (input: Parameters<typeof byGrpc>[0]) => {
  try {
    return copyUnsafe(input).toJSON()
  } catch (error) {
    return (error as Error).message
  }
}

describe("metadata from a record", () => {
  it("is what grpc-js makes of it, whichever keys and values came before", () => {
    fc.assert(
      fc.property(fc.array(fc.dictionary(key, value, { maxKeys: 4 }), { maxLength: 6 }), (inputs) => {
        for (const input of inputs) expect(byUs(input)).toEqual(byGrpc(input))
      })
    )
  })

  it("has values of its own", () => {
    const input = { k: ["x"] }
    copyUnsafe(input).add("k", "y")
    const copy = copyUnsafe(input)
    copy.clone().add("k", "z")
    expect(copy.get("k")).toEqual(["x"])
  })
})

describe("metadata with a value that a program does not have", () => {
  it.each([undefined, null, 5, {}])("%s is refused at both ends, and none of them throws", (odd) => {
    const given = new Metadata()
    given.set("k", odd as never)
    const what = { detail: 'Metadata key "k" has a value that is neither text nor bytes' }
    expect(checked(given)).toMatchObject(what)
    for (const usual of [undefined, { a: "x" }])
      expect(callMetadata(usual, given, undefined, undefined, "/a/b")).toMatchObject({
        code: 3,
        details: expect.stringContaining(what.detail)
      })
  })
})

describe("the keys that were let in", () => {
  it("are not kept where they are long, however many there were", () => {
    const before = liveBytes()
    for (let each = 0; each < 500; each++) {
      const key = `${each}${"k".repeat(60_000)}`
      expect(copyUnsafe({ [key]: "x" }).get(key)[0]).toBe("x")
    }
    // They are 30 MB.
    expect(liveBytes() - before).toBeLessThan(8_000_000)
  })
})

describe("more metadata than a connection carries", () => {
  const large = { k: Array.from({ length: 1_000 }, () => "x".repeat(60)) }

  it("is refused at a client, also in an object that is only like grpc-js'", () => {
    const like = new Metadata()
    for (const text of large.k) like.add("k", text)
    const foreign = { toHttp2Headers: () => ({}), toJSON: () => like.toJSON(), clone: () => foreign }
    for (const input of [large, like, foreign as unknown as Metadata])
      expect(callMetadata(input, undefined, undefined, undefined, "/a/b")).toBeInstanceOf(GrpcError)
  })

  it("is refused at a server", () => {
    expect(checked(large)).toBeInstanceOf(BadMetadata)
    expect(checked({ k: "x" })).toBeInstanceOf(Metadata)
  })
})
