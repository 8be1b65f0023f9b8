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
  CancelCell,
  CurrentCell,
  cancelledAboveUnsafe,
  type Entering,
  forkCellUnsafe,
  inlineUnsafe,
  keepUnsafe,
  show,
  type Unshown
} from "@curfew/reason/CancelCell"
import { failureOf, ownerClosedTotal, reportUnhandled, SiblingFailures } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { ChildCancelled } from "../ChildCancelled.ts"

/** An item that runs: one object, which its fiber tells how its work ended, and which makes its cell when somebody looks. */
class Running implements Entering<unknown, unknown>, Unshown {
  readonly #gathering: Gathering | undefined
  #cell: CancelCell | undefined = undefined
  readonly position: number
  fiber: Fiber.Fiber<unknown, unknown> = undefined as never
  /** The next one out of those that have not been shown. */
  before: Unshown | undefined = undefined
  /** True once an owner answers for it. */
  given = false
  /** Set when the work has failed; its fiber may still wait for the clean-up of its own children. */
  failed: Cause.Cause<unknown> | undefined = undefined
  /** The neighbours among those that run. */
  next: Running | undefined = undefined
  previous: Running | undefined = undefined

  constructor(gathering: Gathering | undefined, position: number) {
    this.#gathering = gathering
    this.position = position
  }

  get cell(): CancelCell {
    if (this.#cell !== undefined) return this.#cell
    show(this.before)
    const gathering = this.#gathering as Gathering
    const cell = new CancelCell("task", { name: gathering.nameOf(this.position), parent: gathering.whole })
    this.#cell = cell
    if (this.fiber?.pollUnsafe() === undefined) cell.fiber = this.fiber
    // What cancels the gather looks for the cells of its items first: this one was not cancelled.
    else cell.unlink()
    return cell
  }

  show(): void {
    void this.cell
  }

  unlink(): void {
    this.#cell?.unlink()
  }

  get reason(): CancelReason | undefined {
    return this.#cell?.reason
  }

  enter(given: Context.Context<never>): Context.Context<never> {
    return Context.add(given, CurrentCell, this.cell)
  }

  settle(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    return exit._tag === "Success" ? undefined : this.#gathering?.itemFailed(this, exit.cause)
  }
}

let keeps = false

/** Before the first is made. */
const keep = (fiber: Fiber.Fiber<unknown, unknown>): void => {
  keeps = true
  keepUnsafe(new Running(undefined, 0))
  keepUnsafe(new Gathering(fiber, Child.keptCell(), [], undefined, 1, undefined).forget())
}

class Gathering {
  #fiber: Fiber.Fiber<unknown, unknown>
  /** What was given, and once it has succeeded its result in its place. */
  readonly #places: Array<unknown>
  readonly #keys: ReadonlyArray<string> | undefined
  readonly #concurrency: number
  readonly #owner: TaskScope.TaskScope | undefined
  /** Above all items. */
  readonly whole: CancelCell
  #firstRunning: Running | undefined = undefined
  #running = 0
  #next = 0
  #starting = false
  /** One ended by a cancel alone. */
  #cancelled = false
  #first: Cause.Cause<unknown> | undefined = undefined
  #siblings: Array<Cause.Cause<unknown>> | undefined = undefined
  /** What has to be reported and has not been yet. */
  #untold: Array<Cause.Cause<unknown>> | undefined = undefined
  #idle: (() => void) | undefined = undefined

  constructor(
    fiber: Fiber.Fiber<unknown, unknown>,
    whole: CancelCell,
    places: Array<unknown>,
    keys: ReadonlyArray<string> | undefined,
    concurrency: number,
    owner: TaskScope.TaskScope | undefined
  ) {
    this.#fiber = fiber
    this.#places = places
    this.#keys = keys
    this.#concurrency = concurrency
    this.#owner = owner
    this.whole = whole
  }

  /** Holds nothing any more. */
  forget(): this {
    this.#fiber = undefined as never
    return this
  }

  #indexOf(position: number): number | string {
    return this.#keys === undefined ? position : (this.#keys[position] as string)
  }

  nameOf(position: number): string {
    return `gather[${this.#indexOf(position)}]`
  }

  /** Starts what may start; true when all of it has ended by then. */
  start(): boolean {
    this.#startMore()
    return this.#running === 0
  }

  get idle(): boolean {
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
      this.#next < this.#places.length &&
      this.#running < this.#concurrency &&
      this.#first === undefined &&
      this.whole.reason === undefined
    ) {
      const position = this.#next++
      const work = workOf(this.#places[position])
      if (work !== undefined) this.#startOne(position, work)
    }
    this.#starting = false
    if (this.#running > 0) return
    this.whole.unlink()
    const idle = this.#idle
    this.#idle = undefined
    idle?.()
  }

  #startOne(position: number, work: Effect.Effect<unknown, unknown>): void {
    if (Exit.isExit(work)) {
      // What has ended already needs no fiber, and nobody could have cancelled it.
      this.#take(position, work, undefined)
      return
    }
    const item = new Running(this, position)
    this.#enter(item)
    const fiber = Child.startUnshown(this.#fiber.context, work, item)
    item.fiber = fiber
    const exit = fiber.pollUnsafe()
    if (exit === undefined) this.#follow(item)
    else this.#ended(item, exit)
  }

  #follow(item: Running): void {
    item.show()
    item.fiber.addObserver((exit) => {
      this.#ended(item, exit)
      this.#startMore()
    })
  }

  #enter(item: Running): void {
    const first = this.#firstRunning
    item.next = first
    if (first !== undefined) first.previous = item
    this.#firstRunning = item
    this.#running++
  }

  #leave(item: Running): void {
    const { next, previous } = item
    if (previous === undefined) this.#firstRunning = next
    else previous.next = next
    if (next !== undefined) next.previous = previous
    this.#running--
  }

  #ended(item: Running, exit: Exit.Exit<unknown, unknown>): void {
    item.unlink()
    if (item.given) return
    this.#leave(item)
    this.#take(item.position, exit, item.reason)
  }

  /** The work of an entry has failed. Where an owner may answer for it, or does, it matters before its children have ended. */
  itemFailed(running: Running, cause: Cause.Cause<unknown>): Effect.Effect<void> | undefined {
    if (this.#owner === undefined) return undefined
    running.failed = this.#asFailure(running.reason, running.position, cause)
    return running.given && running.failed
      ? reportUnhandled("sibling", running.cell.name, running.failed)
      : undefined
  }

  #take(position: number, exit: Exit.Exit<unknown, unknown>, cancelled: CancelReason | undefined): void {
    if (exit._tag === "Success") this.#places[position] = exit.value
    else this.#failed(this.#asFailure(cancelled, position, exit.cause))
  }

  #asFailure(
    cancelled: CancelReason | undefined,
    position: number,
    cause: Cause.Cause<unknown>
  ): Cause.Cause<unknown> | undefined {
    const failure = failureOf(cause)
    if (failure !== undefined || cancelled !== undefined) return failure
    const reason = Option.getOrElse(fromCause(cause), CancelReason.Unknown)
    return Cause.fail(new ChildCancelled({ index: this.#indexOf(position), reason }))
  }

  #failed(failure: Cause.Cause<unknown> | undefined): void {
    if (failure === undefined) {
      this.#cancelled = true
      return
    }
    if (this.#first !== undefined) {
      this.#siblings ??= []
      this.#siblings.push(failure)
      this.#untold ??= []
      this.#untold.push(failure)
      return
    }
    this.#first = failure
    if (this.#owner === undefined) this.whole.cancel(CancelReason.SiblingFailed({ cause: failure }))
    // A gather that is being cancelled itself waits for its items and gives none away.
    else if (this.whole.reason === undefined) this.#giveAway(this.#owner)
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

  /** The results, once nothing runs any more and all have succeeded. */
  get results(): unknown {
    if (this.#first !== undefined || this.#cancelled || this.#next < this.#places.length) return undefined
    const places = this.#places
    return this.#keys === undefined
      ? places
      : Object.fromEntries(this.#keys.map((key, i) => [key, places[i]]))
  }

  /** What the waiter goes on with when nothing runs any more. */
  get outcome(): Effect.Effect<unknown, unknown> {
    const { results } = this
    if (results !== undefined) return Effect.succeed(results)
    const first = this.#first
    // A cancel from above has ended the items and not yet reached the waiter, a native child of who was cancelled.
    if (first === undefined) return Effect.failCause(toCause(this.whole.reason ?? CancelReason.Unknown()))
    if (this.#siblings === undefined) return Effect.failCause(first)
    const siblings = SiblingFailures.context([...this.#siblings])
    return Effect.andThen(this.#tell, Effect.failCause(Cause.annotate(first, siblings as never)))
  }

  get #tell(): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        const untold = this.#untold ?? []
        this.#untold = undefined
        return Effect.forEach(untold, (cause) => reportUnhandled("sibling", "gather", cause), {
          discard: true
        })
      })
    )
  }

  /** The waiter was interrupted: signal all, wait for all, and report what nobody will be given. */
  get stop(): Effect.Effect<void> {
    return Effect.flatMap(currentReason, (reason) => {
      this.whole.inherit(Option.getOrElse(reason, CancelReason.Unknown))
      const fibers = this.#all.flatMap(({ fiber }) => (fiber === undefined ? [] : [fiber]))
      const ended = Effect.forEach(fibers, Child.awaitEnd, { discard: true })
      return Effect.andThen(
        ended,
        Effect.suspend(() => {
          if (this.#first !== undefined) this.#untold = [this.#first, ...(this.#untold ?? [])]
          return this.#tell
        })
      )
    })
  }
}

/** The work at a place, if there is any. */
const workOf = (item: unknown): Effect.Effect<unknown, unknown> | undefined => {
  if (Effect.isEffect(item)) return item as Effect.Effect<unknown, unknown>
  if (!Option.isOption(item) || Option.isNone(item)) return undefined
  const work = item.value as Effect.Effect<unknown, unknown>
  return Exit.isExit(work) ? Exit.map(work, Option.some) : Effect.map(work, Option.some)
}

/** Runs what stands in the places, which it changes. With keys the results are those of a record. */
export const runAll = (
  fiber: Fiber.Fiber<unknown, unknown>,
  places: Array<unknown>,
  keys: ReadonlyArray<string> | undefined,
  concurrency: number,
  owner: TaskScope.TaskScope | undefined
): Effect.Effect<unknown, unknown> => {
  const ancestor = cancelledAboveUnsafe(fiber)
  if (ancestor !== undefined) return Effect.failCause(toCause(ancestor))
  if (!keeps) keep(fiber)
  const whole = forkCellUnsafe(fiber, "tasks", "gather")
  const gathering = new Gathering(fiber, whole, places, keys, concurrency, owner)
  const ended = gathering.start()
  // Nothing runs and nothing has failed: there is nothing to stop or to report, whoever interrupts the waiter now.
  const results = ended ? gathering.results : undefined
  if (results !== undefined) return Effect.succeed(results)
  // A finalizer around the whole, not only around the wait: entries that all end at once never come to a wait. What
  // is not an interrupt alone is the failure that the waiter was given.
  return inlineUnsafe(
    fiber,
    Effect.onExitPrimitive(ended ? gathering.outcome : waiting(fiber, gathering), (exit) =>
      exit._tag === "Success" || failureOf(exit.cause) !== undefined ? undefined : gathering.stop
    )
  )
}

const waiting = (
  fiber: Fiber.Fiber<unknown, unknown>,
  gathering: Gathering
): Effect.Effect<unknown, unknown> =>
  Effect.callback((resume) => {
    if (gathering.idle) resume(gathering.outcome)
    else
      gathering.whenIdle(() =>
        Child.resumeWith(
          fiber,
          resume,
          Effect.suspend(() => gathering.outcome)
        )
      )
  })
