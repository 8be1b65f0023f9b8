import type { CancelReason } from "@curfew/reason"
import type { TaskStatus } from "@curfew/scope"

/**
 * A piece of work that a scope or an owner answers for.
 *
 * **When cancelled**
 *
 * `join` rejects with {@link Cancelled}. Nobody need await it: a failure reaches the scope, or the owner's `onUnhandled`, in
 * any case, and never the process as an unhandled rejection.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Task<out A> {
  readonly name: string | undefined
  /** Settles like the work. */
  readonly join: Promise<A>
  /** Aborts the work's signal; true iff this call was the first. Does not wait. */
  readonly cancel: (reason?: CancelReason | Error | string) => boolean
  readonly status: TaskStatus
}
