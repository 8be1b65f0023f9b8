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

/** A young generation that holds all that a measurement makes, in megabytes: nothing is collected while it runs. */
const roomy = ["--min-semi-space-size=1024", "--max-semi-space-size=1024"]

interface Asked {
  readonly thing: Thing
  /** What each that is laden holds beside itself. */
  readonly bytes?: number
}

interface Grown {
  readonly rows: ReadonlyArray<Row>
  /** Microseconds in which the program stood still for the collector: the median of each size. */
  readonly pauses: { readonly many: number; readonly few: number }
}

/** One kind of thing, in a process of its own. */
const grown = async (
  asked: Asked,
  what: "time" | "heap",
  row: string,
  rounds: number,
  nodeArgs: ReadonlyArray<string> = []
): Promise<Grown> => {
  await using child = await Child.start(new URL("./growthEnd.ts", import.meta.url), { nodeArgs })
  const taken: Array<Time & Sizes> = []
  const measure = async (sizes: Sizes): Promise<number> => {
    if (what === "heap") return await child.ask<number>("heap", { ...asked, ...sizes })
    const time = await child.ask<Time>("time", { ...asked, ...sizes })
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
  const pauses = (open: number) =>
    taken.length === 0 ? 0 : median(taken.filter((one) => one.open === open).map((one) => one.pauses))
  return { rows, pauses: { many: pauses(many), few: pauses(few) } }
}

const said = (row: Row): string =>
  `${figure(row.ours)} and ${figure(row.peer)} ${row.unit}, ratio ${figure(row.ratio)}`

/** How many bytes one holds of what is open a thousand times. */
const held = async (asked: Asked): Promise<number> => {
  await using child = await Child.start(new URL("./growthEnd.ts", import.meta.url))
  const sizes = { ...asked, open: few, times: 1 }
  await child.ask<number>("heap", sizes)
  return await child.ask<number>("heap", { ...sizes, times: 10 })
}

/**
 * What a heap of that size costs: the same where nothing is collected, and fibers of raw Effect that hold as many bytes. That
 * is a yardstick and no bound: how many objects hold the bytes matters as well.
 */
const beside = async (thing: Thing, { pauses }: Grown, rounds: number): Promise<string> => {
  const bytes = Math.max(0, (await held({ thing })) - (await held({ thing: "laden" })))
  const row = (kind: string) => `growth, ${thing}: ${kind}`
  const laden = await grown({ thing: "laden", bytes }, "time", row("fibers of as many bytes"), rounds)
  const calm = await grown({ thing }, "time", row("nothing collected"), rounds, roomy)
  const { few, many } = calm.pauses
  const left = few + many > 0 ? ` (pauses of ${figure(many)} and ${figure(few)} µs are left)` : ""
  return [
    `the collector's pauses in it: ${figure(pauses.many)} and ${figure(pauses.few)} µs`,
    ...calm.rows.map(
      (one) =>
        `with a young generation that holds all of them, so that nothing is collected, ${said(one)}${left}`
    ),
    ...laden.rows.map((one) => `fibers of raw Effect that hold as many bytes: ${said(one)}`)
  ].join("; ")
}

const local = async (options: Options, rounds: number): Promise<ReadonlyArray<Row>> => {
  const rows: Array<Row> = []
  for (const thing of ["tasks", "waiters", "scopes"] as const) {
    const row = `growth, ${thing}: time of one`
    if (!wanted(options, row)) continue
    const own = await grown({ thing }, "time", row, rounds)
    const note = await beside(thing, own, rounds)
    rows.push(...own.rows.map((one) => ({ ...one, note })))
  }
  for (const thing of ["tasks", "waiters", "scopes"] as const) {
    const row = `growth, ${thing}: heap of one`
    if (!wanted(options, row)) continue
    rows.push(...(await grown({ thing }, "heap", row, rounds)).rows)
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
