/**
 * Tries every mutant against the tests that come by it. First each test file runs over sources that write down which
 * mutants it comes by; then each mutant meets those files, the likeliest killer first, until one fails or hangs.
 */
import { spawnSync } from "node:child_process"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { Memory } from "./memory.ts"
import { apply, instrument, type Mutant, mutantsOf, nameOf } from "./mutants.ts"
import { Worker } from "./pool.ts"
import { hash, type Project, packageOf } from "./project.ts"
import type { Job } from "./protocol.ts"

type Verdict = "killed" | "timed out" | "survived" | "ruled out"

export interface Result {
  readonly mutant: Mutant
  readonly verdict: Verdict
  /** The test that went red; for a mutant that hung, the file that did not end. */
  readonly by: string | undefined
  /** How many test files come by it. */
  readonly reachedBy: number
}

interface Reach {
  /** The names of the mutants that the file comes by. */
  readonly names: ReadonlyArray<string>
  /** The longest time between two outcomes, in milliseconds. */
  readonly slowest: number
  readonly took: number
  readonly failure?: string | undefined
}

interface Remembered {
  readonly verdict: Verdict
  readonly file: string | undefined
  readonly by: string | undefined
  /** Stands for what the verdict rests on. */
  readonly rests: string
  /** Of a survivor, what each test file rested on that passed: it need not meet the mutant again. */
  readonly passed?: ReadonlyArray<string>
}

export interface Options {
  readonly workers: number
  /** Where verdicts are kept from one campaign to the next. */
  readonly memory: string
  /** The installed packages, when they are not the project's own. */
  readonly modules?: string
  /** Mutates these; the tests of the packages that stand on them take part, too. */
  readonly packages: ReadonlyArray<string>
  /** Which of their sources are tried. Default: all. */
  readonly tried?: (path: string) => boolean
  readonly progress: (phase: string, done: number, all: number) => void
  /** How long a test file may be silent, given its longest silence without a mutant; in milliseconds. */
  readonly patience?: (slowest: number) => number
}

/** To be changed with the way in which mutants are tried: what was found out in another one is void. */
const way = "1"

const mutantsCode = readFileSync(join(import.meta.dirname, "mutants.ts"), "utf8")

const patienceOf = (slowest: number): number => 3_000 + 5 * slowest

/** What a hang has been silent for at least, in the longest silences that the file has without the mutant just then. */
const beyondDoubt = 3

/** Hands the items out to the workers, one each at a time. */
const share = async <T>(
  items: ReadonlyArray<T>,
  workers: ReadonlyArray<Worker>,
  each: (item: T, worker: Worker) => Promise<void>,
  onDone: () => void
): Promise<void> => {
  const queue = [...items]
  await Promise.all(
    workers.map(async (worker) => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
        await each(item, worker)
        onDone()
      }
    })
  )
}

export const campaign = async (project: Project, options: Options): Promise<ReadonlyArray<Result>> => {
  const { text } = project
  const patience = options.patience ?? patienceOf
  const mutants = new Map(
    project.packages
      .flatMap((name) => project.sources(name))
      .map((path) => [path, mutantsOf({ path, text: text(path) })] as const)
  )
  const wanted = options.packages
    .flatMap((name) => project.sources(name))
    .filter((path) => options.tried?.(path) ?? true)
    .flatMap((path) => mutants.get(path) ?? [])
  const above = [...new Set(options.packages.flatMap((name) => project.above(name)))]
  const tests = above.flatMap((name) => project.tests(name))

  const reaches = new Memory<Reach>(join(options.memory, "reach.jsonl"))
  const verdicts = new Memory<Remembered>(join(options.memory, "verdicts.jsonl"))
  const workers = Array.from({ length: options.workers }, () => new Worker(project.root, options.modules))
  const close = () => {
    for (const worker of workers) worker.close()
  }
  process.on("exit", close)
  try {
    const reachOf = new Map<string, Reach>()
    await measure()
    return await judge()

    /** Runs each test file by itself over instrumented sources, unless it is known what it comes by. */
    async function measure(): Promise<void> {
      const keyOf = (test: string) => hash(way, mutantsCode, project.evidence(test))
      const unknown = tests.filter((test) => {
        const known = reaches.get(keyOf(test))
        if (known !== undefined) reachOf.set(test, known)
        return known === undefined
      })
      let done = 0
      options.progress("what the tests come by", 0, unknown.length)
      await share(
        unknown,
        workers,
        async (test, worker) => {
          const sources = project.below(packageOf(test)).flatMap((name) => project.sources(name))
          let base = 0
          const names: Array<string> = []
          const files = sources.flatMap((path) => {
            const here = mutants.get(path) ?? []
            if (here.length === 0) return []
            names.push(...here.map(nameOf))
            base += here.length
            return [{ path, original: text(path), text: instrument(text(path), here, base - here.length) }]
          })
          const reachedFile = join(worker.tree, "reached.json")
          rmSync(reachedFile, { force: true })
          const began = performance.now()
          const once = () => worker.run({ files, tests: [{ path: test, patience: 300_000 }], reachedFile })
          const first = await once()
          // On a machine with other things to do a test may run into its own limit: it has a second chance.
          const answer = first.verdict === "passed" ? first : await once()
          const reach: Reach =
            answer.verdict === "passed"
              ? {
                  names: (JSON.parse(readFileSync(reachedFile, "utf8")) as Array<number>).map(
                    (i) => names[i] as string
                  ),
                  slowest: Math.round(answer.slowest),
                  took: Math.round(performance.now() - began)
                }
              : {
                  names: [],
                  slowest: 0,
                  took: 0,
                  failure: `${answer.test ?? ""} ${answer.message ?? answer.verdict}`
                }
          reachOf.set(test, reach)
          if (reach.failure === undefined) reaches.set(keyOf(test), reach)
        },
        () => options.progress("what the tests come by", ++done, unknown.length)
      )
      const red = [...reachOf].filter(([, { failure }]) => failure !== undefined)
      if (red.length > 0) {
        const list = red.map(([test, { failure }]) => `  ${test}: ${failure}`).join("\n")
        throw new Error(`These tests fail without a mutant; they have to pass first:\n${list}`)
      }
    }

    async function judge(): Promise<ReadonlyArray<Result>> {
      const comesBy = new Map<string, Array<string>>()
      for (const [test, { names }] of reachOf) {
        for (const name of names) comesBy.set(name, [...(comesBy.get(name) ?? []), test])
      }
      const results = new Map<Mutant, Result>()
      const pending: Array<Mutant> = []
      for (const mutant of wanted) {
        const known = recall(mutant)
        if (known === undefined) pending.push(mutant)
        else results.set(mutant, known)
      }
      let done = 0
      options.progress("mutants", 0, pending.length)
      await share(
        pending,
        workers,
        async (mutant, worker) => {
          results.set(mutant, await meet(mutant, worker))
        },
        () => options.progress("mutants", ++done, pending.length)
      )
      return wanted.map((mutant) => results.get(mutant) as Result)

      function keyOf(mutant: Mutant): string {
        return hash(way, nameOf(mutant), apply(text(mutant.file), mutant))
      }

      /** A program that a test starts by itself is not seen; so such a test counts as coming by all of its package. */
      function candidates(mutant: Mutant): ReadonlyArray<string> {
        const starting = project
          .tests(packageOf(mutant.file))
          .filter((test) => text(test).includes("node:child_process"))
        const all = [...new Set([...(comesBy.get(nameOf(mutant)) ?? []), ...starting])]
        const last = verdicts.get(`last ${nameOf(mutant)}`)?.file
        const name = basename(mutant.file, ".ts").toLowerCase()
        const rank = (test: string): number =>
          test === last
            ? 0
            : packageOf(test) !== packageOf(mutant.file)
              ? 3
              : basename(test, ".test.ts").toLowerCase() === name
                ? 1
                : 2
        const took = (test: string): number => reachOf.get(test)?.took ?? 0
        return all.toSorted((a, b) => rank(a) - rank(b) || took(a) - took(b))
      }

      function restsOn(mutant: Mutant, verdict: Verdict, file: string | undefined): string {
        const rests = verdict === "survived" || file === undefined ? candidates(mutant).toSorted() : [file]
        return hash(...rests.map((test) => project.evidence(test)))
      }

      function recall(mutant: Mutant): Result | undefined {
        const known = verdicts.get(keyOf(mutant))
        if (known === undefined) return undefined
        if (known.file !== undefined && !reachOf.has(known.file)) return undefined
        const rests = known.verdict === "ruled out" ? known.rests : restsOn(mutant, known.verdict, known.file)
        if (known.rests !== rests) return undefined
        return { mutant, verdict: known.verdict, by: known.by, reachedBy: candidates(mutant).length }
      }

      /**
       * Runs the tests over the mutated file. What seems to hang may be held up by what else the machine has to do: the
       * test file runs once more without the mutant, and if it is slow by itself by now, the mutant meets it again.
       */
      async function beat(mutated: Job["files"][number], against: ReadonlyArray<string>, worker: Worker) {
        for (;;) {
          const tests = against.map((path) => ({ path, patience: patienceFor(path) }))
          const answer = await worker.run({ files: [mutated], tests })
          const { file } = answer
          if (answer.verdict !== "timed out" || file === undefined) return answer
          const plain = await worker.run({ files: [], tests: [{ path: file, patience: 300_000 }] })
          const known = reachOf.get(file)
          if (known === undefined || plain.slowest <= known.slowest) return answer
          if (patienceFor(file) >= beyondDoubt * plain.slowest) return answer
          reachOf.set(file, { ...known, slowest: plain.slowest })
        }
      }

      function patienceFor(test: string): number {
        return patience(reachOf.get(test)?.slowest ?? 0)
      }

      async function meet(mutant: Mutant, worker: Worker): Promise<Result> {
        const { file } = mutant
        const all = candidates(mutant)
        const passedBefore = new Set(verdicts.get(keyOf(mutant))?.passed)
        const against = all.filter((test) => !passedBefore.has(project.evidence(test)))
        const mutated = { path: file, original: text(file), text: apply(text(file), mutant) }
        // Without a guard the compiler mostly misses what it has made sure of: asking first saves all the tests.
        const asked =
          (mutant.kind === "first" || mutant.kind === "guard") &&
          verdicts.get(`last ${nameOf(mutant)}`) === undefined
        const refused = asked && !compiles(worker.tree, mutated)
        const answer = refused || against.length === 0 ? undefined : await beat(mutated, against, worker)
        const passed = answer === undefined || answer.verdict === "passed"
        const verdict: Verdict = !passed
          ? answer.verdict === "timed out"
            ? "timed out"
            : "killed"
          : !refused && (asked || compiles(worker.tree, mutated))
            ? "survived"
            : "ruled out"
        const by = passed
          ? undefined
          : `${answer.file ?? ""}${answer.test === undefined ? "" : `: ${answer.test}`}`
        const rests = restsOn(mutant, verdict, answer?.file)
        const remembered: Remembered = {
          verdict,
          file: answer?.file,
          by,
          rests,
          ...(passed ? { passed: all.map((test) => project.evidence(test)) } : {})
        }
        verdicts.set(keyOf(mutant), remembered)
        if (answer?.file !== undefined) verdicts.set(`last ${nameOf(mutant)}`, remembered)
        return { mutant, verdict, by, reachedBy: all.length }
      }
    }
  } finally {
    process.removeListener("exit", close)
    close()
  }
}

/** What the compiler refuses cannot be written by mistake. What it only calls unused may. */
const compiles = (
  tree: string,
  { original, path, text }: { path: string; original: string; text: string }
): boolean => {
  const config = join(tree, "tsconfig.mutant.json")
  writeFileSync(
    config,
    JSON.stringify({
      extends: "./tsconfig.base.json",
      compilerOptions: {
        composite: false,
        declaration: false,
        declarationMap: false,
        sourceMap: false,
        noEmit: true,
        noUnusedLocals: false,
        noUnusedParameters: false,
        types: ["node"]
      },
      files: [path]
    })
  )
  const check = () =>
    spawnSync(join(tree, "node_modules/.bin/tsc"), ["-p", config], { cwd: tree, encoding: "utf8" })
  writeFileSync(join(tree, path), text)
  const { status, stdout } = check()
  writeFileSync(join(tree, path), original)
  if (status === 0) return true
  const before = check()
  if (before.status !== 0)
    throw new Error(`${path} does not compile without a mutant; it has to first:\n${before.stdout}`)
  return !/error TS/.test(stdout)
}
