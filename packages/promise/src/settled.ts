import { lateOf, launchWork } from "./internal/launch.ts"
import type { OnLate, Work, WorkOptions } from "./Options.ts"

/**
 * Runs work and, when it is cancelled, waits until its promise has settled.
 *
 * **Guarantees**
 *
 * - **Itself**: when nobody cancels, the value or the very error of the work; a synchronous throw is a rejection.
 * - **Waits**: after an abort the promise has the clean-up budget to settle, ten seconds by default. What does not settle is
 *   left behind as stuck, by name, until it settles after all (L16, L17).
 * - **Late results have a receiver (L42)**: what it still produces goes to `onLate`; without one, a failure reaches
 *   `onUnhandled` once and a value is dropped.
 * - **No start (L5)**: with a signal that is aborted already the work is not called.
 * - **Nothing left (L8)**: no listener stays on the signal.
 *
 * **When cancelled**
 *
 * Aborts the work's signal, waits, and rejects with {@link Cancelled}.
 *
 * **Example**
 *
 * ```ts
 * import { isCancelled, settled } from "@curfew/promise"
 *
 * const client = new AbortController()
 * const work = (signal: AbortSignal) =>
 *   new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)))
 * const answer = settled(work, { signal: client.signal }).catch(isCancelled)
 * client.abort("the tab was closed")
 * await answer // => true
 * ```
 *
 * @see promiseSettled for the same in an Effect program, stopCancellation where the caller shall not wait.
 * @stability unstable
 * @since 0.1.0
 */
export const settled = <A>(
  work: Work<A>,
  options?: WorkOptions & { readonly onLate?: OnLate<A> | undefined }
): Promise<A> => launchWork(work, { name: options?.name, late: lateOf(options?.onLate) }, options)
