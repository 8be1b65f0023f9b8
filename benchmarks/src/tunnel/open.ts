/** Calls that arrive on schedule, whether or not earlier ones have been answered. */
import { type Options, wanted } from "../harness/options.ts"
import { median, type Row } from "../harness/row.ts"
import { limitOf, names, ours, withAll, withPairs } from "./common.ts"
import type { OpenResult } from "./load.ts"
import type { Kind, WithCpu } from "./pair.ts"
import { inRounds, rowOf } from "./rounds.ts"

type Result = OpenResult & WithCpu

const rates = [1_000, 5_000, 20_000]
const highest = rates.at(-1)
/** Where a batch is a call, and what moves it is most of what it costs. */
const lowest = rates[0]

/** As many streams as one tunnel takes by default. */
const cap = 1_000

const text = (rate: number): string => `open loop, ${rate.toLocaleString("en")} calls/s`
const rowsOf = (rate: number, kind: Kind) => ({
  p99: `${text(rate)}, p99: ${names[kind]}`,
  cpu: `${text(rate)}, CPU for a call, both ends: ${names[kind]}`,
  sustained: `${text(rate)}, answered: ${names[kind]}`
})

const share = (results: ReadonlyArray<Result>, of: (result: Result) => number): string =>
  `${(100 * median(results.map((result) => of(result) / result.offered))).toFixed(1)} %`

const sayings = (results: ReadonlyArray<Result>, bound: string): string => {
  const dropped = results.some((result) => result.dropped > 0)
  const slow = `p50 ${median(results.map(({ p50 }) => p50)).toFixed(2)} ms`
  return dropped
    ? `${slow}, ${share(results, (result) => result.dropped)} not even made at ${cap} outstanding, so its times are ${bound}`
    : slow
}

const cost = (results: ReadonlyArray<Result>): number => median(results.map(({ cpuPerCall }) => cpuPerCall))

const limit = (bare: ReadonlyArray<Result>, direct: ReadonlyArray<Result>): string =>
  `${cost(bare).toFixed(0)} µs, direct ${(cost(direct) / cost(bare)).toFixed(2)} x that`

export const openRows = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const isWanted = (rate: number, kind: Kind): boolean =>
    Object.values(rowsOf(rate, kind)).some((row) => wanted(options, row))
  const chosen = rates
    .map((rate) => ({ rate, kinds: ours.filter((kind) => isWanted(rate, kind)) }))
    .filter(({ kinds }) => kinds.length > 0)
  if (chosen.length === 0) return []
  const bare = (rate: number): ReadonlyArray<Kind> => (rate === lowest ? ["bare"] : [])
  const kinds = [
    ...new Set<Kind>(chosen.flatMap(({ kinds, rate }) => ["direct", ...bare(rate), ...kinds] as const))
  ]
  return withPairs(options, kinds, async (pairs) => {
    const rows: Array<Row> = []
    for (const { kinds, rate } of chosen) {
      const open = { rate, millis: (options.seconds ?? 1) * 1_000, cap, patience: 10_000 }
      const results = (await inRounds(
        text(rate),
        options.rounds ?? 5,
        Object.fromEntries(
          (["direct", ...bare(rate), ...kinds] as const).map((kind) => [kind, () => pairs[kind].open(open)])
        )
      )) as Readonly<Record<Kind, ReadonlyArray<Result>>>
      for (const kind of kinds) {
        const [own, peer, row] = [results[kind], results.direct, rowsOf(rate, kind)]
        const common = { better: "lower", peerName: names.direct } as const
        rows.push(
          rowOf({
            ...common,
            row: row.p99,
            unit: "ms",
            target: 1,
            ours: own.map(({ p99AtMost }) => p99AtMost),
            peer: peer.map(({ p99 }) => p99),
            note: `${withAll}; ours ${sayings(own, "those of whoever gives up")}; direct ${sayings(peer, "lower bounds")}`
          }),
          rowOf({
            ...common,
            row: row.cpu,
            unit: "µs",
            target: 2,
            ours: own.map(({ cpuPerCall }) => cpuPerCall),
            peer: peer.map(({ cpuPerCall }) => cpuPerCall),
            note: rate === lowest ? limitOf(limit(results.bare, peer)) : undefined
          })
        )
        if (rate !== highest) continue
        const perSecond = (calls: number) => (calls * 1_000) / open.millis
        rows.push(
          rowOf({
            row: row.sustained,
            unit: "calls/s",
            better: "higher",
            target: 0.99,
            peerName: "what was offered",
            ours: own.map(({ inTime }) => perSecond(inTime)),
            peer: own.map(({ offered }) => perSecond(offered)),
            note: `direct grpc-js answered ${share(peer, ({ inTime }) => inTime)} in time`
          })
        )
      }
    }
    return rows.filter(({ row }) => wanted(options, row))
  })
}
