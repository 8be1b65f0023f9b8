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
import { CancelCell, cancelledAboveUnsafe, forkCellUnsafe } from "@curfew/reason/CancelCell"
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

interface Running {
  readonly cell: CancelCell
  readonly name: string
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  /** True once an owner answers for it. */
  given: boolean
  /** Set when the work has failed; its fiber may still wait for the clean-up of its own children. */
  failed: Cause.Cause<unknown> | undefined
}

class Gathering {
  readonly #fiber: Fiber.Fiber<unknown, unknown>
  readonly #entries: ReadonlyArray<Entry>
  readonly #concurrency: number
  readonly #owner: TaskScope.TaskScope | undefined
  readonly #whole: CancelCell
  readonly #running = new Set<Running>()
  readonly #results: Array<unknown>
  #next = 0
  #starting = false
  #succeeded = 0
  #first: Cause.Cause<unknown> | undefined
  readonly #siblings: Array<Cause.Cause<unknown>> = []
  /** What has to be reported and has not been yet. */
  readonly #untold: Array<Cause.Cause<unknown>> = []
  #idle: (() => void) | undefined

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

  /** Starts what may start; `idle` is called once, when nothing of the gather's runs any more. */
  start(idle: () => void): void {
    this.#idle = idle
    this.#startMore()
  }

  #startMore(): void {
    if (this.#starting) return
    this.#starting = true
    while (
      this.#next < this.#entries.length &&
      this.#running.size < this.#concurrency &&
      this.#first === undefined &&
      this.#whole.reason === undefined
    ) {
      this.#startOne(this.#next++)
    }
    this.#starting = false
    if (this.#running.size > 0) return
    this.#whole.unlink()
    const idle = this.#idle
    this.#idle = undefined
    idle?.()
  }

  #startOne(position: number): void {
    const { index, work } = this.#entries[position] as Entry
    if (Exit.isExit(work)) {
      // What has ended already needs no fiber, and nobody could have cancelled it.
      this.#take(position, work, (cause) => this.#asFailure(undefined, index, cause))
      return
    }
    const name = `gather[${index}]`
    const running: Running = {
      cell: new CancelCell("task", { name, parent: this.#whole }),
      name,
      fiber: undefined,
      given: false,
      failed: undefined
    }
    this.#running.add(running)
    const owned =
      this.#owner === undefined
        ? work
        : Effect.onExitPrimitive(work, (exit) => {
            if (exit._tag === "Success") return undefined
            running.failed = this.#asFailure(running.cell.reason, index, exit.cause)
            return running.given && running.failed
              ? reportUnhandled("sibling", name, running.failed)
              : undefined
          })
    running.fiber = Child.forkUnsafe(this.#fiber.context as Context.Context<unknown>, running.cell, owned)
    running.fiber.addObserver((exit) => this.#ended(running, position, index, exit))
  }

  #ended(
    running: Running,
    position: number,
    index: number | string,
    exit: Exit.Exit<unknown, unknown>
  ): void {
    if (running.given) return
    this.#running.delete(running)
    this.#take(position, exit, (cause) => this.#asFailure(running.cell.reason, index, cause))
    this.#startMore()
  }

  #take(
    position: number,
    exit: Exit.Exit<unknown, unknown>,
    asFailure: (cause: Cause.Cause<unknown>) => Cause.Cause<unknown> | undefined
  ): void {
    if (exit._tag === "Success") {
      this.#succeeded++
      this.#results[position] = exit.value
    } else this.#failed(asFailure(exit.cause))
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

  /** Hands what still runs to the owner; what a closed owner does not take is awaited instead. */
  #giveAway(owner: TaskScope.TaskScope): void {
    let refused = false
    for (const running of this.#running) {
      // The start of one that is in its first steps has not returned yet, but its cell knows the fiber.
      const fiber = running.fiber ?? running.cell.fiber
      if (fiber === undefined || fiber.pollUnsafe() !== undefined) continue
      if (!TaskScope.adoptUnsafe(owner, running.cell, fiber)) {
        refused = true
        continue
      }
      running.given = true
      this.#running.delete(running)
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

  readonly #tell: Effect.Effect<void> = Effect.uninterruptible(
    Effect.suspend(() =>
      Effect.forEach(this.#untold.splice(0), (cause) => reportUnhandled("sibling", "gather", cause), {
        discard: true
      })
    )
  )

  /** The waiter was interrupted: signal all, wait for all, and report what nobody will be given. */
  readonly stop: Effect.Effect<void> = Effect.flatMap(currentReason, (reason) => {
    this.#whole.inherit(Option.getOrElse(reason, CancelReason.Unknown))
    const fibers = [...this.#running].flatMap((running) =>
      running.fiber === undefined ? [] : [running.fiber]
    )
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

export const runAll = (
  fiber: Fiber.Fiber<unknown, unknown>,
  entries: ReadonlyArray<Entry>,
  concurrency: number,
  owner: TaskScope.TaskScope | undefined
): Effect.Effect<ReadonlyArray<unknown>, unknown> => {
  const ancestor = cancelledAboveUnsafe(fiber)
  if (ancestor !== undefined) return Effect.failCause(toCause(ancestor))
  let gathering: Gathering | undefined
  const waited = Effect.callback<ReadonlyArray<unknown>, unknown>((resume) => {
    const started = new Gathering(fiber, entries, concurrency, owner)
    gathering = started
    started.start(() =>
      Child.resumeWith(
        fiber,
        resume,
        Effect.suspend(() => started.outcome)
      )
    )
  })
  // A finalizer around the whole, not only around the wait: entries that all end at once never come to a wait. What
  // is not an interrupt alone is the failure that the waiter was given.
  return Effect.onExitPrimitive(waited, (exit) =>
    exit._tag === "Success" || failureOf(exit.cause) !== undefined ? undefined : gathering?.stop
  )
}
