/**
 * A task of a task scope: its fiber, its cell, and what became of its failure.
 *
 * Invariants
 * 1. The fiber is set before anybody else can see the task.
 * 2. Waiting for a task leaves nothing behind, and gives the task's exit as it is: a joiner is never interrupted by
 *    what interrupted the task, unless it asks for that.
 * 3. Who waits is told after the set is: a set that has no task left is idle when a joiner of the last one goes on.
 * 4. The cell is made when somebody asks for it, and no later than the end of a first run that leaves the task waiting. Until
 *    then nothing has cancelled the task, and it stands among those that whoever looks for cells has shown.
 * 5. It is its own entry in the set, and told itself how its body ended: a task costs no function beside its work's.
 */
import { CancelReason, fromCause } from "@curfew/reason"
import {
  CancelCell,
  type Cell,
  type CellKind,
  CurrentCell,
  type Entering,
  show,
  tellingBegin,
  type Unshown
} from "@curfew/reason/CancelCell"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { type Task, TaskCancelled, type TaskStatus } from "../Task.ts"
import * as child from "./child.ts"

const requested: CancelReason = /* @__PURE__ */ CancelReason.Requested({ message: "cancel was called" })

type Waiter = () => void

/** The set, to which a task tells how it ended. */
export interface Keeper {
  /** What a cancel of the set cancels. */
  readonly cell: CancelCell
  /** The body has failed, or did not begin. What it gives runs masked. */
  readonly bodyFailed: (
    task: AnyTask,
    exit: Exit.Failure<unknown, unknown>
  ) => Effect.Effect<void> | undefined
}

/** What is known of a task before it starts. */
export interface Known {
  readonly kind?: CellKind | undefined
  readonly name?: string | undefined
  /** The cell of the caller, for work that may ask outwards although nothing comes down from there. */
  readonly outer?: Cell | undefined
  /** Asked when the body fails. True: somebody else is told the failure, and the policy does not apply. */
  readonly observed?: (() => boolean) | undefined
  /** Told the cell when it is made, which may be never. */
  readonly shown?: ((cell: CancelCell) => void) | undefined
  /** Adds to the context of the work, when that is first read: not at all, where nobody does. */
  readonly furnish?: ((given: Context.Context<never>) => Context.Context<never>) | undefined
  /** Told how the body ended, before its children are cleaned up. What it gives runs masked. For work that is observed. */
  readonly ended?: ((exit: Exit.Exit<never, never>) => Effect.Effect<void> | undefined) | undefined
}

export class TaskState<A, E> implements Task<A, E>, Entering<A, E>, Unshown {
  #cell: CancelCell | undefined
  readonly #known: Known | undefined
  readonly daemon: boolean
  /** The next one out of those that have not been shown. */
  before: Unshown | undefined = undefined
  readonly #keeper: Keeper
  /** What it failed with, when that was left to somebody else to tell. */
  untold: Cause.Cause<unknown> | undefined = undefined
  /** Its failure has been told, or left to somebody else. */
  settled = false
  /** Runs in place of a body that does not begin; let go of when it has begun. */
  onNeverStarted: Effect.Effect<unknown> | undefined = undefined
  // Set before the first operation, or by the scope before anyone else can see the task.
  fiber!: Fiber.Fiber<A, E>
  /** The neighbours in the set. */
  next: AnyTask | undefined = undefined
  previous: AnyTask | undefined = undefined
  /** It stands in the set. */
  listed = false
  // Few tasks are waited for by more than one.
  #waiters: Waiter | Set<Waiter> | undefined = undefined

  constructor(keeper: Keeper, known: Known | undefined, daemon: boolean, cell: CancelCell | undefined) {
    this.#keeper = keeper
    this.#known = known
    this.daemon = daemon
    this.#cell = cell
  }

  get observed(): (() => boolean) | undefined {
    return this.#known?.observed
  }

  get cell(): CancelCell {
    return this.#cell ?? this.#makeCell()
  }

  #makeCell(): CancelCell {
    show(this.before)
    const known = this.#known
    const { cell: parent } = this.#keeper
    const cell = new CancelCell(known?.kind ?? "task", { name: known?.name, outer: known?.outer, parent })
    this.#cell = cell
    cell.daemon = this.daemon
    if (this.fiber?.pollUnsafe() === undefined) cell.fiber = this.fiber
    else {
      // Nobody has cancelled it while it ran: its cell would have been there.
      cell.reason = undefined
      cell.unlink()
    }
    known?.shown?.(cell)
    return cell
  }

  show(): void {
    if (this.#cell === undefined) this.#makeCell()
  }

  /** Takes the cell out of the tree, where there is one. */
  unlink(): void {
    this.#cell?.unlink()
  }

  enter(given: Context.Context<never>): Context.Context<never> {
    return Context.add(this.furnished(given), CurrentCell, this.cell)
  }

  /** The context with what is added for the work. */
  furnished<R>(given: Context.Context<R>): Context.Context<R> {
    const known = this.#known
    return known?.furnish === undefined ? given : (known.furnish(given as Context.Context<never>) as never)
  }

  /** The body has ended; its children may still have to be cleaned up. */
  settle(exit: Exit.Exit<A, E>): Effect.Effect<void> | undefined {
    const told = this.#known?.ended?.(exit as Exit.Exit<never, never>)
    return exit._tag === "Success"
      ? told
      : (this.#keeper.bodyFailed(this as unknown as AnyTask, exit) ?? told)
  }

  /** The work, with something in its place should it not begin. */
  orElse<R>(work: Effect.Effect<A, E, R>, onNeverStarted: Effect.Effect<unknown>): Effect.Effect<A, E, R> {
    this.onNeverStarted = onNeverStarted
    return tellingBegin(work, () => {
      this.onNeverStarted = undefined
    })
  }

  get name(): string | undefined {
    return (this.#cell ?? this.#known)?.name
  }

  #await<B, E2>(as: (exit: Exit.Exit<A, E>) => Effect.Effect<B, E2>): Effect.Effect<B, E2> {
    const over = this.fiber.pollUnsafe()
    if (over !== undefined) return as(over)
    return Effect.withFiber((waiter) => {
      const ended = this.fiber.pollUnsafe()
      if (ended !== undefined) return as(ended)
      return Effect.callback((resume) => {
        const exit = this.fiber.pollUnsafe()
        if (exit !== undefined) {
          resume(as(exit))
          return
        }
        const told = () => child.resumeWith(waiter, resume, as(this.fiber.pollUnsafe() as Exit.Exit<A, E>))
        const waiters = this.#waiters
        if (waiters === undefined) this.#waiters = told
        else if (waiters instanceof Set) waiters.add(told)
        else this.#waiters = new Set([waiters, told])
        return Effect.sync(() => {
          if (this.#waiters instanceof Set) this.#waiters.delete(told)
          else if (this.#waiters === told) this.#waiters = undefined
        })
      })
    })
  }

  /** How many wait. */
  get waits(): number {
    const waiters = this.#waiters
    return waiters instanceof Set ? waiters.size : waiters === undefined ? 0 : 1
  }

  /** To be called once, when the fiber has ended. */
  tellWaiters(): void {
    const waiters = this.#waiters
    if (waiters === undefined) return
    if (waiters instanceof Set) for (const told of waiters) told()
    else waiters()
    this.#waiters = undefined
  }

  get join(): Effect.Effect<A, E> {
    return this.#await(itself)
  }

  get joinOrCancelled(): Effect.Effect<A, E | TaskCancelled> {
    return this.#await((exit): Effect.Effect<A, E | TaskCancelled> => {
      if (exit._tag === "Success" || !Cause.hasInterruptsOnly(exit.cause)) return exit
      const reason = this.cell.reason ?? Option.getOrElse(fromCause(exit.cause), CancelReason.Unknown)
      return Effect.fail(new TaskCancelled({ task: this.name, reason }))
    })
  }

  get exit(): Effect.Effect<Exit.Exit<A, E>> {
    return this.#await(Effect.succeed)
  }

  // Functions of their own, so that they can be handed on as callbacks; made when somebody asks.
  get cancelUnsafe(): (reason?: CancelReason) => boolean {
    return (reason = requested) => this.cancelNow(reason)
  }

  get cancel(): (reason?: CancelReason) => Effect.Effect<boolean> {
    return (reason = requested) => Effect.sync(() => this.cancelNow(reason))
  }

  cancelNow(reason: CancelReason): boolean {
    return this.fiber.pollUnsafe() === undefined && this.cell.cancel(reason)
  }

  get status(): Effect.Effect<TaskStatus> {
    return Effect.sync(() => {
      if (this.fiber.pollUnsafe() !== undefined) return "ended"
      if (this.cell.stuck) return "stuck"
      return this.cell.reason === undefined ? "running" : "cancelled"
    })
  }
}

const itself = <A>(value: A): A => value

/** A task of any scope, where only what becomes of it matters. */
export type AnyTask = TaskState<unknown, unknown>
