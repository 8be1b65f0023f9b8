/**
 * A task of a task scope: its fiber, its cell, and what became of its failure.
 *
 * Invariants
 * 1. The fiber is set before anybody else can see the task.
 * 2. Waiting for a task leaves no observer behind, and gives the task's exit as it is: a joiner is never interrupted
 *    by what interrupted the task, unless it asks for that.
 */
import { CancelReason, fromCause } from "@curfew/reason"
import type { CancelCell } from "@curfew/reason/CancelCell"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { type Task, TaskCancelled, type TaskStatus } from "../Task.ts"
import * as child from "./child.ts"

const requested: CancelReason = /* @__PURE__ */ CancelReason.Requested({ message: "cancel was called" })

export class TaskState<A, E> implements Task<A, E> {
  readonly name: string | undefined
  readonly cell: CancelCell
  readonly daemon: boolean
  /** What it failed with, when that was left to somebody else to tell. */
  untold: Cause.Cause<unknown> | undefined
  /** Its failure has been told, or left to somebody else. */
  settled = false
  // Set by the scope right after the fork, before anyone else can see the task.
  fiber!: Fiber.Fiber<A, E>

  constructor(name: string | undefined, cell: CancelCell, daemon: boolean) {
    this.name = name
    this.cell = cell
    this.daemon = daemon
    cell.daemon = daemon
  }

  get join(): Effect.Effect<A, E> {
    return child.join(this.fiber)
  }

  get joinOrCancelled(): Effect.Effect<A, E | TaskCancelled> {
    return Effect.flatMap(child.awaitEnd(this.fiber), (): Effect.Effect<A, E | TaskCancelled> => {
      const exit = this.fiber.pollUnsafe() as Exit.Exit<A, E>
      if (exit._tag === "Success" || !Cause.hasInterruptsOnly(exit.cause)) return exit
      const reason = this.cell.reason ?? Option.getOrElse(fromCause(exit.cause), CancelReason.Unknown)
      return Effect.fail(new TaskCancelled({ task: this.name, reason }))
    })
  }

  get exit(): Effect.Effect<Exit.Exit<A, E>> {
    return Effect.map(child.awaitEnd(this.fiber), () => this.fiber.pollUnsafe() as Exit.Exit<A, E>)
  }

  readonly cancelUnsafe = (reason: CancelReason = requested): boolean =>
    this.fiber.pollUnsafe() === undefined && this.cell.cancel(reason)

  readonly cancel = (reason?: CancelReason): Effect.Effect<boolean> =>
    Effect.sync(() => this.cancelUnsafe(reason))

  readonly status: Effect.Effect<TaskStatus> = Effect.sync(() => {
    if (this.fiber.pollUnsafe() !== undefined) return "ended"
    if (this.cell.stuck) return "stuck"
    return this.cell.reason === undefined ? "running" : "cancelled"
  })
}

/** A task of any scope, where only what becomes of it matters. */
export type AnyTask = TaskState<never, never> | TaskState<unknown, unknown>
