/**
 * `curfew-tunnel status`: asks the admin port, and shows the answer once or live.
 *
 * **Invariants**
 * 1. The terminal is given back as it was: cursor and screen, however the program ends.
 * 2. Once, and for JSON, the exit code says whether there was an answer: 0, or 1 with a sentence.
 */
import { get } from "node:http"
import { exitCode, runMain } from "@curfew/shutdown/Node"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { StatusFlags } from "./flags.ts"
import { type Mistake, mistake } from "./mistake.ts"
import { render } from "./render.ts"
import { type Snapshot, version } from "./snapshot.ts"
import type { Address } from "./values.ts"

const nobody = (at: Address): Mistake =>
  mistake(
    `Nothing answers at ${at.text}; give the --admin address that a gateway, agent or connect was started with.`
  )

const ask = (at: Address): Effect.Effect<Snapshot, Mistake> =>
  Effect.callback((resume) => {
    const failed = () => resume(Effect.fail(nobody(at)))
    const request = get(
      { host: at.host.replace(/^\[|\]$/g, ""), port: at.port, path: "/status", agent: false },
      (response) => {
        let body = ""
        response.setEncoding("utf8")
        response.on("data", (chunk: string) => (body += chunk))
        response.on("error", failed)
        response.on("end", () => resume(read(at, body)))
      }
    )
    request.on("error", failed)
    return Effect.sync(() => request.destroy())
  })

const read = (at: Address, body: string): Effect.Effect<Snapshot, Mistake> =>
  Effect.suspend(() => {
    let answer: Partial<Snapshot> = {}
    try {
      answer = JSON.parse(body) as Partial<Snapshot>
    } catch {
      return Effect.fail(nobody(at))
    }
    if (answer.version === version) return Effect.succeed(answer as Snapshot)
    return Effect.fail(
      mistake(
        answer.version === undefined
          ? `What answers at ${at.text} is no curfew-tunnel; give the --admin address of one.`
          : `What answers at ${at.text} is another version of curfew-tunnel; use its own status.`
      )
    )
  })

const limited = (at: Address): Effect.Effect<Snapshot, Mistake> =>
  Effect.timeoutOrElse(ask(at), { duration: "5 seconds", orElse: () => Effect.fail(nobody(at)) })

const say = (text: string): Effect.Effect<void> =>
  Effect.sync(() => {
    process.stdout.write(text)
  })

/** Home, each line cleared to its end, and the rest of the screen below. */
const redraw = (text: string): string => `\x1b[H${text.replaceAll("\n", "\x1b[K\n")}\x1b[J`

const live = ({ admin, every }: StatusFlags): Effect.Effect<never, Mistake> => {
  const style = { colour: !process.env["NO_COLOR"], width: () => process.stdout.columns }
  const draw = Effect.flatMap(Effect.result(limited(admin)), (answer) => {
    const text = answer._tag === "Success" ? render(answer.success, style) : answer.failure.sentence
    const rows = Math.max(1, process.stdout.rows - 1)
    return say(redraw(`${text.split("\n").slice(0, rows).join("\n")}\n`))
  })
  return Effect.acquireUseRelease(
    say("\x1b[?1049h\x1b[?25l"),
    () => Effect.forever(Effect.andThen(draw, Effect.sleep(every))),
    () => say("\x1b[?25h\x1b[?1049l")
  )
}

/** Becomes the process. */
export const runStatus = (flags: StatusFlags): void => {
  const once = Effect.flatMap(limited(flags.admin), (answer) =>
    say(`${flags.json ? JSON.stringify(answer) : render(answer, { colour: false, width: () => 0 })}\n`)
  )
  const main: Effect.Effect<void, Mistake> =
    flags.json || flags.once || !process.stdout.isTTY ? once : live(flags)
  let sentence: string | undefined
  runMain(
    Effect.catchTag(main, "Mistake", (error) =>
      Effect.sync(() => {
        sentence = error.sentence
      })
    ),
    {
      name: "status",
      drain: Duration.zero,
      force: Duration.seconds(1),
      print: () => {
        if (sentence !== undefined) process.stderr.write(`${sentence}\n`)
      },
      exitCode: (ended) => (sentence === undefined ? exitCode(ended) : 1)
    }
  )
}
