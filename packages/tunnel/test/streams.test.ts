/** The list and the table of a tunnel's streams, beside a `Set` and a `Map` that do the same. */
import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import { type Listed, type Numbered, StreamList, StreamTable } from "../src/internal/streams.ts"

class Stream implements Listed, Numbered {
  before: Listed | undefined
  after: Listed | undefined
  listed = false
  sameSlot: Numbered | undefined
  readonly id: number
  constructor(id: number) {
    this.id = id
  }
}

/** True: the next stream comes. A number: the stream of that place among those that came goes, perhaps once more. */
const steps = fc.array(fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, fc.nat(400)), { maxLength: 400 })

/** Ids that come in order, near each other or far apart, and far beyond 32 bits. */
const ids = fc.record({ first: fc.constantFrom(0, 1, 2 ** 40), stride: fc.constantFrom(1, 2, 64, 4096) })

describe("the streams of a tunnel", () => {
  it("are those that came and have not gone, in their order and by their ids", () => {
    fc.assert(
      fc.property(steps, ids, (all, { first, stride }) => {
        const list = new StreamList<Stream>()
        const table = new StreamTable<Stream>()
        const came: Array<Stream> = []
        const alive = new Map<number, Stream>()
        for (const step of all) {
          if (step === true) {
            const stream = new Stream(first + came.length * stride)
            came.push(stream)
            list.add(stream)
            table.add(stream)
            alive.set(stream.id, stream)
          } else {
            const stream = came[step % Math.max(1, came.length)]
            if (stream === undefined) continue
            list.delete(stream)
            table.delete(stream.id)
            alive.delete(stream.id)
          }
          expect(table.size).toBe(alive.size)
        }
        expect([...list]).toEqual([...alive.values()])
        for (const { id } of came) expect(table.get(id)).toBe(alive.get(id))
        expect(table.get(-1)).toBe(undefined)
      })
    )
  })

  it("hold nothing of what is over", () => {
    const list = new StreamList<Stream>()
    const table = new StreamTable<Stream>()
    const streams = Array.from({ length: 1_000 }, (_, id) => new Stream(id))
    for (const stream of streams) {
      list.add(stream)
      table.add(stream)
    }
    for (const stream of streams) {
      list.delete(stream)
      table.delete(stream.id)
      expect([stream.before, stream.after, stream.sameSlot]).toEqual([undefined, undefined, undefined])
    }
    expect([...list]).toEqual([])
    expect(table.size).toBe(0)
  })

  it("come once, however often one is added", () => {
    const list = new StreamList<Stream>()
    const stream = new Stream(1)
    list.add(stream)
    list.add(stream)
    expect([...list]).toEqual([stream])
  })
})
