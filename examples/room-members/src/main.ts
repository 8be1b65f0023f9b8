/** `npm start` serves until Ctrl-C; with `--once` it plays a scenario, and its last line is JSON. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { exitCode, runMain } from "@curfew/shutdown/Node"
import * as Effect from "effect/Effect"
import { eventLine } from "./eventLine.ts"
import { readFlags, wholeNumber } from "./flags.ts"
import { playOnce } from "./once.ts"
import { slowDisk } from "./SlowDisk.ts"
import { startService } from "./service.ts"

const flags = readFlags({
  port: { type: "string", default: "8080" },
  database: { type: "string" },
  lobby: { type: "string", default: "20000" },
  pace: { type: "string", default: "100" },
  once: { type: "boolean", default: false }
})
const port = wholeNumber("port", flags.port, 65_535)
const lobby = wholeNumber("lobby", flags.lobby, 1_000_000)
const pace = wholeNumber("pace", flags.pace, 60_000)

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

let result: Effect.Success<ReturnType<typeof playOnce>> | undefined

const main = Effect.gen(function* () {
  const disk = yield* slowDisk(flags.once ? 10 : pace)
  const service = yield* startService({
    port: flags.once ? 0 : port,
    database: yield* database,
    lobby,
    pause: disk.pause
  })
  service.activity.listen((event) => console.log(eventLine(event)))
  if (flags.once) {
    result = yield* playOnce(service, disk)
    return
  }
  console.log(`Open ${service.url} in a browser; Ctrl-C ends the server`)
  return yield* Effect.never
})

runMain(Effect.scoped(main), {
  name: "room members",
  drain: "20 seconds",
  force: "8 seconds",
  print: (report) => console.log(result === undefined ? report : `${report}\n\n${JSON.stringify(result)}`),
  exitCode: (ended) => (flags.once && result?.ok !== true ? 1 : exitCode(ended))
})
