/**
 * A place in a set of tasks for work that mostly needs no fiber: what a callback begins and the next one ends.
 *
 * Invariants
 * 1. A place counts as a task from when it is given until it is given back, or until the work that filled it has ended.
 * 2. What has a place can be filled although the set takes nothing any more, is being cancelled, or both.
 * 3. Its holder is told a cancel of the set in the turn of that cancel, after everything is marked, and once.
 */
import type { CancelReason } from "@curfew/reason"
import { CancelCell } from "@curfew/reason/CancelCell"
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
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

  /** Fills it, with the only task of this name from now on. What fails in it is its holder's. */
  start<A, E, R>(context: Context.Context<R>, work: Effect.Effect<A, E, R>): Fiber.Fiber<A, E> {
    const cell = this.show()
    const fiber = child.forkUnsafe(context, cell, work)
    this.#set.takeUnsafe(cell, fiber)
    this.#set.givenBack(this)
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
