/** What an open stream holds at both ends while nothing happens on it. */
import { Child, type Memory } from "../harness/child.ts"
import { compare } from "../harness/compare.ts"
import { type Options, wanted } from "../harness/options.ts"
import { progress } from "../harness/progress.ts"
import type { Row } from "../harness/row.ts"
import { Pair } from "./pair.ts"
import type { Kind } from "./service.ts"

/** Open before anything is measured: they make V8's young generation take its size, some 20 MB a process, once. */
const first = 10_000
const streams = 20_000

interface Held {
  readonly heap: { readonly client: number; readonly server: number }
  readonly rss: { readonly client: number; readonly server: number }
}

/** Bytes of one more stream, in processes that hold nothing but streams. */
const measure = async (kind: Kind): Promise<Held> => {
  await using pair = await Pair.start(kind)
  await pair.open(first)
  const before = await pair.memory()
  await pair.open(streams)
  const after = await pair.memory()
  const each = (what: (memory: Memory) => number) => ({
    client: (what(after.client) - what(before.client)) / streams,
    server: (what(after.server) - what(before.server)) / streams
  })
  // Buffers and what else lies outside the heap of V8 is held as much as what is in it.
  return { heap: each(({ external, heapUsed }) => heapUsed + external), rss: each(({ rss }) => rss) }
}

/** What the streams of an Effect client and handler cost in raw Effect, without a call. */
const raw = async (): Promise<number> => {
  await using child = await Child.start(new URL("./rawEnd.ts", import.meta.url))
  return await child.ask<number>("heap", streams)
}

const levels = [
  { kind: "frames", name: "frame level", target: 10 },
  { kind: "stubs", name: "stubs and handlers", target: 3 },
  { kind: "effect", name: "Effect streams in scopes", target: 3 }
] as const

export const idleRows = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const rounds = options.rounds ?? 3
  const named = (level: string, what: string) => `idle tunnelled stream, ${level}: ${what}`
  const asked = levels.filter(({ name }) =>
    ["heap", "RSS"].some((what) => wanted(options, named(name, what)))
  )
  if (asked.length === 0) return []
  const kinds: ReadonlyArray<Kind> = ["direct", ...asked.map(({ kind }) => kind)]
  const seen: Record<Kind, Array<Held>> = { direct: [], frames: [], stubs: [], effect: [] }
  for (let round = 0; round < rounds; round++)
    for (let turn = 0; turn < kinds.length; turn++) {
      const kind = kinds[(turn + round) % kinds.length] as Kind
      progress(`${streams} idle streams, ${kind}: round ${round + 1} of ${rounds}`)
      seen[kind].push(await measure(kind))
    }
  const effects = asked.some(({ kind }) => kind === "effect")
    ? `; in raw Effect its three streams alone hold ${Math.round(await raw())} B of heap`
    : ""
  const rows: Array<Row> = []
  for (const { kind, name, target } of asked)
    for (const [what, of] of [
      ["heap", "heap"],
      ["RSS", "rss"]
    ] as const) {
      const row = named(name, what)
      if (!wanted(options, row)) continue
      /** The figures were taken above, of both measures at once. */
      const taken = (from: Kind) => {
        let next = 0
        return async () => {
          const { client, server } = (seen[from][next++] as Held)[of]
          return client + server
        }
      }
      const last = (from: Kind): string => {
        const { client, server } = (seen[from].at(-1) as Held)[of]
        return `${Math.round(client)} + ${Math.round(server)}`
      }
      rows.push(
        ...(await compare({
          row,
          unit: "B",
          better: "lower",
          target,
          rounds,
          ours: { name: "Curfew", measure: taken(kind) },
          peers: [{ name: "idle grpc-js stream", measure: taken("direct") }],
          note: `client + server, last round: ${last(kind)}, grpc-js ${last("direct")}; ${streams} streams more than ${first}${kind === "effect" ? effects : ""}`
        }))
      )
    }
  return rows
}
