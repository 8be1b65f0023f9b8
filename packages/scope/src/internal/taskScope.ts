/**
 * The set of tasks behind a task scope.
 *
 * Invariants
 * 1. A task is in the set from before its first operation until its fiber has ended or it was left behind as stuck.
 * 2. An accepted task runs its body, or its `onNeverStarted`: there is no third way.
 * 3. A failure is told exactly once, at the moment the body of the task has failed and not when its children have
 *    cleaned up: to the group's failures, to the receiver, or to whoever starts it and waits for its word.
 * 4. Waiting for tasks after a cancel is limited by the budget; what overruns it leaves the set and enters the
 *    stuck registry until it ends after all.
 * 5. All waiting is by observers of the set; a wait that is interrupted takes its observer with it.
 */
import type { CancelReason } from "@curfew/reason"
import { type CancelCell, keepUnsafe, showAll, unshown } from "@curfew/reason/CancelCell"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { boundedAt } from "../bounded.ts"
import { failureOf } from "../failureOf.ts"
import { OnUnhandled, reportUnhandled, type Unhandled } from "../OnUnhandled.ts"
import { enterUnsafe, logStuck, type StuckRecord } from "../Stuck.ts"
import { InterruptedElsewhere, type Task } from "../Task.ts"
import * as child from "./child.ts"
import { Failures } from "./failures.ts"
import { Place, Places } from "./place.ts"
import { type AnyTask, type Keeper, type Known, TaskState } from "./taskState.ts"
import { armUnsafe, endedWithin } from "./timer.ts"

export type Policy = "failFast" | "supervise"

export interface SpawnOptions extends Known {
  readonly onNeverStarted?: Effect.Effect<unknown> | undefined
}

/** What is taken over is told its failures by the giver. */
const always = (): boolean => true

let keeps = false
let keepsPlaces = false

const keepOne = (): void => {
  keeps = true
  const cell = child.keptCell()
  keepUnsafe(new TaskState<never, never>({ cell, bodyFailed: () => undefined }, undefined, false, cell))
}

export class TaskSet implements Keeper {
  readonly name: string | undefined
  readonly policy: Policy
  /** What `cancel` of the task scope cancels: the tasks. */
  readonly cell: CancelCell
  readonly #onFirstFailure: ((cause: Cause.Cause<unknown>) => void) | undefined
  readonly #onUnhandled: ((unhandled: Unhandled) => Effect.Effect<unknown>) | undefined
  readonly #onTask: ((cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>) => void) | undefined
  #first: AnyTask | undefined = undefined
  #last: AnyTask | undefined = undefined
  #size = 0
  /** How many of the tasks are no daemons. */
  #working = 0
  // Made with the first of each, since most sets have none.
  #observers: Set<() => void> | undefined = undefined
  /** Places that nothing has filled. */
  #places: Places | undefined = undefined
  #forgetPlaces: (() => void) | undefined = undefined
  #open = true
  /** What failed under `failFast`. */
  failures: Failures | undefined = undefined

  constructor(options: {
    readonly name: string | undefined
    readonly policy: Policy
    readonly cell: CancelCell
    readonly onFirstFailure?: ((cause: Cause.Cause<unknown>) => void) | undefined
    readonly onUnhandled?: ((unhandled: Unhandled) => Effect.Effect<unknown>) | undefined
    /** Told each task once it has started; it may have ended by then. */
    readonly onTask?: ((cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>) => void) | undefined
  }) {
    if (!keeps) keepOne()
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
    return this.#size + (this.#places?.size ?? 0)
  }

  /** How many waits have not been answered, or were for its end. */
  get waits(): number {
    return this.#observers?.size ?? 0
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
    const task = new TaskState<A, E>(this, options, daemon, undefined)
    const own = task as unknown as AnyTask
    this.#enter(own)
    const instead = options?.onNeverStarted
    const body = instead === undefined ? work : task.orElse(work, instead)
    task.before = unshown.last
    unshown.last = task
    let fiber: Fiber.Fiber<A, E> | undefined
    try {
      fiber = child.startEntering(context, body, task)
    } finally {
      unshown.last = task.before
      task.before = undefined
    }
    this.#started(task, fiber ?? child.startUnder(task.furnished(context), task.cell, body, task))
    return task
  }

  /** Starts a task in a cell that stands in the tree already, whether the set takes new ones or not. */
  startIn<A, E, R>(
    cell: CancelCell,
    context: Context.Context<R>,
    work: Effect.Effect<A, E, R>
  ): TaskState<A, E> {
    const task = new TaskState<A, E>(this, undefined, false, cell)
    this.#enter(task as unknown as AnyTask)
    this.#started(task, child.startUnder(context, cell, work, task))
    return task
  }

  #started<A, E>(task: TaskState<A, E>, fiber: Fiber.Fiber<A, E>): void {
    const own = task as unknown as AnyTask
    task.fiber = fiber
    const exit = fiber.pollUnsafe()
    if (exit === undefined) {
      showAll()
      task.show()
      this.#follow(own)
    } else this.#over(own, exit)
    this.#onTask?.(task.cell, fiber)
  }

  #follow(task: AnyTask): void {
    task.fiber.addObserver((exit) => this.#over(task, exit))
  }

  /** The fiber has ended. */
  #over(task: AnyTask, exit: Exit.Exit<unknown, unknown>): void {
    task.unlink()
    this.#ended(task, exit)
    task.tellWaiters()
  }

  #enter(task: AnyTask): void {
    task.listed = true
    task.previous = this.#last
    if (this.#last === undefined) this.#first = task
    else this.#last.next = task
    this.#last = task
    this.#size++
    if (!task.daemon) this.#working++
  }

  /** Takes a task out; false when it has been taken out before. */
  #remove(task: AnyTask): boolean {
    if (!task.listed) return false
    task.listed = false
    const { next, previous } = task
    if (previous === undefined) this.#first = next
    else previous.next = next
    if (next === undefined) this.#last = previous
    else next.previous = previous
    task.next = undefined
    task.previous = undefined
    this.#size--
    if (!task.daemon) this.#working--
    return true
  }

  bodyFailed(task: AnyTask, { cause }: Exit.Failure<unknown, unknown>): Effect.Effect<void> | undefined {
    if (task.onNeverStarted !== undefined) return this.#neverStarted(task.onNeverStarted, task.name)
    const failure = this.#failure(task, cause)
    if (failure === undefined) return undefined
    if (task.observed?.() !== true) return this.#tell(task, failure)
    task.settled = true
    task.untold = failure
    return undefined
  }

  /** Tells a failure to whom the policy says; under `failFast` that cancels the siblings at once. */
  #tell(task: AnyTask, failure: Cause.Cause<unknown>) {
    task.settled = true
    // Nobody waits for a stuck task any more, so its failure has no other receiver under `failFast` either.
    if (this.policy === "supervise" || task.cell.stuck)
      return this.receiving(reportUnhandled("task", task.name, failure, task.cell.reason))
    // Its body has ended: the cancel that its own failure sends must not replace the exit while its children clean up.
    task.cell.fiber = undefined
    this.fail(failure, task.name)
    return undefined
  }

  /** Tells a failure that was left to somebody who can no longer take it. To be called once. */
  tellUntold(task: AnyTask): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { untold } = task
      return (untold && this.#tell(task, untold)) ?? Effect.void
    })
  }

  /**
   * Waits, masked, until one task has ended, at most for the budget; it is stuck then, and nobody waits for it any more.
   * To be called after a cancel.
   */
  awaitTask(task: AnyTask, budget: Duration.Duration): Effect.Effect<void> {
    return endedWithin(
      budget,
      (ended) => task.fiber.addObserver(() => ended(Effect.void)),
      (startedAt) => {
        const left = this.leaveBehind(task, startedAt)
        return left === undefined ? Effect.void : logStuck(left)
      }
    )
  }

  /** Takes over work that already runs, with its cell; false when the set takes none. Failures are the giver's. */
  adoptUnsafe(cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>): boolean {
    if (!this.open) return false
    cell.moveTo(this.cell)
    this.takeUnsafe(cell, fiber)
    return true
  }

  /** Counts work that runs already as a task, whether the set takes new ones or not. */
  takeUnsafe(cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>): void {
    cell.daemon = false
    const task = new TaskState<unknown, unknown>(this, { observed: always }, false, cell)
    task.fiber = fiber
    this.#enter(task)
    fiber.addObserver((exit) => this.#over(task, exit))
    this.#onTask?.(cell, fiber)
  }

  /** Takes a place for work that may need no fiber; `undefined` when the set takes none. */
  reserveUnsafe(name: string | undefined): Place | undefined {
    if (!this.open) return undefined
    if (this.#places === undefined) {
      const places = new Places()
      this.#places = places
      this.#forgetPlaces = this.cell.listen((reason) => places.each(({ holder }) => holder?.stop(reason)))
    }
    if (!keepsPlaces) {
      keepsPlaces = true
      keepUnsafe(new Place(undefined as never, undefined))
      keepUnsafe(new Places())
      // What shows in the tree.
      child.keptCell()
    }
    const place = new Place(this, name)
    this.#places.add(place)
    return place
  }

  /** Cancels a set that has nothing left: there is nobody to tell. */
  end(reason: CancelReason): void {
    this.#forgetPlaces?.()
    this.cell.cancel(reason)
  }

  /** From here on each task has a fiber. */
  fillPlaces(): void {
    this.#places?.each(({ holder }) => holder?.fill())
  }

  givenBack(place: Place): void {
    if (this.#places?.delete(place) === true) this.#notify()
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
        boundedAt(onNeverStarted, { name: `onNeverStarted${name === undefined ? "" : ` of ${name}`}` })
      ),
      (cause) => reportUnhandled("cleanup", name, cause)
    )
  }

  #failure(task: AnyTask, cause: Cause.Cause<unknown>) {
    const failure = failureOf(cause)
    if (failure !== undefined || task.cell.reason !== undefined) return failure
    return Cause.die(new InterruptedElsewhere({ task: task.name }))
  }

  #ended(task: AnyTask, exit: Exit.Exit<unknown, unknown>): void {
    this.#remove(task)
    if (exit._tag === "Failure" && this.policy === "failFast" && !task.settled && !task.cell.stuck) {
      // An interrupt that met it only after its body, while its children cleaned up, or before its first operation.
      const cause = task.observed?.() === true ? undefined : this.#failure(task, exit.cause)
      if (cause !== undefined) this.fail(cause, task.name)
    }
    this.#notify()
  }

  /** Records a failure under `failFast`: the first one cancels, the others are kept beside it. */
  fail(cause: Cause.Cause<unknown>, name: string | undefined): void {
    this.failures ??= new Failures()
    if (this.failures.add(cause, name)) this.#onFirstFailure?.(cause)
  }

  #observe(observer: () => void): void {
    this.#observers ??= new Set()
    this.#observers.add(observer)
  }

  #notify(): void {
    // Nobody waits for less than that: with ten thousand who drain, asking each at each end would be a square.
    if (this.#working > 0 || this.#observers === undefined) return
    for (const observer of [...this.#observers]) observer()
  }

  /** No task is left but daemons. */
  get idle(): boolean {
    return this.#working === 0 && (this.#places === undefined || this.#places.size === 0)
  }

  /** Calls back once no task is left but daemons: now, or in the turn in which the last one ends. Gives the removal. */
  whenIdle(call: () => void): () => void {
    const observer = () => {
      if (!this.idle) return
      this.#observers?.delete(observer)
      call()
    }
    this.#observe(observer)
    observer()
    return () => this.#observers?.delete(observer)
  }

  /**
   * Waits until no task is left but daemons: true. Or, with `orCancelled`, until the set is cancelled; or until so many
   * milliseconds have passed: false.
   */
  awaitIdle({
    orCancelled = false,
    within = Number.POSITIVE_INFINITY
  }: {
    readonly orCancelled?: boolean
    readonly within?: number
  }): Effect.Effect<boolean> {
    if (within <= 0) return Effect.sync(() => this.idle)
    return Effect.withFiber((waiter) =>
      Effect.callback<boolean>((resume) => {
        const idle = () => this.idle || (orCancelled && this.cell.reason !== undefined)
        if (idle()) {
          resume(Effect.succeed(true))
          return
        }
        let left = false
        let disarm: (() => void) | undefined
        const leave = () => {
          left = true
          forget?.()
          disarm?.()
          this.#observers?.delete(observer)
        }
        const observer = () => {
          if (left || !idle()) return
          leave()
          child.resumeWith(waiter, resume, Effect.succeed(true))
        }
        const forget = orCancelled ? this.cell.listen(observer) : undefined
        this.#observe(observer)
        if (within !== Number.POSITIVE_INFINITY) {
          disarm = armUnsafe(waiter.context, waiter.getRef(Clock.Clock), within, () => {
            if (left) return
            leave()
            resume(Effect.succeed(false))
          })
          // A clock may fire, or bring the end, in the turn in which the timer starts.
          if (left) disarm()
        }
        return Effect.sync(leave)
      })
    )
  }

  /**
   * Waits, masked, until every task has ended, at most for the budget; what is left then becomes stuck. To be called
   * after a cancel.
   */
  awaitEnded(budget: Duration.Duration): Effect.Effect<void> {
    return endedWithin(
      budget,
      (ended) => {
        const observer = () => {
          if (this.size === 0) ended(Effect.void)
        }
        // It stays until the set itself goes: nothing is waited for in it after this.
        this.#observe(observer)
        observer()
      },
      (startedAt) => Effect.forEach(this.#abandon(startedAt), logStuck, { discard: true })
    )
  }

  #abandon(startedAt: number): ReadonlyArray<Omit<StuckRecord, "id">> {
    const left: Array<Omit<StuckRecord, "id">> = []
    for (let task = this.#first; task !== undefined; task = this.#first)
      left.push(this.#leave(task, startedAt))
    // Their holders were told, and have filled them or given them back. One that did neither has no work to wait for.
    this.#places?.each((place) => place.leave())
    this.#notify()
    return left
  }

  /** Gives a task up before the set itself ends: it is stuck from now on, and nobody waits for it. */
  leaveBehind(task: Task<unknown, unknown>, startedAt: number): Omit<StuckRecord, "id"> | undefined {
    const own = task as AnyTask
    if (!own.listed) return undefined
    const left = this.#leave(own, startedAt)
    this.#notify()
    return left
  }

  #leave(task: AnyTask, startedAt: number): Omit<StuckRecord, "id"> {
    this.#remove(task)
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
