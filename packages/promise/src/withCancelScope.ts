import type { CancelScope, CancelScopeOptions } from "./cancelScope.ts"
import { rejected } from "./internal/bridge.ts"
import { openScope } from "./internal/scopeState.ts"

/**
 * Runs a body with a cancel scope, and settles when the body and everything it started have ended.
 *
 * **Guarantees**
 *
 * - **Fail fast (L25)**: the first failure, of a task or of the body, cancels the rest with `SiblingFailed` and comes out as
 *   it is. Later ones hang beside it (`siblingFailures(error)`), and each reaches `onUnhandled` once.
 * - **Nothing stays out (L24)**: no task outlives the call, other than stuck ones.
 * - **The value wins (L4)**: over a cancel that comes while only tasks still end.
 *
 * **When cancelled**
 *
 * Body and tasks are signalled in one turn and awaited; the promise rejects with {@link Cancelled}.
 *
 * **Example**
 *
 * ```ts
 * import { withCancelScope } from "@curfew/promise"
 *
 * const failed = withCancelScope(async (scope) => {
 *   scope.spawn("listener", () => Promise.reject("no route"))
 *   await scope.run((signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))))
 * })
 * await failed.catch((error) => error) // => "no route"
 * ```
 *
 * @see cancelScope for a scope as a value, gather for a fixed set of items with results.
 * @stability unstable
 * @since 0.1.0
 */
export const withCancelScope = <A>(
  body: (scope: CancelScope) => A | PromiseLike<A>,
  options?: CancelScopeOptions
): Promise<A> => {
  try {
    return openScope(options).around(body)
  } catch (error) {
    return rejected(error)
  }
}
