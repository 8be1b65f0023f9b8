/** What arrives together is handled over several turns, and nothing is lost or overtaken. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { framesPerTurn, Intake } from "../src/internal/intake.ts"
import { serverEnd } from "./support/engines.ts"
import { turns } from "./support/turns.ts"

const one = (number: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(number)
  return bytes
}

const intake = (alone?: () => boolean) => {
  const seen: Array<number> = []
  /** How much had been handled whenever what that caused was written. */
  const flushed: Array<number> = []
  let onSeen: (number: number) => void = () => undefined
  const see = (number: number): void => {
    seen.push(number)
    onSeen(number)
  }
  const made = new Intake(
    (bytes, start) => see(bytes.readUInt32BE(start)),
    (id) => see(id),
    () => flushed.push(seen.length),
    alone
  )
  let sent = 0
  const frames = (count: number): void => {
    for (let index = 0; index < count; index++) made.frame(one(sent++))
  }
  const piece = (): void => made.piece(sent++, -1, one(0))
  return { made, frames, piece, seen, flushed, whenSeen: (then: typeof onSeen) => (onSeen = then) }
}

const upTo = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index)

describe("the intake", () => {
  it.live("handles a few frames at once, and none of them later than in the turn they came", () =>
    Effect.gen(function* () {
      const { flushed, frames, seen } = intake()
      for (let round = 1; round <= 4; round++) {
        frames(framesPerTurn)
        expect(seen.length).toBe(round * framesPerTurn)
        yield* turns(2)
      }
      expect(flushed).toEqual([])
    })
  )

  it.live(
    "keeps the event loop awake once in several calls of a lone caller, and bounds what is handled all the same",
    () =>
      Effect.gen(function* () {
        const { frames, made, seen } = intake(() => true)
        const looks = () => (made as unknown as { due: unknown }).due !== undefined
        frames(framesPerTurn / 2 - 1)
        expect(looks()).toBe(false)
        frames(1)
        expect(looks()).toBe(true)
        yield* turns(2)
        expect(looks()).toBe(false)
        frames(2 * framesPerTurn)
        expect(seen.length).toBe(framesPerTurn / 2 + framesPerTurn)
        yield* turns(8)
        expect(seen).toEqual(upTo((framesPerTurn * 5) / 2))
        expect(looks()).toBe(false)
      })
  )

  it.live("puts the rest off until what the first ones caused has been written", () =>
    Effect.gen(function* () {
      const { flushed, frames, seen } = intake()
      frames(3 * framesPerTurn)
      expect(seen.length).toBe(framesPerTurn)
      yield* turns(8)
      expect(seen).toEqual(upTo(3 * framesPerTurn))
      expect(flushed).toEqual([framesPerTurn, 2 * framesPerTurn])
    })
  )

  it.live("handles half of what waits in each turn, when that is more", () =>
    Effect.gen(function* () {
      const { flushed, frames, seen } = intake()
      frames(framesPerTurn + 1_000)
      yield* turns(40)
      expect(seen.length).toBe(framesPerTurn + 1_000)
      const waited = flushed.map((handled) => framesPerTurn + 1_000 - handled)
      expect(waited).toEqual([1_000, 500, 250, 125, 62, 14])
    })
  )

  it.live("hands out everything before the end, also when a frame is what ends the carrier", () =>
    Effect.gen(function* () {
      const first = intake()
      first.frames(200)
      first.made.drain()
      expect(first.seen).toEqual(upTo(200))

      const second = intake()
      second.whenSeen((number) => {
        if (number === framesPerTurn + 3) second.made.drain()
      })
      second.frames(200)
      yield* turns(4)
      expect(second.seen).toEqual(upTo(200))
    })
  )

  it.live("hands on nothing once it is stopped, whatever still comes", () =>
    Effect.gen(function* () {
      const { frames, made, piece, seen } = intake()
      frames(200)
      made.stop()
      frames(1)
      piece()
      yield* turns(6)
      made.drain()
      expect(seen.length).toBe(framesPerTurn)
    })
  )

  const step = fc.oneof(
    fc.integer({ min: 1, max: 300 }),
    fc.constantFrom("piece" as const, "turn" as const, "drain" as const)
  )

  it("keeps the order of frames and pieces, and loses none", () =>
    fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (all) => {
        const { frames, made, piece, seen } = intake()
        let sent = 0
        for (const step of all) {
          if (step === "turn") await Effect.runPromise(turns(1))
          else if (step === "drain") {
            made.drain()
            expect(seen.length).toBe(sent)
          } else if (step === "piece") {
            piece()
            sent++
          } else {
            frames(step)
            sent += step
          }
        }
        await Effect.runPromise(turns(60))
        expect(seen).toEqual(upTo(sent))
      }),
      { numRuns: 60 }
    ))
})

describe("a tunnel", () => {
  it.live("answers the first calls of a full batch before it looks at the last ones", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      for (let id = 1; id <= 64; id++) end.call(id, "x")
      yield* turns(2)
      const first = end.written.filter(({ _tag }) => _tag === "CloseStream").length
      expect([first > 0, first < 64]).toEqual([true, true])
      for (let id = 1; id <= 64; id++) expect((yield* end.closeOf(id)).id).toBe(id)
    }).pipe(Effect.scoped)
  )

  it.live("takes everything that came before its peer finished", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      for (let id = 1; id <= 200; id++) end.open(id, "nothing")
      end.end()
      expect(yield* end.handle.closed).toEqual({ _tag: "ClosedByPeer" })
      expect((yield* end.handle.stats).refused).toBe(200)
    }).pipe(Effect.scoped)
  )
})
