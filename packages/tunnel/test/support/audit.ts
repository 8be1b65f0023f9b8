/** What a piece of work leaves behind: fibers that live on, and what it logged as an error. */
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as References from "effect/References"

export interface Findings {
  readonly liveFibers: number
  readonly errorLogs: ReadonlyArray<string>
  readonly debugLogs: ReadonlyArray<string>
}

/** Runs work that owns everything it starts, and looks afterwards. */
export const audited = <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<readonly [A, Findings], E, R> =>
  Effect.suspend(() => {
    let live = 0
    const errorLogs: Array<string> = []
    const debugLogs: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      const text = String(Array.isArray(message) ? message.map(String).join(" ") : message)
      if (logLevel === "Error" || logLevel === "Fatal" || logLevel === "Warn") errorLogs.push(text)
      else debugLogs.push(text)
    })
    return work.pipe(
      Effect.provideService(Metric.FiberRuntimeMetrics, {
        recordFiberStart: () => void live++,
        recordFiberEnd: () => void live--
      }),
      Effect.provideService(References.CurrentLoggers, new Set([logger])),
      Effect.provideService(References.MinimumLogLevel, "All"),
      Effect.map((value) => [value, { liveFibers: live, errorLogs, debugLogs }] as const)
    )
  })
