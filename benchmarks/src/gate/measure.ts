/**
 * Ratios that hold on a machine with neighbours.
 *
 * Invariants:
 * 1. Processor time of the thread, not time: what others take meanwhile is not in it.
 * 2. Batches are short and those of a row lie close together, in changing order: a machine that slows down slows both.
 * 3. The median of many rounds: a round in which a heap was compacted or code thrown away counts as one.
 */
import { median } from "../harness/row.ts"
import type { Batch } from "../primitives/batches.ts"
import type { GateRow } from "./contests.ts"

/** Microseconds of a batch, and before the code counts as warm. */
const moment = 6_000
const warmth = 250_000

const micros = (): number => {
  const { system, user } = process.threadCpuUsage()
  return system + user
}

interface Warm {
  /** Microseconds an operation. */
  readonly measure: () => Promise<number>
}

const warm = async (batch: Batch): Promise<Warm> => {
  let times = 32
  const timed = async (): Promise<number> => {
    const before = micros()
    await batch(times)
    return micros() - before
  }
  for (let spent = 0; spent < warmth; ) {
    const last = Math.max(1, await timed())
    spent += last
    times = Math.max(32, Math.ceil(times * Math.min(4, moment / last)))
  }
  return { measure: async () => (await timed()) / times }
}

export interface Measured {
  readonly row: string
  readonly peerName: string
  readonly ours: number
  readonly peer: number
  /** Of the peer's to ours: less processor is better, and the ratio higher. */
  readonly ratio: number
  readonly range: readonly [number, number]
  readonly rounds: number
}

export interface Warmed {
  /** So many rounds. */
  readonly run: (rounds: number) => Promise<Measured>
}

/** A planted fault: what an operation takes, three times over. */
const slowed = ({ measure }: Warm): Warm => ({
  measure: async () => (await measure()) + (await measure()) + (await measure())
})

export const prepare = async (row: GateRow, planted: boolean): Promise<Warmed> => {
  const warmed = await warm(await row.ours())
  const ours = planted ? slowed(warmed) : warmed
  const other = await warm(await row.peer())
  return {
    run: async (rounds) => {
      const owns: Array<number> = []
      const others: Array<number> = []
      for (let round = 0; round < rounds; round++) {
        const order = round % 2 === 0 ? ([ours, other] as const) : ([other, ours] as const)
        for (const one of order) (one === ours ? owns : others).push(await one.measure())
      }
      const ratios = owns.map((value, round) => (others[round] as number) / value)
      return {
        row: row.row,
        peerName: row.peerName,
        ours: median(owns),
        peer: median(others),
        ratio: median(ratios),
        range: [Math.min(...ratios), Math.max(...ratios)],
        rounds
      }
    }
  }
}
