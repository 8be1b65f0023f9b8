/**
 * Looking for a retained exit without an effect, and waiting for one without a fiber, for those who write primitives of
 * their own.
 *
 * @stability internal
 * @since 0.1.0
 */
import type * as Exit from "effect/Exit"
import type { Waiter, Waits } from "./internal/observers.ts"
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
 * Under which shared work takes in who waits without a fiber.
 *
 * @stability internal
 * @since 0.1.0
 */
export const join: unique symbol = /* @__PURE__ */ Symbol("@curfew/singleflight/join")

interface Looked<K, A, E> {
  readonly [look]: (key?: K) => Exit.Exit<A, E | SharedCancelled> | undefined
  readonly [join]: (waiter: Waiter<A, E>, key?: K) => void
}

/**
 * The exit that `get` would give at once, counted as a hit; `undefined` where it would have to wait.
 *
 * @stability internal
 * @since 0.1.0
 */
export const retainedUnsafe = <K, A, E>(
  shared: Shared<A, E> | SharedMap<K, A, E>,
  key?: K
): Exit.Exit<A, E | SharedCancelled> | undefined => (shared as unknown as Looked<K, A, E>)[look](key)

/**
 * Waits as `get` does where nothing is retained, without a fiber. For who stands in no run. The waiter may be told before
 * this returns, or leave: a name, a key or a lookup may do anything. Throws nothing: what they throw is told as a defect.
 *
 * @stability internal
 * @since 0.1.0
 */
export const joinUnsafe = <K, A, E>(
  shared: Shared<A, E> | SharedMap<K, A, E>,
  waiter: Waiter<A, E>,
  key?: K
): void => (shared as unknown as Looked<K, A, E>)[join](waiter, key)

export type { Waiter, Waits }
