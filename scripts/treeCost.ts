/**
 * What it costs to be seen: a task and a cancel scope with the live tree, against the shortest fork and join in Effect,
 * and against the same sources without their tree.
 *
 * The packages are bundled three times, Effect is not: as they are; without what only `inspect` reads (the set of roots,
 * the ages); and without any link between cells, which no cancel could do without. All variants run in one process, in
 * rounds of changing order; what is compared are the medians of the ratios within a round, so that a machine that slows
 * down for a while slows every side. `npm run tree:cost [rounds]` prints the tables of docs/observability.md.
 */
import { mkdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { build, type Plugin } from "esbuild"
import { root } from "./workspace.ts"

interface Packages {
  readonly CancelCell: typeof import("@curfew/reason/CancelCell").CancelCell
  readonly CancelScope: typeof import("@curfew/scope").CancelScope
  readonly formatTree: typeof import("@curfew/scope").formatTree
  readonly inspect: typeof import("@curfew/scope").inspect
  readonly TaskScope: typeof import("@curfew/scope").TaskScope
  readonly toJson: typeof import("@curfew/scope").toJson
}

const entry = `
export { CancelCell } from "@curfew/reason/CancelCell"
export { CancelScope, formatTree, inspect, TaskScope, toJson } from "@curfew/scope"
`

type Change = readonly [from: string, to: string]

const unseen: ReadonlyArray<Change> = [
  [
    "    this.#parent = parent\n    this.reason = parent?.reason\n    this.#enter()",
    "    this.#parent = parent\n    this.reason = parent?.reason\n    if (parent !== undefined) this.#enter()"
  ],
  [
    "    this.ended = true\n    this.#leave()",
    "    this.ended = true\n    if (this.#parent !== undefined) this.#leave()"
  ],
  ["readonly #bornAt: number = uptime()", "readonly #bornAt: number = 0"]
]

const unlinked: ReadonlyArray<Change> = [
  ["    this.reason = parent?.reason\n    this.#enter()", "    this.reason = parent?.reason"],
  ["    this.ended = true\n    this.#leave()", "    this.ended = true"],
  ...unseen.slice(2)
]

/** Replaces pieces of `CancelCell.ts`, and fails when one is not there: the figures would be of something else. */
const changing = (changes: ReadonlyArray<Change>): Plugin => ({
  name: "changing",
  setup: (builder) => {
    builder.onLoad({ filter: /CancelCell\.ts$/ }, ({ path }) => {
      let text = readFileSync(path, "utf8")
      for (const [from, to] of changes) {
        if (!text.includes(from))
          throw new Error(`scripts/treeCost.ts: CancelCell.ts has changed, there is no: ${from}`)
        text = text.replace(from, to)
      }
      return { contents: text, loader: "ts" }
    })
  }
})

const dir = join(root, "node_modules", ".tree-cost")

const load = async (name: string, changes: ReadonlyArray<Change>): Promise<Packages> => {
  const outfile = join(dir, `${name}.mjs`)
  await build({
    stdin: { contents: entry, resolveDir: join(root, "packages"), loader: "ts" },
    bundle: true,
    format: "esm",
    platform: "node",
    conditions: ["@curfew/source"],
    external: ["effect", "effect/*"],
    plugins: [changing(changes)],
    outfile
  })
  return (await import(pathToFileURL(outfile).href)) as Packages
}

const gc = (globalThis as { gc?: () => void }).gc
const rounds = Number(process.argv[2] ?? 101)
// Small batches: what is compared lies close together in time, also on a machine with neighbours.
const operations = 4_000

type Work = (times: number) => Effect.Effect<void>

const repeat = (times: number, step: Effect.Effect<unknown, unknown>): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let i = 0; i < times; i++) yield* step
  }) as Effect.Effect<void>

const forkJoin =
  (body: Effect.Effect<void>): Work =>
  (times) =>
    repeat(times, Effect.flatMap(Effect.forkChild(body, { startImmediately: true }), Fiber.join))

const spawnJoin =
  ({ TaskScope }: Packages, body: Effect.Effect<void>): Work =>
  (times) =>
    TaskScope.use((tasks: import("@curfew/scope").TaskScope.TaskScope<never>) =>
      repeat(
        times,
        Effect.flatMap(tasks.spawn(body), (task) => task.join)
      )
    )

const runScope =
  ({ CancelScope }: Packages, body: Effect.Effect<void>): Work =>
  (times) =>
    repeat(
      times,
      CancelScope.run(() => body)
    )

/** Nanoseconds of this thread an operation: what other programs take meanwhile is not in it. */
const time = async (work: Work): Promise<number> => {
  const began = process.threadCpuUsage()
  await Effect.runPromise(work(operations))
  const { system, user } = process.threadCpuUsage(began)
  return ((user + system) * 1_000) / operations
}

const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
}

const quartiles = (values: ReadonlyArray<number>): string => {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (part: number) => (sorted[Math.floor(part * (sorted.length - 1))] as number).toFixed(2)
  return `${at(0.25)} to ${at(0.75)}`
}

const measure = async (
  contestants: ReadonlyArray<readonly [name: string, work: Work]>
): Promise<Map<string, number[]>> => {
  const times = new Map(contestants.map(([name]) => [name, [] as Array<number>]))
  for (const [, work] of contestants) for (let i = 0; i < 10; i++) await time(work)
  for (let round = 0; round < rounds; round++) {
    gc?.()
    for (let i = 0; i < contestants.length; i++) {
      const [name, work] = contestants[(i + round) % contestants.length] as readonly [string, Work]
      times.get(name)?.push(await time(work))
    }
  }
  return times
}

const ratio = (times: Map<string, number[]>, of: string, to: string): string => {
  const a = times.get(of) as Array<number>
  const b = times.get(to) as Array<number>
  const ratios = a.map((value, i) => value / (b[i] as number))
  return `${median(ratios).toFixed(2)} (${quartiles(ratios)})`
}

/** Bytes of heap a thing, when so many of them live. */
const bytesOf = (make: (count: number) => ReadonlyArray<unknown>): number => {
  const count = 100_000
  make(1_000)
  gc?.()
  const before = process.memoryUsage().heapUsed
  const kept = make(count)
  gc?.()
  const bytes = (process.memoryUsage().heapUsed - before) / kept.length
  return Math.round(bytes)
}

const cells =
  ({ CancelCell }: Packages) =>
  (count: number) => {
    const parent = new CancelCell("tasks", {})
    return Array.from({ length: count }, () => new CancelCell("task", { name: "task", parent }))
  }

/** A hundred thousand nodes: a thousand requests of a scope, a task scope and its tasks. */
const forest = ({ CancelCell }: Packages): void => {
  for (let request = 0; request < 1_000; request++) {
    const scope = new CancelCell("scope", { name: `GET /${request}` })
    const tasks = new CancelCell("tasks", { name: "fan-out", parent: scope })
    for (let task = 0; task < 98; task++) new CancelCell("task", { name: `part ${task}`, parent: tasks })
  }
}

const milliseconds = (work: () => unknown): number => {
  const began = process.threadCpuUsage()
  work()
  const { system, user } = process.threadCpuUsage(began)
  return (user + system) / 1_000
}

mkdirSync(dir, { recursive: true })
try {
  const on = await load("on", [])
  const off = await load("unseen", unseen)
  const bare = await load("unlinked", unlinked)
  const variants = [
    ["as it is", on],
    ["without what only `inspect` reads", off],
    ["without links", bare]
  ] as const

  console.log(
    `Node ${process.version}, ${rounds} rounds of ${operations.toLocaleString("en")} operations each\n`
  )
  console.log(
    "| operation | ns | ratio to Effect's fork and join | as it is, to without what only `inspect` reads | as it is, to without links |"
  )
  console.log("|---|---:|---:|---:|---:|")
  for (const [kind, body] of [
    ["ends at once", Effect.void],
    ["waits a turn", Effect.yieldNow]
  ] as const) {
    const raw = "fork and join"
    const times = await measure([
      [raw, forkJoin(body)],
      ...variants.flatMap(([name, packages]) => [
        [`spawn ${name}`, spawnJoin(packages, body)] as const,
        [`run ${name}`, runScope(packages, body)] as const
      ])
    ])
    const ns = (name: string) => Math.round(median(times.get(name) as Array<number>))
    console.log(`| Effect's \`forkChild\` and \`join\`, ${kind} | ${ns(raw)} | 1 | | |`)
    for (const [verb, what] of [
      ["spawn", "`spawn` and `join`"],
      ["run", "`CancelScope.run`"]
    ] as const) {
      const own = `${verb} as it is`
      const versus = [raw, `${verb} without what only \`inspect\` reads`, `${verb} without links`]
      console.log(
        `| ${what}, ${kind} | ${ns(own)} | ${versus.map((to) => ratio(times, own, to)).join(" | ")} |`
      )
    }
  }

  const clock = milliseconds(() => {
    for (let i = 0; i < 1_000_000; i++) performance.now()
  })
  console.log(`\nOne look at the clock, for the age: ${Math.round(clock)} ns.`)
  console.log("\n| bytes a node, 100,000 of them | |\n|---|---:|")
  for (const [name, packages] of variants) console.log(`| a cell, ${name} | ${bytesOf(cells(packages))} |`)
  const fibers = bytesOf((count) => Array.from({ length: count }, () => Effect.runFork(Effect.never)))
  console.log(`| for comparison: a fiber of Effect that waits | ${fibers} |`)

  forest(on)
  const looks = Array.from({ length: 9 }, () => {
    let tree!: import("@curfew/scope").LiveTree
    return [
      milliseconds(() => {
        tree = Effect.runSync(on.inspect)
      }),
      milliseconds(() => on.formatTree(tree)),
      milliseconds(() => JSON.stringify(on.toJson(tree)))
    ] as const
  })
  console.log("\n| a look at 100,000 nodes | ms |\n|---|---:|")
  for (const [i, name] of ["`inspect`", "`formatTree`", "`toJson` and `JSON.stringify`"].entries())
    console.log(`| ${name} | ${Math.round(median(looks.map((look) => look[i] as number)))} |`)
} finally {
  rmSync(dir, { recursive: true, force: true })
}
process.exit(0)
