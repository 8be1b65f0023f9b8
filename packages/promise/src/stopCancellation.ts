import * as Shield from "@curfew/shield"
import { abandoned } from "@curfew/shield/stopCancellation"
import { rejected } from "./internal/bridge.ts"
import { lateExitOf, launch, launchLightly } from "./internal/launch.ts"
import { leavably } from "./internal/leaving.ts"
import { checkWork, settle } from "./internal/settle.ts"
import type { OnLate, Work, WorkOptions } from "./Options.ts"

/**
 * Protects work from its caller's cancellation and lets the caller go at once: the work goes on under its owner.
 *
 * **Guarantees**
 *
 * - **Identity (L9)**: when nobody cancels, the value or the very error of the work.
 * - **Leaves at once (L10)**: a cancelled caller gets its {@link Cancelled} in the same turn. The work stands in its owner
 *   from its start to its end.
 * - **One receiver (L10)**: exactly one of the caller and `onAbandoned` gets the result. Without `onAbandoned` a failure
 *   reaches `onUnhandled` once and a value is dropped.
 * - **No road in (L44)**: no cancel but the owner's reaches the work's signal.
 * - **A closed owner takes no work (L46)**: then it behaves as {@link delayCancellation}, and that is counted.
 *
 * **When cancelled**
 *
 * Rejects at once. The work ends on its own, or by its owner's end.
 *
 * **Gotchas**
 *
 * - When an owner cancels the work, its receivers run in the `AsyncLocalStorage` store of who cancelled, not of the caller.
 *
 * **Example**
 *
 * ```ts
 * import { isCancelled, owner, stopCancellation } from "@curfew/promise"
 *
 * const log: Array<string> = []
 * const upload = async () => {
 *   await new Promise((resolve) => setTimeout(resolve, 2))
 *   log.push("uploaded")
 * }
 * {
 *   await using uploads = owner({ name: "uploads" })
 *   const client = new AbortController()
 *   const left = stopCancellation(upload, { signal: client.signal, owner: uploads }).catch(isCancelled)
 *   client.abort()
 *   await left
 *   log.push("left")
 * }
 * log // => ["left", "uploaded"]
 * ```
 *
 * @see delayCancellation where the caller shall wait.
 * @stability unstable
 * @since 0.1.0
 */
export const stopCancellation = <A>(
  work: Work<A>,
  options?: WorkOptions & { readonly onAbandoned?: OnLate<A> | undefined }
): Promise<A> => {
  try {
    checkWork(work)
    const name = options?.name
    const onAbandoned = lateExitOf(options?.onAbandoned)
    return (
      launchLightly(options, (start) =>
        leavably(start, {
          work,
          name,
          abandoned: (exit) => abandoned(exit, { name, onAbandoned }),
          wantsValues: onAbandoned !== undefined
        })
      ) ?? launch(() => Shield.stopCancellation(settle(work, { name }), { name, onAbandoned }), options)
    )
  } catch (error) {
    return rejected(error)
  }
}
