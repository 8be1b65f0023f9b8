/** Each exported primitive on its ordinary path, beside the shortest raw Effect and the nearest library. */
import { Child } from "../harness/child.ts"
import { compare } from "../harness/compare.ts"
import { type Options, type Run, wanted } from "../harness/options.ts"
import { progress } from "../harness/progress.ts"
import { type Row, reached } from "../harness/row.ts"
import { figure } from "../harness/table.ts"
import { groups } from "./groups.ts"
import { contestsOf, type Primitive } from "./primitive.ts"

const file = new URL("./contestEnd.ts", import.meta.url)

const times = (forks: number): string => {
  const rounded = Math.round(forks * 100) / 100
  return `${rounded} ${rounded === 1 ? "fork" : "forks"}`
}

const isRaw = ({ peerName }: Row): boolean => peerName.startsWith("Effect: ")

/** Where a library is faster than raw Effect, or than the least that it takes, that is the limit of what is built on Effect. */
const withLimit = (rows: ReadonlyArray<Row>, least: Row | undefined): ReadonlyArray<Row> => {
  const raw = rows.find(isRaw)
  return rows.map((row) => {
    if (reached(row)) return row
    const notes: Array<string> = []
    if (raw !== undefined && !isRaw(row) && raw.peer > row.peer / row.target)
      notes.push(`the limit: raw Effect itself takes ${figure(raw.peer)} ${row.unit}`)
    if (least !== undefined)
      notes.push(
        `${least.peer > row.peer / row.target ? "the limit: " : ""}${least.peerName} takes ${figure(least.peer)} ${row.unit}`
      )
    if (row.note !== undefined) notes.push(row.note)
    return notes.length === 0 ? row : { ...row, note: notes.join("; ") }
  })
}

const measure = async (group: string, primitive: Primitive, rounds: number): Promise<ReadonlyArray<Row>> => {
  const { least, note, ours, per = "call", row } = primitive
  const contests = contestsOf(primitive)
  const children: Array<Child> = []
  try {
    const warm: Array<{ readonly forks: number }> = []
    for (const [place, { name }] of contests.entries()) {
      progress(`${row}: warming up ${name}`)
      const child = await Child.start(file, { args: [group, row, String(place)] })
      children.push(child)
      warm.push(await child.ask("warm"))
    }
    const contestant = (place: number, name: string) => ({
      name,
      measure: () => (children[place] as Child).ask<number>("measure")
    })
    const forks = (place: number): string => times(warm[place]?.forks ?? 0)
    const rows = await compare({
      row,
      unit: `µs/${per}`,
      better: "lower",
      target: 1,
      rounds,
      ours: contestant(0, ours.name),
      peers: contests.slice(1).map(({ name, target }, index) => ({
        ...contestant(index + 1, name),
        ...(target === undefined ? {} : { target }),
        note: (own: number, peer: number) => {
          const cost = name.startsWith("Effect: ")
            ? `${figure(own - peer)} µs more than raw Effect; ${forks(0)}, raw ${forks(index + 1)}`
            : undefined
          const parts = [cost, note].filter((part) => part !== undefined)
          return parts.length === 0 ? undefined : parts.join("; ")
        }
      }))
    })
    return least === undefined ? withLimit(rows, undefined) : withLimit(rows.slice(0, -1), rows.at(-1))
  } finally {
    for (const child of children) await child.stop()
  }
}

export const run: Run = async (options: Options) => {
  const rows: Array<Row> = []
  for (const [group, load] of Object.entries(groups))
    for (const primitive of await load())
      if (wanted(options, primitive.row))
        rows.push(...(await measure(group, primitive, options.rounds ?? 15)))
  return rows
}
