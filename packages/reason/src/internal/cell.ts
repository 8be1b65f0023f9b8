/**
 * What stands in the live tree, and what every work can ask of what it stands in.
 *
 * Invariants
 * 1. Nothing is cancelled here: who only stands in the tree, as clean-up does, carries nothing of what cancels. That is
 *    `CancelCell`; what only hears of a cancel is told by one above it.
 * 2. What hangs below one cell is a ring of cells: a set would cost more than they do.
 * 3. `first`, `next`, `previous`, `flags`, `born`, `signalledAt`, `enter` and `leave` are for cells alone.
 * 4. Work may have no cell as long as nobody has seen that: whoever goes down the tree calls `showAll` first.
 * 5. There may be a million: what few cells have is no field of all, what is true or not is a bit, and times are whole
 *    milliseconds, which unlike fractions need no object of their own.
 */
import type * as Fiber from "effect/Fiber"
import type { CancelReason } from "../CancelReason.ts"
import { uptime } from "./age.ts"
import type { Attempt } from "./turn.ts"
import { witness } from "./witness.ts"

/**
 * What a cell stands for in the live program.
 *
 * @stability internal
 * @since 0.1.0
 */
export type CellKind = "scope" | "tasks" | "task" | "call" | "shield" | "owner" | "shared" | "cleanup"

export type Listener = (reason: CancelReason) => void

export const nothing = (): void => {}

/**
 * A cell that is told of cancels: one that can be cancelled, or one that only hears of it and so carries nothing of what a
 * cancel does to fibers.
 *
 * @stability internal
 * @since 0.1.0
 */
export interface Hears {
  /** `undefined` where nobody listens. */
  readonly listeners: unknown
  /** Called in the turn of the cancel, after all interrupts are pending. */
  readonly tell: (reason: CancelReason, attempt: Attempt) => void
}

/**
 * Work in its first run, which makes its cell only when somebody looks for it: most of what ends at once nobody does. The
 * latest comes first; each starts and ends within the one before it.
 *
 * @stability internal
 * @since 0.1.0
 */
export interface Unshown {
  before: Unshown | undefined
  /** Has its cell stand in the tree, from now on. */
  readonly show: () => void
}

/**
 * The latest of them. Who starts one puts it here, and puts the one before it back when its first run is over.
 *
 * @stability internal
 * @since 0.1.0
 */
export const unshown: { last: Unshown | undefined } = { last: undefined }

/**
 * Has this one shown and all that began before it, in the order in which they began: so siblings stand in the tree.
 *
 * @stability internal
 * @since 0.1.0
 */
export const show = (work: Unshown | undefined): void => {
  if (work === undefined) return
  show(work.before)
  work.show()
}

/**
 * To be called by whoever goes down the tree, and before work is shown whose first run is over.
 *
 * @stability internal
 * @since 0.1.0
 */
export const showAll = (): void => show(unshown.last)

// Not a field of an object: with one, a scope at the root took nearly twice as long.
let firstRoot: Cell | undefined

const ended = 1
/** Flags of those that can be cancelled. */
export const own = 2
export const draining = 4
export const daemon = 8
export const stuck = 16
/** Set by who reports failures: one of this work was handed to the receiver of those that nobody waits for. */
export const untaken = 32

/** The time, for cells. */
export const now = (): number => Math.trunc(uptime())

/**
 * A node of the live tree. Clean-up is one that no cancel reaches: it has no parent, and what is above it can only be
 * asked. A signal is one that hears of cancels ({@link Hears}). All others are a {@link CancelCell}.
 *
 * @stability internal
 * @since 0.1.0
 */
export class Cell {
  readonly kind: CellKind
  readonly name: string | undefined
  /** Where cancellation comes down from. Only cells set it, and the next. */
  parent: Cell | undefined
  /** Who may be asked through a barrier. */
  outer: Cell | undefined
  first: Cell | undefined = undefined
  next: Cell = this
  previous: Cell = this
  /** What is true of it or not. */
  flags = 0
  /** When it was made, or began. */
  readonly born: number
  /** When a cancel reached it; of clean-up, when it began. */
  signalledAt: number | undefined
  /** The first reason that reached this cell, from its own `cancel` or from an ancestor. */
  reason: CancelReason | undefined
  /** The fiber that a cancel of this cell interrupts. */
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** What those who made it know it by, where that is more than its kind. */
  declare stands: unknown

  constructor(
    kind: CellKind,
    options: {
      readonly name?: string | undefined
      readonly parent?: Cell | undefined
      readonly outer?: Cell | undefined
      /** For what has been there for so many milliseconds and is shown only now. */
      readonly age?: number | undefined
    }
  ) {
    const { age, parent } = options
    this.born = age === undefined ? now() : now() - Math.trunc(age)
    this.kind = kind
    this.name = options.name
    this.outer = options.outer
    this.parent = parent
    this.reason = parent?.reason
    this.signalledAt = kind === "cleanup" ? this.born : age === undefined ? undefined : parent?.signalledAt
    this.enter()
  }

  /** Set once what the cell stands for has ended. */
  get ended(): boolean {
    return (this.flags & ended) !== 0
  }

  /** Enters the ring of the parent, or of the roots, as the last one. */
  enter(): void {
    const parent = this.parent
    const first = parent === undefined ? firstRoot : parent.first
    if (first === undefined) {
      lead(parent, this)
      return
    }
    const last = first.previous
    this.next = first
    this.previous = last
    last.next = this
    first.previous = this
  }

  /** Leaves the ring. Who stands in none is alone in its own, and nobody's first. */
  leave(): void {
    const parent = this.parent
    const next = this.next
    if ((parent === undefined ? firstRoot : parent.first) === this)
      lead(parent, next === this ? undefined : next)
    next.previous = this.previous
    this.previous.next = next
    this.next = this
    this.previous = this
  }

  /** Takes the cell out of the tree. To be called once, when the work it stands for has ended. */
  unlink(): void {
    if (this.ended) return
    this.flags |= ended
    this.leave()
    const { cleaningFor, fiber } = this
    if (fiber !== undefined && cleaningFor !== undefined)
      witness.current?.ended(this.kind, cleaningFor, fiber)
    this.fiber = undefined
    // What outlives it, in a wider `Scope` for instance, hangs from now on where this cell hung.
    for (let child = this.first; child !== undefined; child = this.first) {
      child.leave()
      child.parent = this.parent
      child.outer ??= this.outer
      child.enter()
    }
  }

  /** Marks work that was left behind: it stands by itself from now on, until it is unlinked. */
  abandon(): void {
    this.leave()
    this.parent = undefined
    this.flags |= stuck
    this.enter()
  }

  /** Milliseconds since a cancel reached it, or since it began when it is clean-up; `undefined` while it works. */
  get cleaningFor(): number | undefined {
    return this.signalledAt === undefined ? undefined : now() - this.signalledAt
  }

  /** Somebody is about to look at what hangs below it. */
  reveal?(): void

  /** Nothing is cancelled by it, so there is nothing to hear from it. */
  listen(_listener: Listener): () => void {
    return nothing
  }
}

// No method: each object pays for those that are private to it.
const lead = (parent: Cell | undefined, first: Cell | undefined): void => {
  if (parent === undefined) firstRoot = first
  else parent.first = first
}

/**
 * The cell, or the nearest above it, that has not ended: work may outlive the scope that it was started in.
 *
 * @stability internal
 * @since 0.1.0
 */
export const liveOf = (cell: Cell | undefined): Cell | undefined => {
  let live = cell
  while (live?.ended === true) live = live.parent
  return live
}

/**
 * Milliseconds since the cell was made.
 *
 * @stability internal
 * @since 0.1.0
 */
export const ageOf = (cell: Cell): number => now() - cell.born

/**
 * Tells whether the cell has this flag: {@link draining}, {@link daemon}, {@link stuck} or `own`.
 *
 * @stability internal
 * @since 0.1.0
 */
export const has = (cell: Cell, flag: number): boolean => (cell.flags & flag) !== 0

/**
 * What hangs directly below the cell, at this moment.
 *
 * @stability internal
 * @since 0.1.0
 */
export const childrenOf = (cell: Cell): ReadonlyArray<Cell> => {
  showAll()
  cell.reveal?.()
  return ringOf(cell.first)
}

const ringOf = (first: Cell | undefined): Array<Cell> => {
  const cells: Array<Cell> = []
  for (let cell = first; cell !== undefined; ) {
    cells.push(cell)
    cell = cell.next === first ? undefined : cell.next
  }
  return cells
}

/**
 * The cells without a parent: owners, scopes that nobody surrounds, and what hangs beside a mask or a shield.
 *
 * @stability internal
 * @since 0.1.0
 */
export const rootsUnsafe = (): ReadonlyArray<Cell> => {
  showAll()
  return ringOf(firstRoot)
}
