/**
 * A place in a set of tasks for work that mostly needs no fiber: what a callback begins and the next one ends.
 *
 * Invariants
 * 1. A place counts as a task from when it is given until it is given back, or until the work that filled it has ended.
 * 2. What has a place can be filled although the set takes nothing any more, is being cancelled, or both.
 * 3. Its holder is told a cancel of the set in the turn of that cancel, after everything is marked, and once.
 */
import type { CancelReason } from "@curfew/reason"
import { CancelCell, CurrentCell } from "@curfew/reason/CancelCell"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as child from "./child.ts"
import type { TaskSet } from "./taskScope.ts"

/** Who has a place. */
export interface PlaceHolder {
  /** The set is cancelled, and nothing has filled the place. */
  readonly stop: (reason: CancelReason) => void
  /** Somebody is to see each task, with its fiber: fill it, or give it back. */
  readonly fill: () => void
}

export class Place {
  readonly name: string | undefined
  /** What the live tree shows of it; the cell of the work that fills it. */
  #cell: CancelCell | undefined
  /** Where it stands, for `Places` alone. */
  before: Place | undefined = undefined
  after: Place | undefined = undefined
  held = false
  /** To be set by whoever takes it, at once. */
  holder: PlaceHolder | undefined = undefined
  readonly #set: TaskSet

  constructor(set: TaskSet, name: string | undefined) {
    this.#set = set
    this.name = name
  }

  /** Lets the live tree show it, which is not worth its while for what is over at once. */
  show(): CancelCell {
    this.#cell ??= new CancelCell("task", { name: this.name, parent: this.#set.cell })
    return this.#cell
  }

  /**
   * Fills it, with the only task of this name from now on. What fails in it is its holder's. In a set that is cancelled
   * the work is masked: it was let in before that, and ends by what its holder was told.
   */
  start<A, E, R>(context: Context.Context<R>, work: Effect.Effect<A, E, R>): Fiber.Fiber<A, E> {
    const cell = this.show()
    const fiber =
      cell.reason === undefined
        ? child.forkUnsafe(context, cell, work)
        : this.#startMasked(context, cell, work)
    this.#set.takeUnsafe(cell, fiber)
    this.#set.givenBack(this)
    return fiber
  }

  /**
   * Fills it with work that runs already and only has to be waited for: without a turn in between, so that a cancel which
   * comes next finds its fiber, waiting. To be called before the cancel reaches the place.
   */
  startNow<A, E, R>(context: Context.Context<R>, work: Effect.Effect<A, E, R>): Fiber.Fiber<A, E> {
    const cell = this.show()
    const own = Context.add(context, CurrentCell, cell) as Context.Context<R>
    const fiber = child.startUnsafe(
      own,
      Effect.withFiber<A, E, R>((fiber) => {
        cell.fiber = fiber
        return work
      })
    )
    fiber.addObserver(() => cell.unlink())
    this.#set.takeUnsafe(cell, fiber)
    this.#set.givenBack(this)
    return fiber
  }

  /** Like `startNow`, as a task like any other: what fails in it is the set's. */
  startTask<A, E, R>(context: Context.Context<R>, work: Effect.Effect<A, E, R>): Fiber.Fiber<A, E> {
    const { fiber } = this.#set.startIn(this.show(), context, work)
    this.#set.givenBack(this)
    return fiber
  }

  #startMasked<A, E, R>(
    context: Context.Context<R>,
    cell: CancelCell,
    work: Effect.Effect<A, E, R>
  ): Fiber.Fiber<A, E> {
    const fiber = child.startUnsafe(Context.add(context, CurrentCell, cell) as Context.Context<R>, work, {
      uninterruptible: true
    })
    fiber.addObserver(() => cell.unlink())
    return fiber
  }

  /** Puts work that runs already beside it, as its holder's, whatever becomes of the place. */
  adopt(cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>): void {
    if (this.#set.cell.reason === undefined) cell.moveTo(this.#set.cell)
    this.#set.takeUnsafe(cell, fiber)
  }

  /** Gives it back unfilled. */
  leave(): void {
    this.#cell?.unlink()
    this.#set.givenBack(this)
  }
}

/**
 * The places of a set that nothing has filled, linked through themselves: a `Set` in steady use leaves tables behind that
 * keep what stood in them until the collector looks at old objects.
 */
export class Places {
  #first: Place | undefined
  #last: Place | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  add(place: Place): void {
    place.before = this.#last
    if (this.#last === undefined) this.#first = place
    else this.#last.after = place
    this.#last = place
    place.held = true
    this.#size++
  }

  /** True iff it stood here. */
  delete(place: Place): boolean {
    if (!place.held) return false
    const { after, before } = place
    if (before === undefined) this.#first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    // A dead place must not keep its neighbours.
    place.before = undefined
    place.after = undefined
    place.held = false
    this.#size--
    return true
  }

  /** Calls back with each that stands here now and still does when its turn comes. */
  each(call: (place: Place) => void): void {
    const all: Array<Place> = []
    for (let place = this.#first; place !== undefined; place = place.after) all.push(place)
    for (const place of all) if (place.held) call(place)
  }
}
