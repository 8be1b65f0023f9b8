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
import type { Work, WorkOptions } from "./Options.ts"
import type { Owner } from "./owner.ts"

/**
 * One piece of work that all who ask for it at the same time share.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Shared<out A> {
  readonly name: string
  /** Waits for the result: one that is retained, that of the run under way, or that of a run which starts now. */
  readonly get: (options?: Pick<WorkOptions, "signal">) => Promise<A>
  /** Later callers get a new run: drops what is retained. */
  readonly invalidate: () => void
  /** Cancels what runs; true iff something did. Does not wait for the clean-up. */
  readonly cancel: (reason?: CancelReason | Error | string) => boolean
  /** How many wait for a result now. */
  readonly observers: number
  readonly statistics: Single.SharedStatistics
}

/**
 * What shared work can be told.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SharedOptions {
  /** What happens to a run for which nobody waits any more. Default: it is cancelled. */
  readonly whenUnobserved?: "keep" | "cancel" | { readonly linger: Duration.Input } | undefined
  /** Whether a new run waits for the end of the one before. Default: `exclusive`, it does. */
  readonly generations?: "exclusive" | "overlap" | undefined
  /** Answers for the runs. Default: {@link processOwner}. */
  readonly owner?: Owner | undefined
}

/**
 * Makes shared work: nothing runs before the first `get`.
 *
 * **Guarantees**
 *
 * - **One run (L29)**: all who wait for it get the same result.
 * - **Leaving (L30)**: a caller whose signal is aborted leaves at once and touches nobody else.
 * - **Unobserved (L31)**: the run's signal is aborted, with reason `Unobserved`, when nobody has waited for it for the
 *   linger; by default with the last one. Never under `keep`.
 * - **Exclusive (L32)**, **retention (L33)**: as `Shared` in `@curfew/singleflight`. A cancellation is never retained.
 * - **A typed end (L35)**: cancelling the source rejects with `SharedCancelled`.
 *
 * **When cancelled**
 *
 * A cancelled `get` rejects at once with {@link Cancelled}. The run goes on for the others.
 *
 * **Example**
 *
 * ```ts
 * import { shared } from "@curfew/promise"
 *
 * let runs = 0
 * const token = shared(async () => ++runs, { retain: (result) => (result.status === "fulfilled" ? "1 minute" : 0) })
 * await Promise.all([token.get(), token.get()]) // => [1, 1]
 * await token.get() // => 1
 * ```
 *
 * @see sharedMap for work by key.
 * @stability unstable
 * @since 0.1.0
 */
export const shared = <A>(
  work: Work<A>,
  options?: SharedOptions & {
    readonly name?: string | undefined
    /** How long a result is held for later callers. Is not asked about cancellations. Default: not at all. */
    readonly retain?: ((result: PromiseSettledResult<A>) => Duration.Input) | undefined
  }
): Shared<A> => {
  const name = options?.name ?? (work.name || undefined)
  const retain = options?.retain
  const context = contextAt(startOf({ owner: options?.owner }))
  const made = runNow(
    context,
    Single.Shared.make(settle(work, { name }), {
      ...plainOf(options),
      name,
      retain: retain && ((exit: Exit.Exit<A, unknown>) => durationOf("retention", retain(resultOf(exit))))
    })
  )
  return {
    name: made.name,
    get: (asking) => {
      const retained = retainedFor(() => retainedUnsafe(made), asking)
      if (retained !== undefined) return retained
      const start = { signal: asking?.signal, owner: options?.owner, name: made.name }
      return askLightly<A>(start, (waiter) => joinUnsafe(made, waiter)) ?? launch(() => made.get, start)
    },
    invalidate: () => runNow(context, made.invalidate),
    cancel: (reason) => runNow(context, made.cancel(reasonOf(reason, requestedShared))),
    get observers() {
      return runNow(context, made.observers)
    },
    get statistics() {
      return runNow(context, made.statistics)
    }
  }
}
