/** The server: searches for whoever asks, until its client leaves, its limit is reached, or it is shut down. */
import { GrpcServer } from "@curfew/grpc"
import type { Signals } from "@curfew/shutdown"
import { exitCode, processSignals, runMain } from "@curfew/shutdown/Node"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { CallLog } from "./CallLog.ts"
import { serverAbout, serverFlags } from "./cli.ts"
import { readFlags } from "./flags.ts"
import { hashFinderService } from "./handlers.ts"
import { inLoop } from "./inLoop.ts"
import { inWorkers } from "./inWorkers.ts"

const { drain, limit, port, workers } = readFlags(serverAbout, serverFlags)

const main = Effect.gen(function* () {
  const search = workers === 0 ? inLoop : yield* inWorkers(workers)
  const log = new CallLog(console.log)
  const server = yield* GrpcServer.make({
    services: [hashFinderService(search, log, limit)],
    address: `127.0.0.1:${port}`
  })
  const where = workers === 0 ? "its own thread" : `${workers} worker ${workers === 1 ? "thread" : "threads"}`
  console.log(`The hash finder listens on ${server.address} and searches in ${where}; Ctrl-C ends it`)
  return yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.catchTag("BindError", ({ message }) =>
    Effect.as(
      Effect.sync(() => console.error(message)),
      1
    )
  )
)

/** Says what Ctrl-C does next. */
const signals: Signals = {
  subscribe: (listener) => {
    let said = false
    return processSignals().subscribe((signal) => {
      if (!said)
        console.log(`${signal}: no new calls; those that run may end within ${drain} s, or Ctrl-C again`)
      said = true
      listener(signal)
    })
  }
}

runMain(main, {
  name: "hash finder",
  drain: `${drain} seconds`,
  signals,
  print: console.log,
  exitCode: (ended) =>
    Option.isSome(ended.exit) && Exit.isSuccess(ended.exit.value) ? ended.exit.value.value : exitCode(ended)
})
