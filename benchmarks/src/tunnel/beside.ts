/** Small calls that arrive on schedule, beside a stream of large messages in the same tunnel or channel. */
import { type Options, wanted } from "../harness/options.ts"
import { median, type Row } from "../harness/row.ts"
import type { BesideResult } from "./clientEnd.ts"
import { limitOf, names, ours, withPairs } from "./common.ts"
import type { Kind } from "./pair.ts"
import { inRounds, rowOf } from "./rounds.ts"

const rate = 500
const endless = 1_000_000
const saturating = { size: 1_000_000, count: endless, everyMillis: 0 }
const paced = { size: 1_000_000, count: endless, everyMillis: 50 }
const pace = 20

const all = ours.map((kind) => ({
  kind,
  saturated: `small calls beside a saturating stream of 1 MB messages, p99: ${names[kind]}`,
  paced: `small calls beside a stream paced at 20 MB/s, p99: ${names[kind]}`
}))

const p99 = (results: ReadonlyArray<BesideResult>): ReadonlyArray<number> => results.map(({ p99 }) => p99)
const speed = (results: ReadonlyArray<BesideResult>): string =>
  median(results.map(({ megabytesPerSecond }) => megabytesPerSecond)).toFixed(0)
const p50 = (results: ReadonlyArray<BesideResult>): string => median(results.map(({ p50 }) => p50)).toFixed(2)

export const besideRows = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const chosen = all.filter(({ paced, saturated }) => wanted(options, paced) || wanted(options, saturated))
  if (chosen.length === 0) return []
  const kinds: ReadonlyArray<Kind> = ["direct", ...chosen.map(({ kind }) => kind)]
  const bare: ReadonlyArray<Kind> = chosen.some(({ paced }) => wanted(options, paced)) ? ["bare"] : []
  const rounds = options.rounds ?? 5
  const small = { rate, millis: (options.seconds ?? 1.5) * 1_000, cap: 1_000, patience: 10_000, spin: true }
  const givenUp = small.millis + small.patience
  return withPairs(options, [...kinds, ...bare], async (pairs) => {
    const rows: Array<Row> = []
    const saturated = await inRounds(
      "small calls beside a saturating stream",
      chosen.some(({ saturated }) => wanted(options, saturated)) ? rounds : 0,
      Object.fromEntries(kinds.map((kind) => [kind, () => pairs[kind].beside({ small, stream: saturating })]))
    )
    for (const { kind, saturated: row } of chosen) {
      const [own, direct] = [saturated[kind] ?? [], saturated["direct"] ?? []]
      if (own.length === 0 || !wanted(options, row)) continue
      // Nor does a small call win by starving the stream that it goes beside.
      const starved = (each: BesideResult, round: number): boolean =>
        each.megabytesPerSecond < 0.25 * (direct[round]?.megabytesPerSecond ?? 0)
      const failed = own.filter(starved).length
      rows.push(
        rowOf({
          row,
          unit: "ms",
          better: "lower",
          target: 2,
          peerName: names.direct,
          ours: own.map((each, round) => (starved(each, round) ? givenUp : each.p99AtMost)),
          peer: p99(direct),
          note: `${rate} calls/s on schedule; p50 ${p50(own)} and ${p50(direct)} ms; the stream had ${speed(own)} and ${speed(direct)} MB/s${failed === 0 ? "" : `, less than a quarter of direct's in ${failed} rounds, which count as failed`}`
        })
      )
    }
    for (const { kind, paced: row } of chosen) {
      if (!wanted(options, row)) continue
      const results = await inRounds(row, rounds, {
        beside: () => pairs[kind].beside({ small, stream: paced }),
        alone: () => pairs[kind].beside({ small }),
        bareBeside: () => pairs.bare.beside({ small, stream: paced }),
        bareAlone: () => pairs.bare.beside({ small })
      })
      const bare = results.bareBeside.map(({ p99 }, round) => p99 / (results.bareAlone[round]?.p99 ?? 0))
      // Beside a stream that falls behind is easier: such a round counts with all the time that there was.
      const fellBehind = ({ megabytesPerSecond }: BesideResult): boolean => megabytesPerSecond < 0.75 * pace
      const slow = results.beside.filter(fellBehind).length
      rows.push(
        rowOf({
          row,
          unit: "ms",
          better: "lower",
          target: 1 / 1.5,
          peerName: "the same calls alone",
          ours: results.beside.map((each) => (fellBehind(each) ? givenUp : each.p99AtMost)),
          peer: p99(results.alone),
          note: `${rate} calls/s on schedule; p50 ${p50(results.beside)} and ${p50(results.alone)} ms; the stream had ${speed(results.beside)} MB/s${slow === 0 ? "" : ` and fell behind its pace in ${slow} rounds, which count as failed`}; ${limitOf(`p99 ${median(bare).toFixed(1)} times that of the same alone`)}`
        })
      )
    }
    return rows
  })
}
