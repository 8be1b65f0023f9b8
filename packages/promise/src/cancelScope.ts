import type { CancelReason } from "@curfew/reason"
import type * as Duration from "effect/Duration"
import { openScope } from "./internal/scopeState.ts"
import type { OnUnhandled, Work, WorkOptions } from "./Options.ts"
import type { Task } from "./Task.ts"

/**
 * A clean-up that waits for a cancellation, and can be disarmed.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CancelGuard {
  /** Calls it off. True: it will never run. False: it has begun already, or was called off before. */
  readonly disarm: () => boolean
}

/**
 * A region of promise work that ends as one: it can be cancelled from outside, and is left only when everything in it has
 * ended.
 *
 * @see cancelScope, which makes one and says what is guaranteed.
 * @stability unstable
 * @since 0.1.0
 */
export interface CancelScope extends AsyncDisposable {
  readonly name: string | undefined
  /** Made on first use; its reason is a {@link Cancelled}. Work started with it belongs to the scope. */
  readonly signal: AbortSignal
  /** True iff this call was the first. Without a reason: `Requested`. Does not wait. */
  readonly cancel: (reason?: CancelReason | Error | string) => boolean
  readonly cancelled: boolean
  readonly reason: CancelReason | undefined
  /** Runs work in the scope. Its value or error is the caller's; an error touches no sibling. */
  readonly run: <A>(work: Work<A>, options?: { readonly name?: string | undefined }) => Promise<A>
  /** Starts a task. Its failure cancels the scope, and disposing rethrows it. */
  readonly spawn: {
    <A>(work: Work<A>): Task<A>
    <A>(name: string, work: Work<A>): Task<A>
  }
  /** Like `spawn`, for work that does not keep the scope open: it is cancelled when the rest has ended. */
  readonly daemon: {
    <A>(work: Work<A>): Task<A>
    <A>(name: string, work: Work<A>): Task<A>
  }
  /** Clean-up for the end of the scope, last in first out, each within the budget. */
  readonly defer: (cleanup: () => unknown, options?: { readonly name?: string | undefined }) => void
  /** Clean-up that runs in the same order iff the scope's cancellation prevented its completion (L14). */
  readonly onCancel: (cleanup: (reason: CancelReason) => unknown) => CancelGuard
  /** Rejects when the scope is cancelled; lets the event loop breathe when the time slice is used up. */
  readonly checkpoint: () => Promise<void>
  /** Waits until everything in the scope has ended; rejects with the first failure. Asked again, it gives the same. */
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

/**
 * What a scope can be told.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CancelScopeOptions extends WorkOptions {
  /** The scope that this one is part of; the same as its signal. */
  readonly parent?: CancelScope | undefined
  /** How long the scope may take before it cancels itself. Default: no limit. */
  readonly deadline?: Duration.Input | undefined
  /** How long each clean-up in it may take. Default: that of the scope above, at the top ten seconds. */
  readonly budget?: Duration.Input | undefined
  /** Receives failures that nobody is given. Default: that of the scope above, at the top they are logged. */
  readonly onUnhandled?: OnUnhandled | undefined
}

/**
 * Makes a cancel scope as a value, for `await using`.
 *
 * **Guarantees**
 *
 * - **First wins (L1)**: cancelling is idempotent; only the first call returns true and its reason stays.
 * - **One turn (L2)**: a cancel reaches every scope and task below in the same turn; nothing above.
 * - **Nothing stays out (L24)**: disposing waits for the tasks, and rejects with the first failure, unwrapped (L25). What
 *   does not end within the budget after a cancel is left behind as stuck.
 * - **No start (L5)**: with an aborted signal, a deadline of zero or less, or below a cancelled scope nothing starts.
 * - **Clean-up is bounded (L16)** and the rest of it runs regardless (L19). What it throws is rethrown if nothing else
 *   failed, and reaches `onUnhandled` otherwise.
 * - **A typed refusal (L27)**: `spawn` throws {@link Cancelled} in a cancelled scope, `TaskScopeClosed` in one that ended.
 *
 * **When cancelled**
 *
 * The signals of everything in it are aborted; `run` and `checkpoint` reject with {@link Cancelled}; disposing waits for
 * the tasks within the budget, runs the guards and the rest of the clean-up, and does not throw for the cancel's sake.
 *
 * **Gotchas**
 *
 * Disposing waits for tasks, it does not cancel them: nothing tells a scope whether its block was left by a throw. A task
 * without an end is a `daemon`. And where the block itself throws while disposing rejects, JavaScript wraps both in a
 * `SuppressedError`; {@link withCancelScope} knows what its body did, and gives the first failure as it is.
 *
 * A scope that is never disposed keeps the failure of its tasks to itself.
 *
 * **Example**
 *
 * ```ts
 * import { cancelScope } from "@curfew/promise"
 *
 * const log: Array<string> = []
 * {
 *   await using scope = cancelScope({ name: "import", deadline: "1 minute" })
 *   scope.defer(() => log.push("closed"))
 *   scope.spawn("rows", async () => log.push("rows"))
 *   log.push(await scope.run(async () => "header"))
 * }
 * log // => ["rows", "header", "closed"]
 * ```
 *
 * @see withCancelScope where tasks may fail while the block still works.
 * @stability unstable
 * @since 0.1.0
 */
export const cancelScope = (options?: CancelScopeOptions): CancelScope => openScope(options)
