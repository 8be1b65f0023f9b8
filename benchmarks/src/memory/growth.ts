/**
 * Whether one more costs more where many are: what it takes to open and to end a thing, and what it holds, with a hundred
 * thousand open and with a thousand. Ours is the hundred thousand; the peer is the thousand, repeated to as many in all.
 */
import { Child } from "../harness/child.ts"
import { compare } from "../harness/compare.ts"
import { type Options, wanted } from "../harness/options.ts"
import type { Row } from "../harness/row.ts"
import { Pair } from "./pair.ts"

const many = 100_000
const few = 1_000

/** At most one and a half times what it is with few. */
const target = 1 / 1.5

const comparison = {
  better: "lower",
  target,
  ours: "100,000 open",
  peer: "1,000 open"
} as const

interface Sizes {
  readonly open: number
  readonly times: number
}

const compared = (
  row: string,
  unit: string,
  rounds: number,
  measure: (sizes: Sizes) => Promise<number>
): Promise<ReadonlyArray<Row>> =>
  compare({
    row,
    unit,
    better: comparison.better,
    target: comparison.target,
    rounds,
    warmups: 1,
    ours: { name: comparison.ours, measure: () => measure({ open: many, times: 1 }) },
    peers: [{ name: comparison.peer, measure: () => measure({ open: few, times: many / few }) }]
  })

const local = async (options: Options, rounds: number): Promise<ReadonlyArray<Row>> => {
  const rows: Array<Row> = []
  for (const thing of ["tasks", "waiters", "scopes"] as const)
    for (const [what, unit] of [
      ["time", "µs"],
      ["heap", "B"]
    ] as const) {
      const row = `growth, ${thing}: ${what} of one`
      if (!wanted(options, row)) continue
      await using child = await Child.start(new URL("./growthEnd.ts", import.meta.url))
      rows.push(
        ...(await compared(row, unit, rounds, ({ open, times }) =>
          // What a thousand hold is measured a few times over, not a hundred thousand at once.
          child.ask<number>(what, { thing, open, times: what === "heap" ? 1 : times })
        ))
      )
    }
  return rows
}

const streams = async (options: Options, rounds: number): Promise<ReadonlyArray<Row>> => {
  const rows: Array<Row> = []
  for (const [what, unit] of [
    ["time", "µs"],
    ["heap", "B"]
  ] as const) {
    const row = `growth, tunnelled streams: ${what} of one, both ends`
    if (!wanted(options, row)) continue
    await using pair = await Pair.start("stubs")
    const time = async ({ open, times }: Sizes): Promise<number> => {
      const before = await pair.cpu()
      for (let i = 0; i < times; i++) {
        await pair.open(open)
        await pair.close()
      }
      return ((await pair.cpu()) - before) / (open * times)
    }
    const heap = async ({ open }: Sizes): Promise<number> => {
      const before = await pair.memory()
      await pair.open(open)
      const after = await pair.memory()
      await pair.close()
      return (
        (after.client.heapUsed - before.client.heapUsed + after.server.heapUsed - before.server.heapUsed) /
        open
      )
    }
    rows.push(...(await compared(row, unit, rounds, what === "time" ? time : heap)))
  }
  return rows
}

export const growthRows = async (options: Options): Promise<ReadonlyArray<Row>> => [
  ...(await local(options, options.rounds ?? 5)),
  ...(await streams(options, options.rounds ?? 3))
]
