import { type CancelReason, describe } from "@curfew/reason"

/**
 * What cancelled code throws, and what the signals that work is given are aborted with.
 *
 * Its name is `AbortError`, so that the checks that users of `fetch` write hold for it. `fetch` rejects with the reason of
 * its signal as it is; that is why the signal's reason is this error, and the {@link CancelReason} is in it.
 *
 * **Guarantees**
 *
 * - **One class**: every cancellation arrives as this error, whoever noticed it: Curfew, `fetch`, `throwIfAborted`.
 * - **A typed reason**: `reason` says why, and the first one wins (L1).
 *
 * **Gotchas**
 *
 * A `Cancelled` may be another's: a joined task that somebody stopped throws its own. The scope tells: `scope.cancelled`.
 *
 * **Example**
 *
 * ```ts
 * import { Cancelled, cancelScope, isCancelled } from "@curfew/promise"
 *
 * const scope = cancelScope()
 * scope.cancel("the tab was closed")
 * const error = await scope.run(() => "never called").catch((error: unknown) => error)
 * isCancelled(error) // => true
 * const { name, reason } = error as Cancelled
 * const both = [name, reason] // => ["AbortError", { _tag: "Requested", message: "the tab was closed" }]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export class Cancelled extends Error {
  readonly _tag = "Cancelled"
  /** `AbortError`, as a web API names it. */
  override readonly name = "AbortError"
  /** Why. */
  readonly reason: CancelReason

  constructor(reason: CancelReason) {
    super(`The work was cancelled: ${describe(reason)}.`)
    this.reason = reason
  }
}

/**
 * Tells whether an error is a {@link Cancelled}. An `AbortError` of somebody else's signal is not one: nobody cancelled
 * through Curfew.
 *
 * **Example**
 *
 * ```ts
 * import { isCancelled } from "@curfew/promise"
 *
 * isCancelled(new DOMException("aborted", "AbortError")) // => false
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const isCancelled = (error: unknown): error is Cancelled => error instanceof Cancelled
