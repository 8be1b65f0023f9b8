/**
 * Looking for a retained exit without an effect, for those who write primitives of their own.
 *
 * @stability internal
 * @since 0.1.0
 */
import type * as Exit from "effect/Exit"
import type { Shared } from "./Shared.ts"
import type { SharedCancelled } from "./SharedCancelled.ts"
import type { SharedMap } from "./SharedMap.ts"

/**
 * Under which shared work looks for what it retains.
 *
 * @stability internal
 * @since 0.1.0
 */
export const look: unique symbol = /* @__PURE__ */ Symbol("@curfew/singleflight/look")

/**
 * The exit that `get` would give at once, counted as a hit; `undefined` where it would have to wait.
 *
 * @stability internal
 * @since 0.1.0
 */
export const retainedUnsafe = <K, A, E>(
  shared: Shared<A, E> | SharedMap<K, A, E>,
  key?: K
): Exit.Exit<A, E | SharedCancelled> | undefined =>
  (shared as unknown as { readonly [look]: (key?: K) => Exit.Exit<A, E | SharedCancelled> | undefined })[
    look
  ](key)
