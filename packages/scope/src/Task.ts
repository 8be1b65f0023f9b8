import { type CancelReason, describe } from "@curfew/reason"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"

/**
 * Where a task stands: `running`; `cancelled`, signalled and cleaning up; `ended`; or `stuck`, left behind by its
 * scope after the clean-up budget.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type TaskStatus = "running" | "cancelled" | "ended" | "stuck"

/**
 * A piece of work that a task scope answers for.
 *
 * **When cancelled**
 *
 * Interrupting a fiber that waits in `join` or `exit` leaves the task alone; `cancel` is how a task is stopped.
 *
 * **Gotchas**
 *
 * `join` on a task that was cancelled ends the joiner with that interrupt, a foreign one, as `Fiber.join` does. Where
 * that can happen use `joinOrCancelled`, or look at `exit`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Task<out A, out E = never> {
  readonly name: string | undefined
  /** Waits for the end and ends like the task. */
  readonly join: Effect.Effect<A, E>
  /** Like `join`, but the cancellation of the task is a typed error for the joiner and not an interrupt. */
  readonly joinOrCancelled: Effect.Effect<A, E | TaskCancelled>
  /** Waits for the end and gives it as a value. */
  readonly exit: Effect.Effect<Exit.Exit<A, E>>
  /** Signals the task; true iff this call was the first. Does not wait. */
  readonly cancel: (reason?: CancelReason) => Effect.Effect<boolean>
  /** The same from a callback. */
  readonly cancelUnsafe: (reason?: CancelReason) => boolean
  readonly status: Effect.Effect<TaskStatus>
}

/**
 * The error of `joinOrCancelled` on a task that was cancelled, or ended by an interrupt of its own.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class TaskCancelled extends /* @__PURE__ */ Data.TaggedError("TaskCancelled")<{
  readonly task: string | undefined
  readonly reason: CancelReason
}> {
  override get message(): string {
    return `The task${this.task === undefined ? "" : ` "${this.task}"`} was cancelled: ${describe(this.reason)}.`
  }
}

/**
 * The error of `spawn` on a task scope that takes no new work.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class TaskScopeClosed extends /* @__PURE__ */ Data.TaggedError("TaskScopeClosed")<{
  readonly scope: string | undefined
}> {
  override get message(): string {
    return `The task scope${this.scope === undefined ? "" : ` "${this.scope}"`} is closed and takes no new work.`
  }
}

/**
 * The error of `start` on work that ended, or was cancelled by somebody else, before it said that it was ready.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class NeverReady extends /* @__PURE__ */ Data.TaggedError("NeverReady")<{
  readonly task: string | undefined
}> {
  override get message(): string {
    return `The task${this.task === undefined ? "" : ` "${this.task}"`} ended before it was ready.`
  }
}

/**
 * The defect of a call with a task scope that Curfew has not made.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class ForeignTaskScope extends /* @__PURE__ */ Data.TaggedError("ForeignTaskScope")<{
  readonly scope: unknown
}> {
  override get message(): string {
    return "This task scope was not made by Curfew: give the one that TaskScope.use, TaskScope.make or an Owner gave, not a copy of it."
  }
}

/**
 * The defect of a task that ended by an interrupt although nobody cancelled it: it joined work that somebody else
 * had stopped, or interrupted itself.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class InterruptedElsewhere extends /* @__PURE__ */ Data.TaggedError("InterruptedElsewhere")<{
  readonly task: string | undefined
}> {
  override get message(): string {
    return `The task${this.task === undefined ? "" : ` "${this.task}"`} ended by an interrupt that was not its own cancellation.`
  }
}
