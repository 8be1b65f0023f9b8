import * as Shield from "@curfew/shield"
import type * as Duration from "effect/Duration"
import { rejected } from "./internal/bridge.ts"
import { durationOf } from "./internal/durations.ts"
import { lateExitOf, lateOf, launchWork } from "./internal/launch.ts"
import type { OnLate, Work, WorkOptions } from "./Options.ts"

/**
 * Protects work from its caller's cancellation and keeps the caller until the work has settled.
 *
 * **Guarantees**
 *
 * - **Identity (L9)**: when nobody cancels, the value or the very error of the work.
 * - **Waits (L11)**: a cancelled caller gets its {@link Cancelled} only after the work has settled; `onLate` then got what
 *   became of the work, exactly once. Without `onLate` a failure reaches `onUnhandled` once and a value is dropped.
 * - **Grace (L11)**: with `grace`, the work's own signal is aborted that long after its caller's cancel.
 * - **No road in (L44)**: no cancel reaches the work's signal, nor what is started with it.
 *
 * **When cancelled**
 *
 * Waits for the work, or for the grace and the clean-up budget.
 *
 * **Gotchas**
 *
 * - When an owner cancels the work, its receivers run in the `AsyncLocalStorage` store of who cancelled, not of the caller.
 *
 * **Example**
 *
 * ```ts
 * import { delayCancellation } from "@curfew/promise"
 *
 * const client = new AbortController()
 * const log: Array<string> = []
 * const charge = async () => {
 *   await new Promise((resolve) => setTimeout(resolve, 2))
 *   log.push("charged")
 * }
 * const charged = delayCancellation(charge, { signal: client.signal }).catch(() => log.push("the caller leaves"))
 * client.abort()
 * await charged
 * log // => ["charged", "the caller leaves"]
 * ```
 *
 * @see stopCancellation where the caller shall not wait.
 * @stability unstable
 * @since 0.1.0
 */
export const delayCancellation = <A>(
  work: Work<A>,
  options?: WorkOptions & {
    /** How long after its caller's cancel the work is cancelled too. Default: never. */
    readonly grace?: Duration.Input | undefined
    readonly onLate?: OnLate<A> | undefined
  }
): Promise<A> => {
  const { grace, name, onLate } = options ?? {}
  let told = false
  const once =
    onLate === undefined
      ? undefined
      : (result: PromiseSettledResult<A>): unknown => {
          // Work that outlives its grace is told by its promise, and its shield's end says nothing new.
          if (told) return undefined
          told = true
          return onLate(result)
        }
  try {
    const limit = grace === undefined ? undefined : durationOf("grace", grace)
    return launchWork(work, { name, late: once && lateOf(once) }, options, (settled) =>
      Shield.delayCancellation(settled, { name, grace: limit, onLate: lateExitOf(once) })
    )
  } catch (error) {
    return rejected(error)
  }
}
