import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import { millisOf } from "./Argument.ts"
import { bounding } from "./internal/bounding.ts"
import { takePosition } from "./internal/source.ts"
import { reportUnhandled } from "./OnUnhandled.ts"

/**
 * Runs clean-up under a limit: `Some` with its result, or `None` when the budget was used up first.
 *
 * **Guarantees**
 *
 * - **Returns within the budget**: for every finalizer that yields the thread, `uninterruptible(never)` included.
 * - **Named culprit**: an overrun leaves exactly one record in {@link stuck}, which goes when the finalizer ends.
 * - **Itself within the budget**: result, failure and defect are the finalizer's own.
 * - **Nothing lost**: a failure after the budget reaches {@link OnUnhandled}.
 *
 * **When cancelled**
 *
 * Runs on: clean-up is not interrupted, neither by a cancel nor by its own budget.
 *
 * **Gotchas**
 *
 * A loop that never yields the thread cannot be left behind; only the end of the process ends it.
 *
 * The record says in which line it was called, too, unless the process has asked for many such lines in that millisecond:
 * taking one costs as much as the rest.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Latch from "effect/Latch"
 * import { bounded, stuck } from "@curfew/scope"
 *
 * const pool = Latch.makeUnsafe()
 * const hangs = bounded(pool.await, { within: "10 millis", name: "close the pool" })
 * const result = await Effect.runPromise(hangs)
 * result._tag // => "None"
 * Effect.runSync(Effect.map(stuck, (records) => records.map((record) => record.name))) // => ["close the pool"]
 *
 * pool.openUnsafe() // it ends after all, and its record goes
 * Effect.runSync(stuck) // => []
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const bounded = <A, E, R>(
  finalizer: Effect.Effect<A, E, R>,
  options?: { readonly within?: Duration.Input | undefined; readonly name?: string | undefined }
): Effect.Effect<Option.Option<A>, E, R> => {
  const at = { name: options?.name, source: takePosition(bounded) }
  if (options?.within === undefined) return boundedAt(finalizer, at)
  const millis = millisOf("the budget of bounded", options.within)
  if (typeof millis === "number") return boundedAt(finalizer, { ...at, budget: Duration.millis(millis) })
  // Clean-up runs in any case: a budget that means nothing is told after it.
  return Effect.uninterruptible(Effect.andThen(boundedAt(finalizer, at), Effect.die(millis)))
}

/**
 * Like {@link bounded}, for mechanisms: `source` is where the program handed the clean-up over. A position inside the
 * mechanism would tell nobody anything, and taking one costs a stack.
 *
 * @stability internal
 * @since 0.1.0
 */
export const boundedAt = <A, E, R>(
  finalizer: Effect.Effect<A, E, R>,
  options: {
    readonly budget?: Duration.Duration | undefined
    readonly name?: string | undefined
    readonly source?: (() => string | undefined) | undefined
  }
): Effect.Effect<Option.Option<A>, E, R> =>
  bounding(finalizer, options, (cause, reason) => reportUnhandled("cleanup", options.name, cause, reason))
