/** Each exported primitive on its ordinary path, beside the shortest raw Effect and the nearest library. */
import { Child } from "../harness/child.ts"
import { compare } from "../harness/compare.ts"
import { type Options, type Run, wanted } from "../harness/options.ts"
import { progress } from "../harness/progress.ts"
import { type Row, reached } from "../harness/row.ts"
import { figure } from "../harness/table.ts"
import { groups } from "./groups.ts"
import { type Contest, contestsOf, type Primitive } from "./primitive.ts"

/** Batches of each in a round. */
const turns = 3

const file = new URL("./contestEnd.ts", import.meta.url)

const times = (forks: number): string => {
  const rounded = Math.round(forks * 100) / 100
  return `${rounded} ${rounded === 1 ? "fork" : "forks"}`
}

const isRaw = ({ peerName }: Row): boolean => peerName.startsWith("Effect: ")

const saying = (row: Row, said: string): Row => ({
  ...row,
  note: row.note === undefined ? said : `${said}; ${row.note}`
})

/** Where a library is faster than raw Effect, that is the limit of whatever is built on Effect. */
const withLimit = (rows: ReadonlyArray<Row>): ReadonlyArray<Row> => {
  const raw = rows.find(isRaw)
  return rows.map((row) =>
    raw === undefined || isRaw(row) || reached(row) || raw.peer <= row.peer / row.target
      ? row
      : saying(row, `the limit: raw Effect itself takes ${figure(raw.peer)} ${row.unit}`)
  )
}

/** The least that does what has to be done, which was measured in the same rounds, beside the rows that are not reached. */
const withLeast = (rows: ReadonlyArray<Row>, limit: Contest | undefined): ReadonlyArray<Row> => {
  const least = limit && rows.find(({ peerName }) => peerName === limit.name)
  if (least === undefined) return rows
  const said = ({ peer, target, unit }: Row) => {
    const is = least.peer > peer / target ? "the limit: " : ""
    return `${is}${least.peerName}, by itself: ${figure(least.peer)} ${unit}, ${figure(peer / least.peer)} x`
  }
  return rows.filter((row) => row !== least).map((row) => (reached(row) ? row : saying(row, said(row))))
}

const measure = async (group: string, primitive: Primitive, rounds: number): Promise<ReadonlyArray<Row>> => {
  const { limit, note, ours, per = "call", row } = primitive
  const contests = contestsOf(primitive)
  const peers = contests.slice(1)
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
      turns,
      ours: contestant(0, ours.name),
      peers: peers.map(({ name, target }, index) => ({
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
    return withLeast(withLimit(rows), limit)
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
