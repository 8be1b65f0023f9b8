/**
 * Ratios that hold on a machine with neighbours.
 *
 * Invariants:
 * 1. Processor time of the thread, not time: what others take meanwhile is not in it.
 * 2. Batches are short and those of a row lie close together, in changing order: a machine that slows down slows both.
 * 3. The sums of many rounds: some systems count a thread's time in steps that are as long as a batch, so that one round says
 *    nothing, and its ratio may be anything. Over all rounds what is counted too much and too little is the same.
 */
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
  // The clock finds out how long a batch has to be: it has no steps.
  for (let spent = 0; spent < warmth; ) {
    const before = performance.now()
    await batch(times)
    const last = Math.max(1, (performance.now() - before) * 1_000)
    spent += last
    times = Math.max(32, Math.ceil(times * Math.min(4, moment / last)))
  }
  return {
    measure: async () => {
      const before = micros()
      await batch(times)
      return (micros() - before) / times
    }
  }
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

const mean = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

/** Where the thirds of the rounds begin and end: what their ratios differ by is told beside that of all. */
const blocks = (rounds: number): ReadonlyArray<readonly [number, number]> => {
  const third = Math.max(1, Math.floor(rounds / 3))
  return [
    [0, third],
    [Math.min(third, rounds - 1), Math.max(2 * third, 1)],
    [Math.min(2 * third, rounds - 1), rounds]
  ]
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
      const ratios = blocks(rounds).map(
        ([from, to]) => mean(others.slice(from, to)) / mean(owns.slice(from, to))
      )
      return {
        row: row.row,
        peerName: row.peerName,
        ours: mean(owns),
        peer: mean(others),
        ratio: mean(others) / mean(owns),
        range: [Math.min(...ratios), Math.max(...ratios)],
        rounds
      }
    }
  }
}
