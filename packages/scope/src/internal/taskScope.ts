/**
 * The set of tasks behind a task scope.
 *
 * Invariants
 * 1. A task is in the set from before its first operation until its fiber has ended or it was left behind as stuck.
 * 2. An accepted task runs its body, or its `onNeverStarted`: there is no third way.
 * 3. A failure is recorded exactly once: by the first-failure slot, as a sibling, or by the receiver.
 * 4. Waiting for tasks after a cancel is limited by the budget; what overruns it leaves the set and enters the
 *    stuck registry until it ends after all.
 * 5. All waiting is by observers of the set; a wait that is interrupted takes its observer with it.
 */
import { CancelReason } from "@curfew/reason"
import { CancelCell, type CellKind } from "@curfew/reason/CancelCell"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { bounded } from "../bounded.ts"
import { failureOf, OnUnhandled, reportUnhandled, type Unhandled } from "../OnUnhandled.ts"
import { enterUnsafe, logStuck, type StuckRecord } from "../Stuck.ts"
import { InterruptedElsewhere, type Task, type TaskStatus } from "../Task.ts"
import * as child from "./child.ts"
import { armUnsafe } from "./timer.ts"

export type Policy = "failFast" | "supervise"

export interface SpawnOptions {
  /** What the work is called in the live tree. Default: a task. */
  readonly kind?: CellKind | undefined
  readonly name?: string | undefined
  /** The cell of the caller, for work that may ask outwards although nothing comes down from there. */
  readonly outer?: CancelCell | undefined
  /** Asked when the task fails. True: somebody else is told the failure, and the policy does not apply. */
  readonly observed?: (() => boolean) | undefined
  readonly onNeverStarted?: Effect.Effect<unknown> | undefined
}

const requested: CancelReason = /* @__PURE__ */ CancelReason.Requested({ message: "cancel was called" })

/** What is taken over is told its failures by the giver. */
const always = (): boolean => true

class TaskState<A, E> implements Task<A, E> {
  readonly name: string | undefined
  readonly cell: CancelCell
  readonly daemon: boolean
  /** What it failed with under `failFast`, while its own children still clean up. */
  failed: Cause.Cause<unknown> | undefined
  // Set by the scope right after the fork, before anyone else can see the task.
  fiber!: Fiber.Fiber<A, E>

  constructor(name: string | undefined, cell: CancelCell, daemon: boolean) {
    this.name = name
    this.cell = cell
    this.daemon = daemon
  }

  get join(): Effect.Effect<A, E> {
    return child.join(this.fiber)
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

export class TaskSet {
  readonly name: string | undefined
  readonly policy: Policy
  /** What `cancel` of the task scope cancels: the tasks. */
  readonly cell: CancelCell
  readonly #onFirstFailure: ((cause: Cause.Cause<unknown>) => void) | undefined
  readonly #onUnhandled: ((unhandled: Unhandled) => Effect.Effect<unknown>) | undefined
  readonly #onTask: ((cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>) => void) | undefined
  readonly #tasks = new Set<TaskState<unknown, unknown>>()
  readonly #observers = new Set<() => void>()
  #open = true
  /** The first failure in time, under `failFast`. */
  first: Cause.Cause<unknown> | undefined
  firstName: string | undefined
  /** Those that came after it. */
  readonly siblings: Array<{ readonly name: string | undefined; readonly cause: Cause.Cause<unknown> }> = []

  /** How many of the siblings have been told to the receiver. */
  told = 0

  constructor(options: {
    readonly name: string | undefined
    readonly policy: Policy
    readonly cell: CancelCell
    readonly onFirstFailure?: ((cause: Cause.Cause<unknown>) => void) | undefined
    readonly onUnhandled?: ((unhandled: Unhandled) => Effect.Effect<unknown>) | undefined
    /** Told each task once it has started; it may have ended by then. */
    readonly onTask?: ((cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>) => void) | undefined
  }) {
    this.name = options.name
    this.policy = options.policy
    this.cell = options.cell
    this.#onFirstFailure = options.onFirstFailure
    this.#onUnhandled = options.onUnhandled
    this.#onTask = options.onTask
  }

  get open(): boolean {
    return this.#open && this.cell.reason === undefined
  }

  get size(): number {
    return this.#tasks.size
  }

  close(): void {
    this.#open = false
    this.cell.draining = true
  }

  /** Starts the work at once; `undefined` when the set takes none. */
  spawnUnsafe<A, E, R>(
    context: Context.Context<R>,
    work: Effect.Effect<A, E, R>,
    options: SpawnOptions | undefined,
    daemon: boolean
  ): TaskState<A, E> | undefined {
    if (!this.open) return undefined
    const name = options?.name
    const cell = new CancelCell(options?.kind ?? "task", { name, parent: this.cell, outer: options?.outer })
    cell.daemon = daemon
    const task = new TaskState<A, E>(name, cell, daemon)
    this.#tasks.add(task as TaskState<unknown, unknown>)
    let started = false
    const body = Effect.suspend(() => {
      started = true
      return work
    })
    task.fiber = child.forkUnsafe(context, cell, body, (inner) =>
      Effect.onExitPrimitive(inner, (exit) => {
        if (!started) return options?.onNeverStarted && this.#neverStarted(options.onNeverStarted, name)
        // Nobody waits for a stuck task any more, so its failure has no other receiver under `failFast` either.
        const told = this.policy === "supervise" || cell.stuck
        if (exit._tag === "Failure" && !told && options?.observed?.() !== true)
          task.failed = this.#failure(task, exit.cause)
        if (exit._tag === "Success" || !told || options?.observed?.() === true) return undefined
        const failure = this.#failure(task, exit.cause)
        return failure && this.receiving(reportUnhandled("task", name, failure, cell.reason))
      })
    )
    task.fiber.addObserver((exit) =>
      this.#ended(task as TaskState<unknown, unknown>, exit, options?.observed)
    )
    this.#onTask?.(cell, task.fiber)
    return task
  }

  /** Takes over work that already runs, with its cell; false when the set takes none. Failures are the giver's. */
  adoptUnsafe(cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>, name: string | undefined): boolean {
    if (!this.open) return false
    const task = new TaskState<unknown, unknown>(name, cell, false)
    task.fiber = fiber
    this.#tasks.add(task)
    cell.moveTo(this.cell)
    fiber.addObserver((exit) => this.#ended(task, exit, always))
    this.#onTask?.(cell, fiber)
    return true
  }

  /** Runs a report with the receiver that was given to this scope, if any. */
  receiving(report: Effect.Effect<void>): Effect.Effect<void> {
    return this.#onUnhandled === undefined
      ? report
      : Effect.provideService(report, OnUnhandled, this.#onUnhandled)
  }

  #neverStarted(onNeverStarted: Effect.Effect<unknown>, name: string | undefined): Effect.Effect<void> {
    return Effect.catchCause(
      Effect.asVoid(
        bounded(onNeverStarted, { name: `onNeverStarted${name === undefined ? "" : ` of ${name}`}` })
      ),
      (cause) => reportUnhandled("cleanup", name, cause)
    )
  }

  #failure(task: TaskState<never, never> | TaskState<unknown, unknown>, cause: Cause.Cause<unknown>) {
    const failure = failureOf(cause)
    if (failure !== undefined || task.cell.reason !== undefined) return failure
    return Cause.die(new InterruptedElsewhere({ task: task.name }))
  }

  #ended(
    task: TaskState<unknown, unknown>,
    exit: Exit.Exit<unknown, unknown>,
    observed?: (() => boolean) | undefined
  ): void {
    this.#tasks.delete(task)
    task.cell.unlink()
    const applies = this.policy === "failFast" && !task.cell.stuck && observed?.() !== true
    if (exit._tag === "Failure" && applies) {
      const cause = this.#failure(task, exit.cause)
      if (cause !== undefined) this.fail(cause, task.name)
    }
    this.#notify()
  }

  /** Records a failure under `failFast`: the first one cancels, the others are kept beside it. */
  fail(cause: Cause.Cause<unknown>, name: string | undefined): void {
    if (this.first === undefined) {
      this.first = cause
      this.firstName = name
      this.#onFirstFailure?.(cause)
    } else {
      this.siblings.push({ name, cause })
    }
  }

  #notify(): void {
    // Nobody waits for less than that: with ten thousand who drain, asking each at each end would be a square.
    if (this.cell.reason === undefined && this.#busy(false)) return
    for (const observer of [...this.#observers]) observer()
  }

  /** No task is left but daemons. */
  get idle(): boolean {
    return !this.#busy(false)
  }

  #busy(daemonsToo: boolean): boolean {
    if (daemonsToo) return this.#tasks.size > 0
    for (const task of this.#tasks) if (!task.daemon) return true
    return false
  }

  /** Waits until no task (or none but daemons) is left, or, with `orCancelled`, until the set is cancelled. */
  awaitIdle(options: { readonly daemonsToo: boolean; readonly orCancelled: boolean }): Effect.Effect<void> {
    return Effect.withFiber((waiter) =>
      Effect.callback<void>((resume) => {
        const idle = () =>
          !this.#busy(options.daemonsToo) || (options.orCancelled && this.cell.reason !== undefined)
        if (idle()) {
          resume(Effect.void)
          return
        }
        const forget = options.orCancelled ? this.cell.listen(() => observer()) : undefined
        const observer = () => {
          if (!idle()) return
          leave()
          child.resumeWith(waiter, resume, Effect.void)
        }
        const leave = () => {
          forget?.()
          this.#observers.delete(observer)
        }
        this.#observers.add(observer)
        return Effect.sync(leave)
      })
    )
  }

  /**
   * Waits, masked, until every task has ended, at most for the budget; what is left then becomes stuck. To be called
   * after a cancel.
   */
  awaitEnded(budget: Duration.Duration): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.withFiber((fiber) => {
        const clock = fiber.getRef(Clock.Clock)
        const startedAt = clock.currentTimeMillisUnsafe()
        return Effect.callback<void>((resume) => {
          // Asked here, in the operation that begins to wait: before it, the last task may still end unheard.
          if (this.#tasks.size === 0) return resume(Effect.void)
          const done = () => {
            if (this.#tasks.size > 0) return
            this.#observers.delete(done)
            disarm()
            child.resumeWith(fiber, resume, Effect.void)
          }
          this.#observers.add(done)
          const millis = Duration.toMillis(budget)
          const disarm =
            millis === Number.POSITIVE_INFINITY
              ? () => {}
              : armUnsafe(fiber.context, clock, millis, () => {
                  this.#observers.delete(done)
                  const left = this.#abandon(startedAt)
                  resume(Effect.forEach(left, logStuck, { discard: true }))
                })
        })
      })
    )
  }

  #abandon(startedAt: number): ReadonlyArray<Omit<StuckRecord, "id">> {
    const left = [...this.#tasks].map((task) => this.#leave(task, startedAt))
    this.#notify()
    return left
  }

  /** Gives a task up before the set itself ends: it is stuck from now on, and nobody waits for it. */
  leaveBehind(task: Task<unknown, unknown>, startedAt: number): void {
    const own = task as TaskState<unknown, unknown>
    if (!this.#tasks.has(own)) return
    this.#leave(own, startedAt)
    this.#notify()
  }

  #leave(task: TaskState<unknown, unknown>, startedAt: number): Omit<StuckRecord, "id"> {
    this.#tasks.delete(task)
    if (task.failed !== undefined) this.fail(task.failed, task.name)
    task.cell.abandon()
    const record = {
      kind: "task",
      name: task.name ?? this.name,
      reason: task.cell.reason,
      span: task.fiber.cache.span?._tag === "Span" ? task.fiber.cache.span.name : undefined,
      startedAt,
      source: undefined
    } as const
    task.fiber.addObserver(enterUnsafe(record, task.fiber.context))
    return record
  }
}
