import * as Scope from "@curfew/scope"
import type * as Duration from "effect/Duration"
import { launchTimed } from "./internal/launch.ts"
import type { OnLate, Work, WorkOptions } from "./Options.ts"

/**
 * Rejects with `DeadlineExceeded` when the work takes longer than the duration.
 *
 * **Guarantees**
 *
 * - **Its own deadline (L7)**: the error stands for this limit alone, and carries its name; a cancel from above is a
 *   {@link Cancelled} instead.
 * - **Late results have a receiver (L42)**: what the work still produces goes to `onLate`.
 * - **No start (L5)**: a duration of zero or less rejects without calling the work; an infinite one costs no timer.
 *
 * **When cancelled**
 *
 * Aborts the work's signal and waits until its promise has settled, after its own deadline as after a cancel, within the
 * clean-up budget. To leave at once, put {@link stopCancellation} around the work.
 *
 * **Example**
 *
 * ```ts
 * import { failAfter } from "@curfew/promise"
 *
 * const hangs = (signal: AbortSignal) =>
 *   new Promise<string>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)))
 * const error = await failAfter(hangs, "2 millis").catch((error: Error) => error.name)
 * error // => "DeadlineExceeded"
 * ```
 *
 * @see moveOnAfter for `undefined` instead of an error.
 * @stability unstable
 * @since 0.1.0
 */
export const failAfter = <A>(
  work: Work<A>,
  duration: Duration.Input,
  options?: WorkOptions & { readonly onLate?: OnLate<A> | undefined }
): Promise<A> =>
  launchTimed(work, duration, options, (settled, left) =>
    Scope.failAfter(settled, left, { name: options?.name })
  )
