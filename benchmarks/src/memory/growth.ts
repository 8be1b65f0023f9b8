/**
 * Whether one more costs more where many are: what it takes to open and to end a thing, and what it holds, with a hundred
 * thousand open and with a thousand, again and again. Ours is the hundred thousand, the peer the thousand.
 */
import { Child } from "../harness/child.ts"
import { compare } from "../harness/compare.ts"
import { type Options, wanted } from "../harness/options.ts"
import { median, type Row } from "../harness/row.ts"
import { figure } from "../harness/table.ts"
import type { Thing, Time } from "./growthEnd.ts"
import { Pair } from "./pair.ts"

const many = 100_000
const few = 1_000

/** At most one and a half times what it is with few. */
const target = 1 / 1.5

interface Sizes {
  readonly open: number
  readonly times: number
}

interface Growth {
  readonly row: string
  readonly unit: string
  readonly rounds: number
  /** How often the thousand are opened and ended, so that it takes long enough to be measured. */
  readonly times: number
  readonly measure: (sizes: Sizes) => Promise<number>
}

const compared = ({ measure, rounds, row, times, unit }: Growth): Promise<ReadonlyArray<Row>> =>
  compare({
    row,
    unit,
    better: "lower",
    target,
    rounds,
    ours: { name: "100,000 open", measure: () => measure({ open: many, times: 1 }) },
    peers: [{ name: "1,000 open", measure: () => measure({ open: few, times }) }]
  })

/** The median of the time that was the collector's, and what remains without it. */
const withoutPauses = (taken: ReadonlyArray<Time & Sizes>): string => {
  const of = (open: number) => {
    const these = taken.filter((one) => one.open === open)
    return {
      pauses: median(these.map(({ pauses }) => pauses)),
      rest: median(these.map(({ all, pauses }) => all - pauses))
    }
  }
  const [full, empty] = [of(many), of(few)]
  return `the collector's pauses in it: ${figure(full.pauses)} and ${figure(empty.pauses)} µs; without them ${figure(full.rest)} and ${figure(empty.rest)}, ratio ${figure(empty.rest / full.rest)}`
}

/** The same of one kind of thing, in a process of its own. */
const grown = async (
  thing: Thing,
  what: "time" | "heap",
  row: string,
  rounds: number
): Promise<ReadonlyArray<Row>> => {
  await using child = await Child.start(new URL("./growthEnd.ts", import.meta.url))
  const taken: Array<Time & Sizes> = []
  const measure = async (sizes: Sizes): Promise<number> => {
    if (what === "heap") return await child.ask<number>("heap", { thing, ...sizes })
    const time = await child.ask<Time>("time", { thing, ...sizes })
    taken.push({ ...time, ...sizes })
    return time.all
  }
  const times = what === "heap" ? 1 : many / few
  // Until the code is compiled and the heap has taken its size.
  for (let i = 0; i < 2; i++) {
    await measure({ open: few, times })
    await measure({ open: many, times: 1 })
  }
  taken.length = 0
  const rows = await compared({ row, unit: what === "heap" ? "B" : "µs", rounds, times, measure })
  return what === "heap" ? rows : rows.map((one) => ({ ...one, note: withoutPauses(taken) }))
}

const local = async (options: Options, rounds: number): Promise<ReadonlyArray<Row>> => {
  const rows: Array<Row> = []
  for (const what of ["time", "heap"] as const) {
    const asked = (["tasks", "waiters", "scopes"] as const)
      .map((thing) => ({ thing, row: `growth, ${thing}: ${what} of one` }))
      .filter(({ row }) => wanted(options, row))
    if (asked.length === 0) continue
    // What a heap of that size costs whoever fills it: no primitive can grow by less than the fibers that it starts.
    const [raw] = await grown("fibers", what, `growth, fibers of raw Effect: ${what} of one`, rounds)
    for (const { row, thing } of asked)
      for (const one of await grown(thing, what, row, rounds))
        rows.push({
          ...one,
          note: `${one.note === undefined ? "" : `${one.note}; `}fibers of raw Effect beside it: ${figure(raw?.ours ?? 0)} and ${figure(raw?.peer ?? 0)} ${one.unit}, ratio ${figure(raw?.ratio ?? 0)}`
        })
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
    await time({ open: few, times: 5 })
    rows.push(...(await compared({ row, unit, rounds, times: 20, measure: what === "time" ? time : heap })))
  }
  return rows
}

export const growthRows = async (options: Options): Promise<ReadonlyArray<Row>> => [
  ...(await local(options, options.rounds ?? 5)),
  ...(await streams(options, options.rounds ?? 2))
]
