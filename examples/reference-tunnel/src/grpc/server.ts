import { logVerbosity, Server, ServerCredentials, setLogger, setLogVerbosity } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { endWith, type Sentence } from "../cli/Sentence.ts"
import type { Meter } from "../process/Meter.ts"
import { Process } from "../process/Process.ts"
import { resource } from "../process/resource.ts"
import { countHandled } from "./interceptors.ts"

/** A gRPC server that listens. */
export interface Listening {
  readonly port: number
  /** Takes no new calls from now on; those that run go on. */
  readonly refuse: Effect.Effect<void>
  /** Cuts every connection. */
  readonly force: Effect.Effect<void>
}

const host = "127.0.0.1"

/** Listens on the loopback until the scope closes; then it waits for running calls as long as the limit allows. */
export const listenOn = (
  name: string,
  options: {
    /** 0: a free one. */
    readonly port: number
    /** The flag that chooses another port. */
    readonly flag: string
    readonly register: (server: Server) => void
  }
): Effect.Effect<Listening, Sentence, Process | Scope.Scope> =>
  Effect.gen(function* () {
    const { meter, supervised } = yield* Process
    logThrough(meter)
    // Below the scenario's parent the flag is the parent's own, and its default is a free port.
    const free = supervised ? "leave the flag out for a free one" : `take a free one with ${options.flag}=0`
    return yield* resource(name, bind(meter, free, options), (it) => it.close)
  })

interface Bound extends Listening {
  readonly close: Effect.Effect<void>
}

const bind = (
  meter: Meter,
  free: string,
  { flag, port, register }: Parameters<typeof listenOn>[1]
): Effect.Effect<Bound, Sentence> =>
  Effect.callback((resume) => {
    const server = new Server({ interceptors: [countHandled(meter)] })
    register(server)
    server.bindAsync(`${host}:${port}`, ServerCredentials.createInsecure(), (error, bound) => {
      if (error !== null) {
        server.forceShutdown()
        resume(
          endWith(
            /EADDRINUSE/.test(error.message)
              ? `Port ${port} of ${host} is in use; choose another with ${flag}=N, or ${free}.`
              : `Cannot listen on ${host}:${port}: ${error.message}`
          )
        )
        return
      }
      const shutdown = shutdownOf(server)
      resume(
        Effect.succeed({
          port: bound,
          refuse: Effect.sync(() => shutdown.begin()),
          force: Effect.sync(() => server.forceShutdown()),
          close: Effect.ensuring(
            Effect.timeoutOption(shutdown.over, "1 second"),
            Effect.sync(() => server.forceShutdown())
          )
        })
      )
    })
  })

/** grpc-js takes one `tryShutdown`, and tells of its end by a callback. */
const shutdownOf = (server: Server) => {
  let begun = false
  let ended = false
  const waiters = new Set<() => void>()
  const begin = () => {
    if (begun) return
    begun = true
    server.tryShutdown(() => {
      ended = true
      for (const waiter of waiters) waiter()
    })
  }
  const over = Effect.callback<void>((resume) => {
    begin()
    if (ended) return resume(Effect.void)
    const waiter = () => resume(Effect.void)
    waiters.add(waiter)
    return Effect.sync(() => waiters.delete(waiter))
  })
  return { begin, over }
}

/** What grpc-js logs as an error counts as one. */
const logThrough = (meter: Meter): void => {
  setLogVerbosity(logVerbosity.ERROR)
  setLogger({
    error: () => {
      meter.errorLogs++
    },
    info: () => undefined,
    debug: () => undefined
  })
}
