/**
 * One contestant of one row, in a process of its own: `contestEnd.ts <group> <row> <place>`.
 *
 * A process for each, because V8 specialises code for what it has seen. Side by side in one process the later ones would
 * run through call sites of Effect that the earlier ones had made megamorphic; a program has one of them, not all.
 */
import * as Effect from "effect/Effect"
import { answer, collectYoung, cpuMicros } from "../harness/child.ts"
import type { Batch } from "./batches.ts"
import { groups } from "./groups.ts"
import { type Contest, contestsOf, type Primitive } from "./primitive.ts"

const [group = "", row = "", place = "0"] = process.argv.slice(2)
const primitive = (await (groups[group] as (typeof groups)[string])()).find(
  (one) => one.row === row
) as Primitive
const contest = contestsOf(primitive)[Number(place)] as Contest
const batch: Batch = await contest.batch()

/** How much processor a batch takes, and how much goes by before the code counts as warm, in microseconds. */
const moment = 25_000
const warmth = 400_000

let times = primitive.times ?? 64

const timed = async (): Promise<number> => {
  const before = cpuMicros()
  await batch(times)
  return cpuMicros() - before
}

/** Every fiber takes the next number. */
const fibers = (): number => Effect.runSync(Effect.withFiberSucceed((fiber) => fiber.id))

answer({
  warm: async (): Promise<{ readonly times: number; readonly forks: number }> => {
    for (let spent = 0, last = 0; spent < warmth; spent += last) {
      last = Math.max(1, await timed())
      if (primitive.times === undefined && last < moment)
        times = Math.ceil(times * Math.min(4, (1.2 * moment) / last))
    }
    const before = fibers()
    await batch(times)
    // Two of them are the loop's own and the one that asks.
    const forks = Math.max(0, fibers() - before - 2) / times
    return { times, forks }
  },
  /** Microseconds of processor an operation: what other programs take meanwhile is not in it, collecting its garbage is. */
  measure: async (): Promise<number> => {
    collectYoung()
    return (await timed()) / times
  }
})
