import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { forceGc, heapUsed, repeat, turns } from "./internal/gates.ts"

/**
 * Runs an effect and counts the fibers that are still alive a few turns of the event loop later.
 *
 * **When cancelled**
 *
 * The effect is interrupted like any other.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { LeakGate } from "@curfew/testing"
 *
 * await Effect.runPromise(LeakGate.fibers(Effect.forkChild(Effect.never))) // => 1
 * await Effect.runPromise(LeakGate.fibers(Effect.yieldNow, { times: 100 })) // => 0
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const fibers = <A, E, R>(
  work: Effect.Effect<A, E, R>,
  options?: { readonly times?: number | undefined }
): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    let alive = 0
    const counted = Effect.provideService(work, Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => {
        alive++
      },
      recordFiberEnd: () => {
        alive--
      }
    })
    return repeat(counted, options?.times ?? 1).pipe(
      Effect.andThen(turns),
      Effect.andThen(Effect.sync(() => alive))
    )
  })

/**
 * Runs an effect with a long-lived `AbortSignal`, and counts the abort listeners that it left there.
 *
 * **When cancelled**
 *
 * The effect is interrupted like any other; the signal is left as it was.
 *
 * **Gotchas**
 *
 * What `AbortSignal.any` hangs on a signal is no listener and is not seen; `heapSlope` finds it.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { LeakGate } from "@curfew/testing"
 *
 * const wait = (signal: AbortSignal) => Effect.sync(() => signal.addEventListener("abort", () => {}))
 * Effect.runSync(LeakGate.listeners(wait, { times: 3 })) // => 3
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const listeners = <A, E, R>(
  work: (signal: AbortSignal) => Effect.Effect<A, E, R>,
  options?: { readonly times?: number | undefined; readonly signal?: AbortSignal | undefined }
): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const signal = options?.signal ?? new AbortController().signal
    const left = new Set<unknown>()
    const { addEventListener, removeEventListener } = signal
    signal.addEventListener = (type: string, listener: unknown, ...rest: ReadonlyArray<unknown>) => {
      if (type === "abort") left.add(listener)
      return Reflect.apply(addEventListener, signal, [type, listener, ...rest])
    }
    signal.removeEventListener = (type: string, listener: unknown, ...rest: ReadonlyArray<unknown>) => {
      if (type === "abort") left.delete(listener)
      return Reflect.apply(removeEventListener, signal, [type, listener, ...rest])
    }
    const restore = Effect.sync(() => {
      const own = signal as unknown as Record<string, unknown>
      delete own["addEventListener"]
      delete own["removeEventListener"]
    })
    return repeat(
      Effect.suspend(() => work(signal)),
      options?.times ?? 1
    ).pipe(Effect.andThen(Effect.sync(() => left.size)), Effect.ensuring(restore))
  })

/**
 * Runs an effect and counts the timers of the process that are active a few turns later and were not before. Needs
 * Node.
 *
 * **When cancelled**
 *
 * The effect is interrupted like any other.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { LeakGate } from "@curfew/testing"
 *
 * await Effect.runPromise(LeakGate.timers(Effect.timeout(Effect.yieldNow, "1 hour"), { times: 10 })) // => 0
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const timers = <A, E, R>(
  work: Effect.Effect<A, E, R>,
  options?: { readonly times?: number | undefined }
): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const active = (): number =>
      process.getActiveResourcesInfo().filter((resource) => resource === "Timeout").length
    const before = active()
    return repeat(work, options?.times ?? 1).pipe(
      Effect.andThen(turns),
      // A timer that was there before and has fired since is no leak the other way.
      Effect.andThen(Effect.sync(() => Math.max(0, active() - before)))
    )
  })

/**
 * How many bytes of the heap one more run of an effect keeps, as the slope over several rounds of many runs, each
 * measured after a garbage collection. Where they rise they are measured once more, and the smaller slope counts.
 * Needs Node.
 *
 * **When cancelled**
 *
 * The effect is interrupted like any other.
 *
 * **Gotchas**
 *
 * A measure with noise: compare it with a bound such as 16 bytes, not with zero.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { LeakGate } from "@curfew/testing"
 *
 * const kept: Array<unknown> = []
 * const leaky = Effect.sync(() => kept.push(new Array(100).fill(0)))
 * const slope = await Effect.runPromise(LeakGate.heapSlope(leaky))
 * slope > 100 // => true
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const heapSlope = <A, E, R>(
  work: Effect.Effect<A, E, R>,
  options?: {
    /** Runs in one round. Default: 1,000. */
    readonly times?: number | undefined
    /** Rounds of one measurement, after one round that does not count. Default: 6. */
    readonly rounds?: number | undefined
  }
): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const times = options?.times ?? 1000
    const rounds = Math.max(2, options?.rounds ?? 6)
    const sizes: Array<number> = []
    const round = Effect.andThen(
      Effect.andThen(repeat(work, times), turns),
      Effect.sync(() => {
        forceGc()
        sizes.push(heapUsed())
      })
    )
    const series = Effect.suspend(() => {
      sizes.length = 0
      return Effect.map(repeat(round, rounds + 1), () => slopeOf(sizes.slice(1)) / times)
    })
    // A heap also grows once, by what the machine compiles; a leak grows again.
    return Effect.flatMap(series, (first) =>
      first <= 0 ? Effect.succeed(first) : Effect.map(series, (second) => Math.min(first, second))
    )
  })

/** The slope of the line with the least squares through sizes that are one apart. */
const slopeOf = (sizes: ReadonlyArray<number>): number => {
  const middle = (sizes.length - 1) / 2
  const mean = sizes.reduce((sum, size) => sum + size, 0) / sizes.length
  const above = sizes.reduce((sum, size, i) => sum + (i - middle) * (size - mean), 0)
  const below = sizes.reduce((sum, _, i) => sum + (i - middle) ** 2, 0)
  return above / below
}
