import type { CancelReason } from "@curfew/reason"
import * as Single from "@curfew/singleflight"
import { joinUnsafe, retainedUnsafe } from "@curfew/singleflight/Retained"
import type * as Duration from "effect/Duration"
import type * as Exit from "effect/Exit"
import { durationOf } from "./internal/durations.ts"
import { resultOf } from "./internal/errors.ts"
import { launch, reasonOf, startOf } from "./internal/launch.ts"
import { contextAt } from "./internal/place.ts"
import { runNow } from "./internal/runNow.ts"
import { settle } from "./internal/settle.ts"
import { askLightly, plainOf, requestedShared, retainedFor } from "./internal/sharing.ts"
import type { WorkOptions } from "./Options.ts"
import type { SharedOptions } from "./shared.ts"

/**
 * Shared work by key.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SharedMap<in K, out A> {
  /** Waits for the result: one that is retained, that of the run under way, or that of a run which starts now. */
  readonly get: (key: K, options?: Pick<WorkOptions, "signal">) => Promise<A>
  /** Later callers get a new run: drops what is retained. */
  readonly invalidate: (key: K) => void
  readonly invalidateAll: () => void
  /** Cancels what runs for the key; true iff something did. Does not wait for the clean-up. */
  readonly cancel: (key: K, reason?: CancelReason | Error | string) => boolean
  /** The same for every key; gives how many there were. */
  readonly cancelAll: (reason?: CancelReason | Error | string) => number
  /** How many wait for a result of the key now. */
  readonly observers: (key: K) => number
  /** How many keys have a run, one that waits to start, or a retained result. */
  readonly size: number
  readonly statistics: Single.SharedStatistics
}

/**
 * Makes shared work by key: nothing runs before the first `get` of a key.
 *
 * **Guarantees**
 *
 * - **One run (L29)**, **leaving (L30)**, **unobserved (L31)**, **retention (L33)**, **a typed end (L35)**: for each key, as
 *   with {@link shared}.
 * - **Capacity**: beyond it the least recently used retained result goes; nothing that runs does.
 *
 * **When cancelled**
 *
 * A cancelled `get` rejects at once with {@link Cancelled}. The run goes on for the others.
 *
 * **Gotchas**
 *
 * Keys are compared by value, as Effect's `Equal` does; do not change a key that is an object.
 *
 * **Example**
 *
 * ```ts
 * import { sharedMap } from "@curfew/promise"
 *
 * const asked: Array<number> = []
 * const users = sharedMap(async (id: number) => `user ${asked.push(id) && id}`)
 * await Promise.all([users.get(7), users.get(7), users.get(8)]) // => ["user 7", "user 7", "user 8"]
 * asked // => [7, 8]
 * ```
 *
 * @see shared for a single piece of work.
 * @stability unstable
 * @since 0.1.0
 */
export const sharedMap = <K, A>(
  lookup: (key: K, signal: AbortSignal) => A | PromiseLike<A>,
  options?: SharedOptions & {
    readonly name?: string | ((key: K) => string) | undefined
    /** How long a result is held for later callers. Is not asked about cancellations. Default: not at all. */
    readonly retain?: ((result: PromiseSettledResult<A>, key: K) => Duration.Input) | undefined
    /** How many retained results are held at most. Default: no limit. */
    readonly capacity?: number | undefined
  }
): SharedMap<K, A> => {
  const name = options?.name ?? (lookup.name || undefined)
  const retain = options?.retain
  const context = contextAt(startOf({ owner: options?.owner }))
  const made = runNow(
    context,
    Single.SharedMap.make(
      (key: K) =>
        settle((signal) => lookup(key, signal), { name: typeof name === "function" ? name(key) : name }),
      {
        ...plainOf(options),
        name,
        capacity: options?.capacity,
        retain:
          retain &&
          ((exit: Exit.Exit<A, unknown>, key: K) => durationOf("retention", retain(resultOf(exit), key)))
      }
    )
  )
  return {
    get: (key, asking) => {
      const retained = retainedFor(() => retainedUnsafe(made, key), asking)
      if (retained !== undefined) return retained
      const start = { signal: asking?.signal, owner: options?.owner }
      return (
        askLightly<A>(start, (waiter) => joinUnsafe(made, waiter, key)) ?? launch(() => made.get(key), start)
      )
    },
    invalidate: (key) => runNow(context, made.invalidate(key)),
    invalidateAll: () => runNow(context, made.invalidateAll),
    cancel: (key, reason) => runNow(context, made.cancel(key, reasonOf(reason, requestedShared))),
    cancelAll: (reason) => runNow(context, made.cancelAll(reasonOf(reason, requestedShared))),
    observers: (key) => runNow(context, made.observers(key)),
    get size() {
      return runNow(context, made.size)
    },
    get statistics() {
      return runNow(context, made.statistics)
    }
  }
}
