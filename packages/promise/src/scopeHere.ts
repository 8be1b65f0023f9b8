import * as Effect from "effect/Effect"
import type { CancelScope, CancelScopeOptions } from "./cancelScope.ts"
import { placeOfFiber, remember } from "./internal/place.ts"
import { openScope } from "./internal/scopeState.ts"

/**
 * A cancel scope for promise code as part of the running fiber, for those who write edges: it is cancelled with the fiber,
 * and what is started in it has the fiber's context.
 *
 * **When cancelled**
 *
 * It does not suspend. The fiber does not wait for the scope: whoever makes it waits for its disposal.
 *
 * @stability internal
 * @since 0.1.0
 */
export const scopeHere = (
  options?: Omit<CancelScopeOptions, "signal" | "parent" | "owner">
): Effect.Effect<CancelScope> =>
  Effect.withFiberSucceed((fiber) => {
    const { signal } = new AbortController()
    remember(signal, placeOfFiber(fiber))
    return openScope({ ...options, signal })
  })
