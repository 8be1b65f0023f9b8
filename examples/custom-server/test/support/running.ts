/** A server in this process, with commands of the test's own, and a signal to end it by. */
import { Shutdown } from "@curfew/shutdown"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { onTestFinished } from "vitest"
import { type Command, listen } from "../../src/server.ts"

export const start = async (
  commands: Readonly<Record<string, Command>>,
  options?: Shutdown.ShutdownOptions
) => {
  const log: Array<string> = []
  let heard = () => {}
  let signal = (_name: string) => {}
  const listening = Deferred.makeUnsafe<number>()
  const main = Effect.gen(function* () {
    const print = (line: string) => {
      log.push(line)
      heard()
    }
    yield* Deferred.succeed(listening, yield* listen(0, new Map(Object.entries(commands)), print))
    return yield* Effect.never
  })
  const subscribe = (listener: typeof signal) => {
    signal = listener
    return () => {}
  }
  const ended = Effect.runPromise(
    Shutdown.run(Effect.scoped(main), {
      drain: "1 minute",
      force: "1 minute",
      signals: { subscribe },
      ...options
    })
  )
  onTestFinished(async () => {
    signal("SIGTERM")
    signal("SIGQUIT")
    await ended
  })
  /** Waits until the server has logged a line, wherever it stands. */
  const logs = async (line: string): Promise<void> => {
    while (!log.includes(line)) {
      await new Promise<void>((resolve) => {
        heard = resolve
      })
    }
  }
  return {
    port: await Effect.runPromise(Deferred.await(listening)),
    log,
    logs,
    ended,
    signal: (name: string) => signal(name)
  }
}
