/** Unary calls in closed loops: one caller, and 64. */
import { compare } from "../harness/compare.ts"
import { type Options, wanted } from "../harness/options.ts"
import { median, type Row } from "../harness/row.ts"
import { limitOf, limitOfBatches, names, withAll, withPairs } from "./common.ts"
import type { Kind } from "./pair.ts"

const cases = [
  { kind: "stubs", callers: 1, target: 2 },
  { kind: "effect", callers: 1, target: 2 },
  { kind: "stubs", callers: 64, target: 5 },
  { kind: "effect", callers: 64, target: 10 }
] as const

/** Turns of each in a round, which share its time. */
const turns = 5

/** What each row cannot get past. */
const bareOf = (callers: number): Kind => (callers === 1 ? "bare" : "batches")

export const closedRows = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const all = cases.map((each) => ({
    ...each,
    row: `unary, ${each.callers === 1 ? "1 caller" : `${each.callers} callers`}: ${names[each.kind]}`
  }))
  const chosen = all.filter(({ row }) => wanted(options, row))
  if (chosen.length === 0) return []
  const kinds = [
    ...new Set<Kind>([
      "direct",
      ...chosen.flatMap(({ callers, kind }): ReadonlyArray<Kind> => [bareOf(callers), kind])
    ])
  ]
  return withPairs(options, kinds, async (pairs) => {
    const rows: Array<Row> = []
    for (const { callers, kind, row, target } of chosen) {
      const bare = bareOf(callers)
      const cpu: Record<Kind, Array<number>> = { direct: [], stubs: [], effect: [], bare: [], batches: [] }
      const measure = (of: Kind) => async () => {
        const { callsPerSecond, cpuPerCall } = await pairs[of].closed({
          callers,
          millis: ((options.seconds ?? 1) * 1_000) / turns
        })
        cpu[of].push(cpuPerCall)
        return callsPerSecond
      }
      const made = await compare({
        row,
        unit: "calls/s",
        better: "higher",
        target,
        rounds: options.rounds,
        turns,
        ours: { name: names[kind], measure: measure(kind) },
        peers: [
          { name: names.direct, measure: measure("direct") },
          { name: names[bare], measure: measure(bare) }
        ]
      })
      const [direct, limit] = made as readonly [Row, Row]
      const [ours, theirs] = [median(cpu[kind]), median(cpu.direct)]
      const note = `${withAll}; CPU of both ends for a call: ${ours.toFixed(1)} µs, direct ${theirs.toFixed(1)} µs, ${(theirs / ours).toFixed(2)} x`
      const reached = `${limit.peer.toFixed(0)} calls/s, ${(limit.peer / direct.peer).toFixed(2)} x direct, ${median(cpu[bare]).toFixed(1)} µs`
      const floor = `; ${bare === "bare" ? limitOf(reached) : limitOfBatches(reached)}`
      rows.push({ ...direct, note: note + floor })
    }
    return rows
  })
}
