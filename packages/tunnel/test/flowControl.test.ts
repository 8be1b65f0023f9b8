import { describe, expect, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Assembler, type Step } from "../src/internal/assembler.ts"
import { decodeClientFrame } from "../src/internal/decode.ts"
import { Encoder } from "../src/internal/encode.ts"
import { type ClientFrame, maxChunk, maxUint32 } from "../src/internal/frame.ts"
import { Growth } from "../src/internal/growth.ts"
import { ReceiveWindow, SendWindow, UnreadBytes } from "../src/internal/window.ts"
import { Outbound, Outbox } from "../src/internal/writer.ts"

describe("a send window", () => {
  it("saturates instead of wrapping", () => {
    const window = new SendWindow(maxUint32, 1)
    window.grant(1)
    expect(window.credit).toBe(maxUint32)
  })

  it("tells when credit comes back after there was none", () => {
    const window = new SendWindow(0, 1)
    expect(window.grant(0)).toBe(false)
    expect(window.grant(5)).toBe(true)
    expect(window.grant(5)).toBe(false)
  })
})

describe("without flow control", () => {
  it("a sender has credit without end, whatever it sends and is granted", () => {
    const window = new SendWindow(0, 0)
    window.spend(maxUint32)
    expect(window.grant(1)).toBe(false)
    expect(window.credit).toBe(Number.POSITIVE_INFINITY)
  })

  it("a receiver takes what comes until too much is unread, and announces nothing", () => {
    const unread = new UnreadBytes(10)
    expect(unread.receive(10)).toBe(true)
    expect(unread.consume(4)).toBe(0)
    expect(unread.receive(4)).toBe(true)
    expect(unread.receive(1)).toBe(false)
  })
})

describe("a receive window", () => {
  it("takes exactly its size and not one byte more", () => {
    const window = new ReceiveWindow(new Growth(10))
    expect(window.receive(10)).toBe(true)
    expect(window.receive(1)).toBe(false)
    expect(window.receive(0)).toBe(true)
  })

  it("never stalls a peer whose bytes are consumed, and never lets it send more than the window", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100 }),
        fc.array(fc.nat(40), { maxLength: 60 }),
        (limit, sizes) => {
          const window = new ReceiveWindow(new Growth(limit))
          let credit = limit
          for (const wanted of sizes) {
            expect(credit).toBeGreaterThan(0)
            const length = Math.min(wanted, credit)
            credit -= length
            expect(window.receive(length)).toBe(true)
            credit += window.consume(length)
            expect(credit).toBeLessThanOrEqual(limit)
          }
        }
      )
    )
  })
})

describe("a window that may grow", () => {
  /** A peer that always sends all that it may, and a reader that consumes at once. */
  const streaming = (window: ReceiveWindow, credit: number, rounds: number): ReadonlyArray<number> =>
    Array.from({ length: rounds }, () => {
      const length = credit
      expect(window.receive(length)).toBe(true)
      credit = window.consume(length)
      return credit
    })

  it("grows while its stream moves whole windows and its reader keeps up: near, where that pays, and no further", () => {
    let time = 0
    const near = new ReceiveWindow(new Growth(65_536, 4_194_304, 1e9, () => time), "/a/b")
    let credit = 65_536
    const grants = Array.from({ length: 6 }, () => {
      // An answer takes one millisecond, and a window ten.
      time += 1
      expect(near.receive(1)).toBe(true)
      time += 9
      expect(near.receive(credit - 1)).toBe(true)
      credit = near.consume(credit)
      return credit
    })
    expect(grants).toEqual([262_144, 262_144, 262_144, 262_144, 262_144, 262_144])
  })

  it("grows up to its limit where a window is moved in a round trip", () => {
    let time = 0
    const window = new ReceiveWindow(new Growth(65_536, 4_000_000, 1e9, () => time), "/a/b")
    let credit = 65_536
    const grants = Array.from({ length: 5 }, () => {
      time += 50
      expect(window.receive(credit)).toBe(true)
      credit = window.consume(credit)
      return credit
    })
    expect(grants).toEqual([262_144, 1_048_576, 4_000_000, 4_000_000, 4_000_000])
  })

  it("does not grow while its reader does not keep up", () => {
    const window = new ReceiveWindow(new Growth(100, 5000, 1_000_000), "/a/b")
    let granted = 0
    expect(window.receive(100)).toBe(true)
    for (let round = 0; round < 50; round++) {
      const increment = window.consume(10)
      granted += increment
      expect(window.receive(increment)).toBe(true)
      // Half of the window is unread at any time.
      if (round > 5) expect(granted).toBeLessThanOrEqual(10 * (round + 1))
    }
    expect(granted).toBe(500)
  })

  it("does not grow towards a peer that has not agreed", () => {
    const window = new ReceiveWindow(new Growth(100), "/a/b")
    expect(streaming(window, 100, 3)).toEqual([100, 100, 100])
    expect(window.expect(1_000_000)).toBe(0)
  })

  it("of a later stream of the same method begins with what the method came to need", () => {
    const growth = new Growth(100, 5000, 1_000_000)
    const first = new ReceiveWindow(growth, "/a/b")
    streaming(first, 100, 1)
    const [same, other] = ["/a/b", "/a/c"].map((method) => new ReceiveWindow(growth, method))
    expect([same?.start(), other?.start()]).toEqual([300, 0])
  })

  it("grants the rest of a message that is waited for, once, to a peer that is far away", () => {
    const growth = new Growth(100, 100, 0)
    const window = new ReceiveWindow(growth)
    expect(window.receive(100)).toBe(true)
    expect(window.expect(900)).toBe(0)
    growth.tookRoundTrip(50)
    expect(window.expect(900)).toBe(900)
    expect(window.expect(900)).toBe(0)
    // What was granted ahead is not granted again.
    expect(window.consume(100)).toBe(0)
    expect(window.receive(900)).toBe(true)
    expect(window.consume(900)).toBe(100)
  })

  it("keeps to what all may have together, whatever the streams do, and gives all of it back", () => {
    const event = fc.record({
      stream: fc.nat(4),
      send: fc.nat(3000),
      consume: fc.nat(3000),
      expect: fc.nat(5000)
    })
    fc.assert(
      fc.property(
        fc.array(event, { maxLength: 80 }),
        fc.integer({ min: 1, max: 2000 }),
        (events, together) => {
          const growth = new Growth(64, 2048, together)
          growth.tookRoundTrip(10)
          const streams = Array.from({ length: 5 }, (_, index) => {
            const window = new ReceiveWindow(growth, `/m/${index % 2}`)
            return { window, credit: 64 + window.start(), unread: 0, ahead: 0, extra: 0 }
          })
          for (const { consume, expect: rest, send, stream: index } of events) {
            const stream = streams[index] as (typeof streams)[number]
            const { window } = stream
            const length = Math.min(send, stream.credit)
            stream.credit -= length
            stream.unread += length
            expect(window.receive(length)).toBe(true)
            expect(window.receive(stream.credit + 1)).toBe(false)
            // A reader that waits has consumed what came.
            if (stream.unread === 0) {
              const more = window.expect(rest)
              stream.ahead += more
              stream.credit += more
            }
            const read = Math.min(consume, stream.unread)
            stream.unread -= read
            stream.ahead = Math.max(0, stream.ahead - read)
            stream.credit += window.consume(read)
            const beyond = streams.map((it) => Math.max(0, it.credit + it.unread - it.ahead - 64))
            expect(beyond.reduce((sum, extra) => sum + extra, 0)).toBeLessThanOrEqual(together)
          }
          for (const { window } of streams) window.close()
          expect(growth.inUse).toBe(0)
        }
      )
    )
  })
})

const messageOf = (step: Step): Buffer | undefined => (step._tag === "Taken" ? step.message : undefined)

/** Cuts messages into pieces, as a sender with changing credit does. */
const cut = (message: Buffer, cuts: ReadonlyArray<number>): ReadonlyArray<Buffer> => {
  const pieces: Array<Buffer> = []
  let rest = message
  for (const length of cuts) {
    pieces.push(rest.subarray(0, length))
    rest = rest.subarray(length)
  }
  return rest.length > 0 || pieces.length === 0 ? [...pieces, rest] : pieces
}

describe("an assembler", () => {
  it("hands out the messages that were cut, whatever the pieces and whenever somebody reads", () => {
    const message = fc.tuple(
      fc.uint8Array({ maxLength: 60 }).map((array) => Buffer.from(array)),
      fc.array(fc.nat(20), { maxLength: 6 })
    )
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 10 }),
        fc.array(fc.boolean(), { maxLength: 100 }),
        (messages, reads) => {
          const assembler = new Assembler(1000)
          const got: Array<Buffer> = []
          let consumed = 0
          let turn = 0
          const took = (step: Step): void => {
            expect(step._tag).toBe("Taken")
            if (step._tag !== "Taken") return
            consumed += step.consumed
            if (step.message !== undefined) got.push(step.message)
          }
          const maybeRead = (): void => {
            if (reads[turn++ % Math.max(1, reads.length)] === true && !assembler.wanted)
              took(assembler.read())
          }
          for (const [whole, cuts] of messages) {
            for (const [index, piece] of cut(whole, cuts).entries()) {
              maybeRead()
              // A message that is complete early takes no further pieces.
              if (index > 0 && !assembler.partial) continue
              took(index === 0 ? assembler.begin(whole.length, piece) : assembler.more(piece))
            }
          }
          while (assembler.unread) took(assembler.read())
          expect(got).toEqual(messages.map(([whole]) => whole))
          expect(consumed).toBe(messages.reduce((sum, [whole]) => sum + whole.length, 0))
        }
      )
    )
  })

  it.each([
    ["a continuation without a message", (it: Assembler) => it.more(Buffer.alloc(1)), "no-message-open"],
    [
      "a second message inside the first",
      (it: Assembler) => {
        it.begin(5, Buffer.alloc(1))
        return it.begin(1, Buffer.alloc(1))
      },
      "message-still-open"
    ],
    ["more bytes than announced", (it: Assembler) => it.begin(2, Buffer.alloc(3)), "too-many-bytes"],
    [
      "more bytes in a later piece",
      (it: Assembler) => {
        it.begin(2, Buffer.alloc(1))
        return it.more(Buffer.alloc(2))
      },
      "too-many-bytes"
    ],
    [
      "a message over the limit, on its first piece",
      (it: Assembler) => it.begin(101, Buffer.alloc(0)),
      "too-large"
    ]
  ] as const)("reports %s", (_what, act, fault) => {
    expect(act(new Assembler(100))).toEqual({ _tag: "Fault", fault })
  })

  it("consumes nothing while nobody reads, and the pieces of a partial message while somebody does", () => {
    const assembler = new Assembler(100)
    expect(assembler.begin(10, Buffer.alloc(4))).toEqual({ _tag: "Taken", consumed: 0, message: undefined })
    expect(assembler.read()).toEqual({ _tag: "Taken", consumed: 4, message: undefined })
    expect(assembler.more(Buffer.alloc(5))).toMatchObject({ consumed: 5 })
    expect(messageOf(assembler.more(Buffer.alloc(1)))?.length).toBe(10)
  })

  it("keeps no view of the pieces it was given, however small they are", () => {
    const assembler = new Assembler(100)
    const give = (text: string, take: (piece: Buffer) => Step): void => {
      const piece = Buffer.from(Buffer.allocUnsafeSlow(text.length).fill(text).buffer)
      take(piece)
      piece.fill("x")
    }
    give("a", (piece) => assembler.begin(4, piece))
    give("bc", (piece) => assembler.more(piece))
    give("d", (piece) => assembler.more(piece))
    expect(messageOf(assembler.read())?.toString()).toBe("abcd")
  })

  it("pins no large buffer with the message that a waiting reader gets", () => {
    const assembler = new Assembler(100)
    assembler.read()
    const message = messageOf(assembler.begin(3, Buffer.alloc(100_000).subarray(0, 3)))
    expect(message?.length).toBe(3)
    expect(message?.buffer.byteLength).toBeLessThan(100_000)
  })

  it("counts runs of empty messages instead of storing them", () => {
    const assembler = new Assembler(100)
    for (let count = 0; count < 1000; count++) assembler.begin(0, Buffer.alloc(0))
    let read = 0
    while (assembler.unread) if (messageOf(assembler.read())?.length === 0) read++
    expect(read).toBe(1000)
  })
})

const drain = (outbox: Outbox): ReadonlyArray<ClientFrame> => {
  const encoder = new Encoder()
  const sent: Array<() => void> = []
  outbox.fill(encoder, sent)
  for (const onSent of sent) onSent()
  return encoder.take().map((bytes) => decodeClientFrame(Buffer.from(bytes)) as ClientFrame)
}

const brief = (frames: ReadonlyArray<ClientFrame>): ReadonlyArray<string> =>
  frames.map((frame) => `${frame.id} ${frame._tag}${"data" in frame ? ` ${frame.data.length}` : ""}`)

const outbound = (id: number, credit: number): Outbound => new Outbound(new SendWindow(credit, 1), id)

describe("the outbox of a tunnel", () => {
  it("cuts a message at 16 KiB and at the credit there is", () => {
    const outbox = new Outbox()
    const stream = outbound(1, 10)
    outbox.message(stream, Buffer.alloc(35), () => undefined)
    expect(brief(drain(outbox))).toEqual(["1 Message 10"])
    expect(outbox.hasWork).toBe(false)
    stream.window.grant(7)
    outbox.enlist(stream)
    expect(brief(drain(outbox))).toEqual(["1 MoreData 7"])
    stream.window.grant(1000)
    outbox.enlist(stream)
    expect(brief(drain(outbox))).toEqual(["1 MoreData 18"])
  })

  it("gives streams turns of one piece each, and bounds the batch", () => {
    const outbox = new Outbox()
    for (const id of [1, 2]) outbox.message(outbound(id, 1_000_000), Buffer.alloc(200_000), () => undefined)
    const small = outbound(3, 1_000_000)
    outbox.message(small, Buffer.alloc(5), () => undefined)
    outbox.halfClose(small)
    expect(brief(drain(outbox))).toEqual([
      `1 Message ${maxChunk}`,
      `2 Message ${maxChunk}`,
      "3 Message 5",
      "3 HalfClose",
      `1 MoreData ${maxChunk}`,
      `2 MoreData ${maxChunk}`
    ])
  })

  it("sends urgent frames before data, and one update for all that a stream consumed", () => {
    const outbox = new Outbox()
    const stream = outbound(1, 100)
    outbox.message(stream, Buffer.alloc(5), () => undefined)
    outbox.announce(stream, 10)
    outbox.announce(stream, 20)
    outbox.urgent({ _tag: "Cancel", id: 2 })
    const frames = drain(outbox)
    expect(frames.map((frame) => frame._tag)).toEqual(["Cancel", "WindowUpdate", "Message"])
    expect(frames[1]).toMatchObject({ increment: 30 })
  })

  it("sends nothing of a stream that was discarded while it stood in the ring", () => {
    const outbox = new Outbox()
    const gone = outbound(1, 100)
    outbox.message(gone, Buffer.alloc(50_000), () => undefined)
    outbox.message(outbound(2, 100), Buffer.alloc(5), () => undefined)
    outbox.discard(gone)
    expect(brief(drain(outbox))).toEqual(["2 Message 5"])
  })

  it("keeps nothing of what is over, for as long as its peer does not read", () => {
    const outbox = new Outbox()
    for (let id = 1; id <= 1000; id++) {
      const stream = outbound(-1, 100)
      outbox.urgent({ _tag: "NewStream", id, method: "/a/b", headers: undefined, window: 1, revision: 1 })
      outbox.open(stream, id)
      outbox.message(stream, Buffer.alloc(5), () => undefined)
      outbox.announce(stream, 10)
      expect(outbox.backlog).toBe(3)
      outbox.discard(stream)
      expect(outbox.retract(id)).toBe(true)
      expect(outbox.backlog).toBe(0)
    }
    expect(drain(outbox)).toEqual([])
  })

  it("takes a new stream back until it has left, and no other one", () => {
    const outbox = new Outbox()
    const opened = (id: number) =>
      outbox.urgent({ _tag: "NewStream", id, method: "/a/b", headers: undefined, window: 1, revision: 1 })
    opened(1)
    opened(2)
    opened(3)
    expect(outbox.retract(2)).toBe(true)
    expect(outbox.retract(2)).toBe(false)
    expect(brief(drain(outbox))).toEqual(["1 NewStream", "3 NewStream"])
    expect(outbox.retract(3)).toBe(false)
  })

  it("holds back an empty message while there is no credit, and everything of a stream without an id", () => {
    const outbox = new Outbox()
    const stream = outbound(1, 0)
    outbox.message(stream, Buffer.alloc(0), () => undefined)
    const unopened = new Outbound(new SendWindow(100, 1))
    outbox.message(unopened, Buffer.alloc(1), () => undefined)
    expect(drain(outbox)).toEqual([])
    stream.window.grant(1)
    outbox.enlist(stream)
    outbox.open(unopened, 2)
    expect(brief(drain(outbox))).toEqual(["1 Message 0", "2 Message 1"])
  })

  it("limits the answers that a peer can provoke without reading", () => {
    const outbox = new Outbox()
    let provoked = 0
    while (outbox.provoked({ _tag: "Cancel", id: provoked })) provoked++
    expect(provoked).toBe(65_536)
  })
})
