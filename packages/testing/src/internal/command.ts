/**
 * The command line.
 *
 * Invariants
 * 1. The report goes to the output, the progress to the error stream and only when that is a terminal.
 * 2. A page is written only when something is broken.
 * 3. The exit code is 0 when nothing is broken, 1 when something is, 2 when nothing could be swept.
 */
import { writeFileSync } from "node:fs"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import type { Finding } from "../Finding.ts"
import type { Subject, Sweepable } from "../Subject.ts"
import { formatSweep, groups, type SweepReport } from "../SweepReport.ts"
import { type SweepOptions, type SweepProgress, sweep } from "../sweep.ts"
import { timeline } from "../Timeline.ts"
import { type Shown, toHtml } from "./html.ts"

const usage = `Usage: curfew-testing sweep <file> [options]

Cancels a program at every step, and says what that breaks. The file's default export, or each of its exports when it
has no default, is an Effect, or an object { name?, setup } whose setup is an Effect that makes the state and the
probes and returns the program.

  --export <name>   sweep this export only
  --modes <list>    root, any, twice, finalizers; default: root,twice,finalizers
  --states <list>   fresh, kept; default: both
  --out <file>      where the page goes when something is broken; default: curfew-sweep.html
  --json            print the reports as JSON`

/** Why a file could not be imported: in one line, when it is not there, and with the stack when its own code failed. */
class Unreadable {
  readonly why: string

  constructor(cause: unknown) {
    const { code, message, stack } = (cause instanceof Error ? cause : new Error(String(cause))) as Error & {
      readonly code?: string
    }
    this.why = code === "ERR_MODULE_NOT_FOUND" ? message : (stack ?? message)
  }
}

interface Arguments {
  readonly file: string | undefined
  readonly named: Readonly<Record<string, string>>
  readonly json: boolean
  readonly wrong: string | undefined
}

const known = new Set(["export", "modes", "states", "out"])

const parse = (args: ReadonlyArray<string>): Arguments => {
  const named: Record<string, string> = {}
  let file: string | undefined
  let json = false
  let wrong = args[0] === "sweep" ? undefined : `unknown command: ${args[0] ?? "none"}`
  for (let i = 1; i < args.length; i++) {
    const arg = args[i] as string
    const name = arg.slice(2)
    if (arg === "--json") json = true
    else if (arg.startsWith("--") && known.has(name) && args[i + 1] !== undefined)
      named[name] = args[++i] as string
    else if (arg.startsWith("--")) wrong = `unknown or incomplete option: ${arg}`
    else if (file === undefined) file = arg
    else wrong = `one file at a time: ${arg}`
  }
  return { file, named, json, wrong: wrong ?? (file === undefined ? "no file" : undefined) }
}

const listed = <A extends string>(
  text: string | undefined,
  allowed: ReadonlyArray<A>
): ReadonlyArray<A> | undefined =>
  text === undefined ? undefined : allowed.filter((one) => text.split(",").includes(one))

const isSweepable = (value: unknown): value is Sweepable =>
  Effect.isEffect(value) ||
  (typeof value === "object" && value !== null && "setup" in value && Effect.isEffect(value.setup))

const nameOf = (program: Sweepable, exported: string, file: string): string =>
  (Effect.isEffect(program) ? undefined : (program as Subject).name) ??
  (exported === "default" ? file : exported)

const showProgress = (name: string) => {
  if (!process.stderr.isTTY) return { on: undefined, clear: () => undefined }
  let shown = 0
  return {
    on: ({ mode, of, state, step }: SweepProgress) => {
      if (shown++ % 25 !== 0) return
      const done = Math.min(24, Math.round((step / Math.max(of, 1)) * 24))
      const bar = `${"█".repeat(done)}${"░".repeat(24 - done)}`
      process.stderr.write(`\r\u001b[2K${name}  ${bar}  step ${step} of ${of}, ${mode}, ${state} state`)
    },
    clear: () => {
      process.stderr.write("\r\u001b[2K")
    }
  }
}

/** The timeline of the first finding of each group that can be run again from fresh state. */
const timelinesOf = (program: Sweepable, report: SweepReport, options: SweepOptions) =>
  Effect.forEach(groups(report.findings).slice(0, 12), (group) => {
    const first: Finding | undefined = group.find(({ state }) => state === "fresh") ?? group[0]
    if (first === undefined) return Effect.succeed(undefined)
    return Effect.map(timeline(program, first, options), (one) =>
      first.state === "kept" && one.broken.length === 0 ? undefined : one
    )
  })

/** Runs the command; gives the exit code. */
export const command = (args: ReadonlyArray<string>): Effect.Effect<number, unknown> =>
  Effect.gen(function* () {
    const { file, json, named, wrong } = parse(args)
    if (wrong !== undefined || file === undefined) {
      const help = args.includes("--help") || args.includes("-h") || args.length === 0
      process[help ? "stdout" : "stderr"].write(`${help ? "" : `${wrong}\n\n`}${usage}\n`)
      return help ? 0 : 2
    }
    const imported: Record<string, unknown> | Unreadable = yield* Effect.tryPromise({
      try: (): Promise<Record<string, unknown>> => import(pathToFileURL(resolve(file)).href),
      catch: (cause) => new Unreadable(cause)
    }).pipe(Effect.catch(Effect.succeed))
    if (imported instanceof Unreadable) {
      process.stderr.write(`${file} cannot be imported: ${imported.why}\n`)
      return 2
    }
    const exported = imported
    const only = named["export"]
    const names = only !== undefined ? [only] : "default" in exported ? ["default"] : Object.keys(exported)
    const programs = names.flatMap((name) => {
      const program = exported[name]
      return isSweepable(program) ? [{ name: nameOf(program, name, file), program }] : []
    })
    if (programs.length === 0) {
      process.stderr.write(`${file} exports neither an Effect nor a subject with a setup.\n\n${usage}\n`)
      return 2
    }
    const shown: Array<Shown> = []
    for (const { name, program } of programs) {
      const progress = showProgress(name)
      const options: SweepOptions = {
        name,
        modes: listed(named["modes"], ["root", "any", "twice", "finalizers"]),
        states: listed(named["states"], ["fresh", "kept"]),
        onProgress: progress.on
      }
      const report = yield* sweep(program, options)
      progress.clear()
      if (!json) process.stdout.write(`${formatSweep(report)}\n`)
      shown.push({ report, timelines: report.ok ? [] : yield* timelinesOf(program, report, options) })
    }
    if (json) process.stdout.write(`${JSON.stringify(shown.map(({ report }) => report))}\n`)
    if (shown.every(({ report }) => report.ok)) return 0
    const out = named["out"] ?? "curfew-sweep.html"
    writeFileSync(out, toHtml(`Sweep of ${file}`, shown))
    process.stderr.write(`The timeline is in ${out}\n`)
    return 1
  })
