/**
 * Streams of large messages in each direction, over the loopback and over a link with a round trip of 50 ms. The peers
 * are direct channels, one with its defaults and one tuned; both are measured once in a round for all of ours.
 */
import { Child } from "../harness/child.ts"
import { type Options, wanted } from "../harness/options.ts"
import type { Row } from "../harness/row.ts"
import { names, ours, tuned, withAllOf } from "./common.ts"
import { Pair } from "./pair.ts"
import { inRounds, rowOf } from "./rounds.ts"

const peers = {
  direct: names.direct,
  tuned: "direct grpc-js, 4 MiB windows, no retry buffer"
} as const

const directions = { download: "server streaming", upload: "upload" } as const

interface Group {
  readonly title: string
  readonly unit: "MB/s" | "ms"
  readonly size: number
  readonly count: number
  /** Streams follow each other for so long; 0 is one stream. */
  readonly millis: number
  readonly targets: Readonly<Record<keyof typeof peers, number>>
  readonly rounds: number
}

const measureRows = async (
  options: Options,
  groups: ReadonlyArray<Group>,
  through?: (port: number) => Promise<number>
): Promise<ReadonlyArray<Row>> => {
  const chosen = groups
    .flatMap((group) => (["download", "upload"] as const).map((direction) => ({ ...group, direction })))
    .map((group) => {
      const title = `${group.title}, ${directions[group.direction]}`
      const rows = ours.map((kind) => ({ kind, row: `${title}: ${names[kind]}` }))
      return { ...group, title, rows: rows.filter(({ row }) => wanted(options, row)) }
    })
    .filter(({ rows }) => rows.length > 0)
  if (chosen.length === 0) return []
  const kinds = [
    ...new Set(chosen.flatMap(({ rows }) => rows.map(({ kind }) => kind))),
    "direct",
    "tuned"
  ] as const
  const start = async (kind: (typeof kinds)[number]): Promise<Pair> => {
    const between = through === undefined ? {} : { through }
    const pair = await (kind === "tuned"
      ? Pair.start("direct", { channelOptions: tuned, ...between })
      : Pair.start(kind, between))
    await pair.closed({ callers: 4, millis: 300 })
    return pair
  }
  return withAllOf(kinds, start, async (pairs) => {
    const rows: Array<Row> = []
    for (const { count, direction, millis, rounds, rows: own, size, targets, title, unit } of chosen) {
      const measure = (pair: Pair) => async () => {
        const bytesPerSecond = await pair.transfer({ size, count, everyMillis: 0, direction, millis })
        return unit === "MB/s" ? bytesPerSecond / 1e6 : (size * count * 1_000) / bytesPerSecond
      }
      const contestants = [...own.map(({ kind }) => kind), "direct", "tuned"] as const
      const figures = await inRounds(
        title,
        options.rounds ?? rounds,
        Object.fromEntries(contestants.map((kind) => [kind, measure(pairs[kind])]))
      )
      for (const { kind, row } of own)
        for (const peer of ["direct", "tuned"] as const)
          rows.push(
            rowOf({
              row,
              unit,
              better: unit === "MB/s" ? "higher" : "lower",
              target: targets[peer],
              peerName: peers[peer],
              ours: figures[kind] ?? [],
              peer: figures[peer] ?? []
            })
          )
    }
    return rows
  })
}

export const transferRows = (options: Options): Promise<ReadonlyArray<Row>> =>
  measureRows(
    options,
    [
      { title: "100 kB messages", size: 100_000, count: 400 },
      { title: "1 MB messages", size: 1_000_000, count: 40 }
    ].map((group) => ({
      ...group,
      unit: "MB/s",
      millis: (options.seconds ?? 0.3) * 1_000,
      rounds: 5,
      targets: { direct: 1, tuned: 0.8 }
    }))
  )

export const longLinkRows = async (options: Options): Promise<ReadonlyArray<Row>> => {
  await using proxy = await Child.start(new URL("./delayEnd.ts", import.meta.url))
  const group = { title: "50 ms round trip, 4 MiB", size: 1 << 20, count: 4, millis: 0 }
  return await measureRows(
    options,
    [{ ...group, unit: "ms", rounds: 3, targets: { direct: 10, tuned: 0.9 } }],
    (port) => proxy.ask("listen", port)
  )
}
