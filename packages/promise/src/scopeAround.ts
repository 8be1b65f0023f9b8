import * as Effect from "effect/Effect"
import type { CancelScope, CancelScopeOptions } from "./cancelScope.ts"
import { rejected } from "./internal/bridge.ts"
import { placeOfFiber, remember } from "./internal/place.ts"
import { openScope, type ScopeState } from "./internal/scopeState.ts"
import { settleRunning } from "./internal/settle.ts"

/**
 * A cancel scope around promise code that runs already, as part of the running fiber: for edges that begin a handler as
 * the plain function it is, and need a scope for it only when it asks for one, or when something happens to it. `opened`
 * is given the scope within the first operation.
 *
 * **Guarantees**
 *
 * - **As `withCancelScope`**: the promise is the body. What it fails with cancels what was started in the scope, and
 *   the effect ends when all of that has.
 *
 * **When cancelled**
 *
 * The scope is cancelled, and the promise has the clean-up budget to settle.
 *
 * @stability internal
 * @since 0.1.0
 */
export const scopeAround = <A>(
  running: PromiseLike<A>,
  opened: (scope: CancelScope) => void,
  options?: Omit<CancelScopeOptions, "signal" | "parent" | "owner">
): Effect.Effect<A, unknown> =>
  Effect.withFiber((fiber) => {
    const { signal } = new AbortController()
    remember(signal, placeOfFiber(fiber))
    const scope = openScope({ ...options, signal })
    opened(scope)
    return settleRunning(around(scope, running), { name: options?.name })
  })

const around = <A>(scope: ScopeState, running: PromiseLike<A>): Promise<A> => {
  try {
    return scope.aroundRunning(running)
  } catch (error) {
    return rejected(error)
  }
}
