/**
 * Running the entries of a gather.
 *
 * Invariants
 * 1. Entries start in order, at most `concurrency` at a time, and none after the first failure.
 * 2. The first failure in time is kept as it is; each later one is kept beside it and reported once. A failure that
 *    the waiter can no longer be given, because it was interrupted, is reported as well.
 * 3. The waiter goes on only when no entry runs that is the gather's; those given to an owner are the owner's, and
 *    report their failures themselves.
 * 4. All entries hang below one cell: a cancel signals them in one turn.
 * 5. Entries that end at once need no stack: the loop that starts them goes on for them. What is an exit already needs
 *    no fiber either.
 */
import { CancelReason, currentReason, fromCause, toCause } from "@curfew/reason"
import {
  type Body,
  CancelCell,
  cancelledAboveUnsafe,
  forkCellUnsafe,
  inlineUnsafe,
  keepUnsafe
} from "@curfew/reason/CancelCell"
import { failureOf, ownerClosedTotal, reportUnhandled, SiblingFailures } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { ChildCancelled } from "../ChildCancelled.ts"

export interface Entry {
  /** Its place among all items, those without work included. */
  readonly at: number
  readonly index: number | string
  readonly work: Effect.Effect<unknown, unknown, unknown>
}

/** An entry that runs: one object, which its fiber tells how its work ended. */
class Running implements Body<unknown, unknown> {
  readonly #gathering: Gathering
  readonly cell: CancelCell
  readonly position: number
  readonly index: number | string
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** True once an owner answers for it. */
  given = false
  /** Set when the work has failed; its fiber may still wait for the clean-up of its own children. */
  failed: Cause.Cause<unknown> | undefined = undefined
  /** The neighbours among those that run. */
  next: Running | undefined = undefined
  previous: Running | undefined = undefined

  constructor(gathering: Gathering, cell: CancelCell, position: number, index: number | string) {
    this.#gathering = gathering
    this.cell = cell
    this.position = position
    this.index = index
  }

  settle(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    return exit._tag === "Success" ? undefined : this.#gathering.itemFailed(this, exit.cause)
  }
}

let keeps = false

class Gathering {
  readonly #fiber: Fiber.Fiber<unknown, unknown>
  readonly #entries: ReadonlyArray<Entry>
  readonly #concurrency: number
  readonly #owner: TaskScope.TaskScope | undefined
  readonly #whole: CancelCell
  #firstRunning: Running | undefined = undefined
  #running = 0
  readonly #results: Array<unknown>
  #next = 0
  #starting = false
  #succeeded = 0
  #first: Cause.Cause<unknown> | undefined = undefined
  readonly #siblings: Array<Cause.Cause<unknown>> = []
  /** What has to be reported and has not been yet. */
  readonly #untold: Array<Cause.Cause<unknown>> = []
  #idle: (() => void) | undefined = undefined

  constructor(
    fiber: Fiber.Fiber<unknown, unknown>,
    entries: ReadonlyArray<Entry>,
    concurrency: number,
    owner: TaskScope.TaskScope | undefined
  ) {
    this.#fiber = fiber
    this.#entries = entries
    this.#concurrency = concurrency
    this.#owner = owner
    this.#whole = forkCellUnsafe(fiber, "tasks", "gather")
    this.#results = new Array(entries.length)
  }

  /** Starts what may start; true when all of it has ended by then. */
  start(): boolean {
    this.#startMore()
    return this.#running === 0
  }

  /** Calls back once, when nothing of the gather's runs any more. */
  whenIdle(idle: () => void): void {
    this.#idle = idle
  }

  #startMore(): void {
    if (this.#starting) return
    this.#starting = true
    while (
      this.#next < this.#entries.length &&
      this.#running < this.#concurrency &&
      this.#first === undefined &&
      this.#whole.reason === undefined
    ) {
      this.#startOne(this.#next++)
    }
    this.#starting = false
    if (this.#running > 0) return
    this.#whole.unlink()
    const idle = this.#idle
    this.#idle = undefined
    idle?.()
  }

  #startOne(position: number): void {
    const { index, work } = this.#entries[position] as Entry
    if (Exit.isExit(work)) {
      // What has ended already needs no fiber, and nobody could have cancelled it.
      this.#take(position, index, work, undefined)
      return
    }
    const cell = new CancelCell("task", { name: `gather[${index}]`, parent: this.#whole })
    if (!keeps) {
      keeps = true
      keepUnsafe(new Running(undefined as never, Child.keptCell(), 0, 0))
    }
    const running = new Running(this, cell, position, index)
    this.#enter(running)
    const fiber = Child.startUnder(this.#fiber.context as Context.Context<unknown>, cell, work, running)
    running.fiber = fiber
    const exit = fiber.pollUnsafe()
    if (exit === undefined) this.#follow(running, fiber)
    else this.#ended(running, exit)
  }

  #follow(running: Running, fiber: Fiber.Fiber<unknown, unknown>): void {
    fiber.addObserver((exit) => {
      this.#ended(running, exit)
      this.#startMore()
    })
  }

  #enter(running: Running): void {
    const first = this.#firstRunning
    running.next = first
    if (first !== undefined) first.previous = running
    this.#firstRunning = running
    this.#running++
  }

  #leave(running: Running): void {
    const { next, previous } = running
    if (previous === undefined) this.#firstRunning = next
    else previous.next = next
    if (next !== undefined) next.previous = previous
    this.#running--
  }

  #ended(running: Running, exit: Exit.Exit<unknown, unknown>): void {
    const { cell, given, index, position } = running
    cell.unlink()
    if (given) return
    this.#leave(running)
    this.#take(position, index, exit, cell.reason)
  }

  /** The work of an entry has failed. Where an owner may answer for it, or does, it matters before its children have ended. */
  itemFailed(running: Running, cause: Cause.Cause<unknown>): Effect.Effect<void> | undefined {
    if (this.#owner === undefined) return undefined
    running.failed = this.#asFailure(running.cell.reason, running.index, cause)
    return running.given && running.failed
      ? reportUnhandled("sibling", running.cell.name, running.failed)
      : undefined
  }

  #take(
    position: number,
    index: number | string,
    exit: Exit.Exit<unknown, unknown>,
    cancelled: CancelReason | undefined
  ): void {
    if (exit._tag === "Success") {
      this.#succeeded++
      this.#results[position] = exit.value
    } else this.#failed(this.#asFailure(cancelled, index, exit.cause))
  }

  #asFailure(
    cancelled: CancelReason | undefined,
    index: number | string,
    cause: Cause.Cause<unknown>
  ): Cause.Cause<unknown> | undefined {
    const failure = failureOf(cause)
    if (failure !== undefined || cancelled !== undefined) return failure
    return Cause.fail(
      new ChildCancelled({ index, reason: Option.getOrElse(fromCause(cause), CancelReason.Unknown) })
    )
  }

  #failed(failure: Cause.Cause<unknown> | undefined): void {
    if (failure === undefined) return
    if (this.#first !== undefined) {
      this.#siblings.push(failure)
      this.#untold.push(failure)
      return
    }
    this.#first = failure
    if (this.#owner === undefined) this.#whole.cancel(CancelReason.SiblingFailed({ cause: failure }))
    // A gather that is being cancelled itself waits for its items and gives none away.
    else if (this.#whole.reason === undefined) this.#giveAway(this.#owner)
  }

  /** Those that run, in the order of their start. */
  get #all(): ReadonlyArray<Running> {
    const all: Array<Running> = []
    for (let running = this.#firstRunning; running !== undefined; running = running.next) all.push(running)
    return all.reverse()
  }

  /** Hands what still runs to the owner; what a closed owner does not take is awaited instead. */
  #giveAway(owner: TaskScope.TaskScope): void {
    let refused = false
    for (const running of this.#all) {
      // The start of one that is in its first steps has not returned yet, but its cell knows the fiber.
      const fiber = running.fiber ?? running.cell.fiber
      if (fiber === undefined || fiber.pollUnsafe() !== undefined) continue
      if (!TaskScope.adoptUnsafe(owner, running.cell, fiber)) {
        refused = true
        continue
      }
      running.given = true
      this.#leave(running)
      this.#failed(running.failed)
    }
    if (refused) ownerClosedTotal.updateUnsafe(1, this.#fiber.context)
  }

  /** What the waiter goes on with when nothing runs any more. */
  get outcome(): Effect.Effect<ReadonlyArray<unknown>, unknown> {
    const first = this.#first
    if (first === undefined) {
      if (this.#succeeded === this.#entries.length) return Effect.succeed(this.#results)
      // A cancel from above has ended the items and not yet reached the waiter, a native child of who was cancelled.
      return Effect.failCause(toCause(this.#whole.reason ?? CancelReason.Unknown()))
    }
    if (this.#siblings.length === 0) return Effect.failCause(first)
    const siblings = SiblingFailures.context([...this.#siblings])
    return Effect.andThen(this.#tell, Effect.failCause(Cause.annotate(first, siblings as never)))
  }

  get #tell(): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.suspend(() =>
        Effect.forEach(this.#untold.splice(0), (cause) => reportUnhandled("sibling", "gather", cause), {
          discard: true
        })
      )
    )
  }

  /** The waiter was interrupted: signal all, wait for all, and report what nobody will be given. */
  get stop(): Effect.Effect<void> {
    return Effect.flatMap(currentReason, (reason) => {
      this.#whole.inherit(Option.getOrElse(reason, CancelReason.Unknown))
      const fibers = this.#all.flatMap(({ fiber }) => (fiber === undefined ? [] : [fiber]))
      const ended = Effect.forEach(fibers, Child.awaitEnd, { discard: true })
      return Effect.andThen(
        ended,
        Effect.suspend(() => {
          if (this.#first !== undefined) this.#untold.unshift(this.#first)
          return this.#tell
        })
      )
    })
  }
}

export const runAll = (
  fiber: Fiber.Fiber<unknown, unknown>,
  entries: ReadonlyArray<Entry>,
  concurrency: number,
  owner: TaskScope.TaskScope | undefined
): Effect.Effect<ReadonlyArray<unknown>, unknown> => {
  const ancestor = cancelledAboveUnsafe(fiber)
  if (ancestor !== undefined) return Effect.failCause(toCause(ancestor))
  let gathering: Gathering | undefined
  const waited = Effect.withFiber<ReadonlyArray<unknown>, unknown>(() => {
    const started = new Gathering(fiber, entries, concurrency, owner)
    gathering = started
    return started.start() ? started.outcome : inlineUnsafe(fiber, waiting(fiber, started))
  })
  // A finalizer around the whole, not only around the wait: entries that all end at once never come to a wait. What
  // is not an interrupt alone is the failure that the waiter was given.
  return Effect.onExitPrimitive(waited, (exit) =>
    exit._tag === "Success" || failureOf(exit.cause) !== undefined ? undefined : gathering?.stop
  )
}

const waiting = (
  fiber: Fiber.Fiber<unknown, unknown>,
  gathering: Gathering
): Effect.Effect<ReadonlyArray<unknown>, unknown> =>
  Effect.callback((resume) => {
    gathering.whenIdle(() =>
      Child.resumeWith(
        fiber,
        resume,
        Effect.suspend(() => gathering.outcome)
      )
    )
  })
