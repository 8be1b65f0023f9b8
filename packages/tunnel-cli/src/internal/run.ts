/**
 * Running a command that stays up: logs, the admin port, the stages of its shutdown, the last words.
 *
 * **Invariants**
 * 1. The report of the shutdown is the last thing that is printed.
 * 2. A mistake is one sentence and exit code 2, without a report: nothing was begun.
 * 3. The admin port is made first and so closes last.
 */
import { Instant, type Owner } from "@curfew/scope"
import type { Report } from "@curfew/shutdown"
import { exitCode, runMain } from "@curfew/shutdown/Node"
import { setLogger } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { admin } from "./admin.ts"
import { Desk } from "./desk.ts"
import type { RunningFlags } from "./flags.ts"
import { effectLogs, type Log, makeLog } from "./log.ts"
import { type Mistake, mistake } from "./mistake.ts"
import { isLoopback } from "./values.ts"

type Command<F> = (flags: F, desk: Desk, log: Log) => Effect.Effect<never, Mistake, Owner | Scope.Scope>

/** The report as one line of JSON. */
const reportLine = (report: Report.Report): string =>
  JSON.stringify({
    level: "info",
    message: "shutdown",
    trigger: report.trigger._tag === "Signal" ? report.trigger.signal : report.trigger._tag,
    ms: Math.round(Duration.toMillis(report.took)),
    phases: report.phases.map(({ endedBy, phase, took }) => ({
      phase,
      ms: Math.round(Duration.toMillis(took)),
      endedBy
    })),
    items: report.items.map(({ count, fate, kind, name, took }) => ({
      name,
      kind,
      fate,
      count,
      ms: Math.round(Duration.toMillis(took))
    }))
  })

/** Becomes the process: ends it with the exit code of the shutdown, or 2 after a mistake. */
export const runCommand = <F extends RunningFlags & { readonly insecure: boolean }>(
  role: Desk["role"],
  command: Command<F>,
  flags: F
): void => {
  let sentence: string | undefined
  let report: Report.Report | undefined
  const main = Effect.gen(function* () {
    const log = yield* makeLog(flags.logFormat, flags.logLevel)
    // What grpc-js has to say of its own is for those who look for faults in it.
    yield* Effect.sync(() =>
      setLogger({ error: (...words: ReadonlyArray<unknown>) => log.debug(words.join(" ")) })
    )
    const desk = new Desk(role, Instant.nowOf(yield* Clock.Clock))
    const work = Effect.gen(function* () {
      if (flags.admin !== "off") {
        if (!isLoopback(flags.admin) && !flags.insecure) {
          const { text } = flags.admin
          return yield* mistake(
            `--admin ${text} would tell other machines what runs here: use 127.0.0.1, or --insecure if that is meant.`
          )
        }
        const port = yield* admin(flags.admin, desk)
        desk.addresses["admin"] = `${flags.admin.host}:${port}`
      }
      return yield* command(flags, desk, log)
    })
    return yield* Effect.provide(Effect.scoped(work), effectLogs(log, flags.logLevel))
  }).pipe(
    Effect.catchTag("Mistake", (error) =>
      Effect.sync(() => {
        sentence = error.sentence
      })
    )
  )
  runMain(main, {
    name: role,
    drain: flags.drain,
    force: flags.force,
    inspectOnSignal: true,
    onReport: (made) => {
      report = made
    },
    print: (text) => {
      const json = flags.logFormat === "json" && report !== undefined ? reportLine(report) : text
      process.stderr.write(`${sentence ?? json}\n`)
    },
    exitCode: (ended) => (sentence === undefined ? exitCode(ended) : 2)
  })
}
