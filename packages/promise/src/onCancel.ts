import * as Guard from "@curfew/guard"
import type { CancelReason } from "@curfew/reason"
import * as Effect from "effect/Effect"
import { launchWork } from "./internal/launch.ts"
import { settle } from "./internal/settle.ts"
import type { Work, WorkOptions } from "./Options.ts"

/**
 * Runs clean-up iff the work's own cancellation prevented its completion, with the reason.
 *
 * **Guarantees**
 *
 * - **Cancelled only (L14)**: not after a value, an error, a foreign cancellation (a joined task that somebody else
 *   stopped), or a cancel that came after the completion. At most once.
 * - **Bounded (L15)**: it has the clean-up budget. What it throws reaches `onUnhandled`; the caller gets its
 *   {@link Cancelled} all the same.
 *
 * **When cancelled**
 *
 * That is what it is for. The work settles first, then the clean-up runs, then the promise rejects.
 *
 * **Example**
 *
 * ```ts
 * import { onCancel } from "@curfew/promise"
 *
 * const client = new AbortController()
 * const log: Array<string> = []
 * const hangs = (signal: AbortSignal) =>
 *   new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)))
 * const order = onCancel(hangs, async (reason) => log.push(reason._tag), { signal: client.signal })
 * client.abort("the tab was closed")
 * await order.catch(() => log) // => ["Requested"]
 * ```
 *
 * @see CancelScope.onCancel for a guard that is set up in the middle and can be disarmed.
 * @stability unstable
 * @since 0.1.0
 */
export const onCancel = <A>(
  work: Work<A>,
  cleanup: (reason: CancelReason) => unknown,
  options?: WorkOptions
): Promise<A> =>
  launchWork(work, { name: options?.name }, options, (settled) =>
    Guard.onCancel(settled, (reason) => Effect.orDie(settle(() => cleanup(reason), { name: options?.name })))
  )
