/** A process of its own that makes calls of all kinds, cancels them at seeded moments, and says what is left. */
import { CancelReason } from "@curfew/reason"
import { CancelScope, stuck } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import { Client } from "../../src/index.ts"
import { definition, type Echo, insecure, serve, turns } from "./echo.ts"

const calls = Number(process.argv[2])
let state = Number(process.argv[3])

/** A small seeded generator: the same seed is the same run of choices. */
const random = (below: number): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor((state / 2 ** 32) * below)
}

/** Calls on one connection. */
const batchSize = 500

const errors: Array<string> = []
process.on("uncaughtException", (error) => errors.push(`uncaught ${error.message}`))
process.on("unhandledRejection", (error) => errors.push(`rejected ${String(error)}`))
const say = (...said: ReadonlyArray<unknown>): void => {
  errors.push(`console ${said.map(String).join(" ")}`)
}
console.error = say
console.warn = say

const logs: Array<string> = []
const logger = Logger.make(({ logLevel, message }) => {
  logs.push(`${logLevel} ${String(message)}`)
})

const requests = Stream.concat(Stream.make("a", "b"), Stream.fromEffect(Effect.as(turns(2), "c")))
const kinds: ReadonlyArray<(echo: Echo) => Effect.Effect<unknown, unknown>> = [
  (echo) => echo.Unary("hello", { timeout: "1 minute" }),
  (echo) => Stream.runDrain(echo.ServerStream("50")),
  (echo) => echo.ClientStream(requests),
  (echo) => Stream.runDrain(echo.Bidi(requests))
]

/** A long-lived signal, and the ears on it. */
const controller = new AbortController()
const { signal } = controller
let listeners = 0
const { addEventListener, removeEventListener } = signal
signal.addEventListener = (...given: Parameters<typeof addEventListener>) => {
  listeners++
  addEventListener.apply(signal, given)
}
signal.removeEventListener = (...given: Parameters<typeof removeEventListener>) => {
  listeners--
  removeEventListener.apply(signal, given)
}

let cancelled = 0
let fibers = 0

const one = (echo: Echo): Effect.Effect<void> =>
  Effect.suspend(() => {
    const kind = kinds[random(kinds.length)] as (echo: Echo) => Effect.Effect<unknown, unknown>
    const wait = random(8)
    const call = CancelScope.run(
      (scope) =>
        Effect.andThen(
          Effect.forkChild(
            Effect.andThen(
              wait === 0 ? Effect.yieldNow : turns(wait - 1),
              scope.cancel(CancelReason.Superseded())
            ),
            { startImmediately: true }
          ),
          kind(echo)
        ),
      { signal }
    )
    return Effect.match(call, {
      onFailure: (error) => {
        errors.push(`failed ${String(error)}`)
      },
      onSuccess: (outcome) => {
        if (outcome._tag === "Cancelled") cancelled++
      }
    })
  })

const heap = (): number => {
  globalThis.gc?.()
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

const program = Effect.scoped(
  Effect.gen(function* () {
    const address = yield* serve()
    const before = fibers
    const sizes: Array<number> = []
    // Node's HTTP/2 server ends a connection on which a thousand streams were reset in quick succession.
    const batch = Effect.scoped(
      Effect.gen(function* () {
        const channelOptions = { "grpc.enable_channelz": 0, "grpc.use_local_subchannel_pool": 1 }
        const echo = yield* Client.make(definition, { address, credentials: insecure, channelOptions })
        yield* Effect.forEach(Array.from({ length: batchSize }), () => one(echo), {
          concurrency: 32,
          discard: true
        })
      })
    )
    for (let done = 0; done < calls; done += batchSize) {
      yield* batch
      yield* turns(20)
      sizes.push(heap())
    }
    const left = fibers - before
    // The first batches warm up: connections, caches, compiled code.
    const from = Math.floor(sizes.length / 2)
    const slope =
      ((sizes.at(-1) as number) - (sizes[from] as number)) / ((sizes.length - 1 - from) * batchSize)
    return {
      calls,
      cancelled,
      errors,
      logs,
      listeners,
      fibers: left,
      stuck: (yield* stuck).length,
      slope,
      sizes
    }
  })
).pipe(
  Effect.provideService(Metric.FiberRuntimeMetrics, {
    recordFiberStart: () => {
      fibers++
    },
    recordFiberEnd: () => {
      fibers--
    }
  }),
  Effect.provideService(References.CurrentLoggers, new Set([logger]))
)

process.stdout.write(JSON.stringify(await Effect.runPromise(program)))
process.exit(0)
