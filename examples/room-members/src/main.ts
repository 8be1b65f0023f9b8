/** `npm start` serves until Ctrl-C; with `--once` it plays a scenario, and its last line is JSON. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { runMain } from "@curfew/shutdown/Node"
import * as Effect from "effect/Effect"
import { eventLine } from "./eventLine.ts"
import { playOnce } from "./once.ts"
import { startService } from "./service.ts"

const { values: flags } = parseArgs({
  options: {
    port: { type: "string", default: "8080" },
    database: { type: "string" },
    lobby: { type: "string", default: "20000" },
    pace: { type: "string", default: "100" },
    once: { type: "boolean", default: false }
  }
})

/** Without a file of its own the database goes with the server. */
const database =
  flags.database === undefined
    ? Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "room-members-"))),
          (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
        ),
        (folder) => join(folder, "rooms.sqlite")
      )
    : Effect.succeed(flags.database)

const main = Effect.gen(function* () {
  const service = yield* startService({
    port: flags.once ? 0 : Number(flags.port),
    database: yield* database,
    lobby: Number(flags.lobby),
    pause: Effect.sleep(flags.once ? 10 : Number(flags.pace))
  })
  service.activity.listen((event) => console.log(eventLine(event)))
  if (flags.once) return yield* playOnce(service)
  console.log(`Open ${service.url} in a browser; Ctrl-C ends the server`)
  return yield* Effect.never
})

runMain(Effect.scoped(main), {
  name: "room members",
  drain: "20 seconds",
  force: "8 seconds",
  print: console.log
})
