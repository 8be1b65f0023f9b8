/**
 * Who waits for the exit of shared work, and the list of those who do.
 *
 * Invariants
 * 1. Those of a list are linked through themselves: one comes and goes in O(1), whoever else stands there.
 * 2. One that is told before a fiber waits has the exit for it: it was told in the operation in which it came.
 */
import * as Child from "@curfew/scope/Child"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { SharedCancelled } from "../SharedCancelled.ts"
import type { Run } from "./waits.ts"

/** Who waits without a fiber, until somebody needs one of it. */
export interface Waiter<A, E> {
  /** Told first what it waits by, before anything can be asked of it. */
  readonly joins: (waits: Waits<A, E>) => void
  /** Told the exit, once, if no fiber has entered. */
  readonly told: (exit: Exit.Exit<A, E | SharedCancelled>) => void
  /** Has a fiber enter. */
  readonly fill: () => void
}

/** A wait without a fiber. */
export interface Waits<A, E> {
  /** For the fiber that waits on in its place. */
  readonly enter: Effect.Effect<A, E | SharedCancelled>
  /** The run belongs to who waits, and is not left before it is over. */
  readonly hosted: boolean
  /** Nobody waits any more. For one that is not the host, and that no fiber has entered. */
  readonly leave: () => void
}

type Resume<A, E> = (exit: Effect.Effect<A, E | SharedCancelled>) => void

export class Observer<A, E> {
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  #resume: Resume<A, E> | undefined = undefined
  readonly #waiter: Waiter<A, E> | undefined
  /** The runs that it waits inside of. */
  readonly inside: ReadonlyArray<Run>
  /** Its neighbours among those of its generation. */
  next: Observer<A, E> | undefined = undefined
  previous: Observer<A, E> | undefined = undefined
  waits = false
  /** What it was told before its fiber waited. */
  exit: Exit.Exit<A, E | SharedCancelled> | undefined = undefined

  constructor(
    fiber: Fiber.Fiber<unknown, unknown> | undefined,
    inside: ReadonlyArray<Run>,
    waiter?: Waiter<A, E> | undefined
  ) {
    this.fiber = fiber
    this.inside = inside
    this.#waiter = waiter
  }

  /** From here on a fiber waits. */
  enter(fiber: Fiber.Fiber<unknown, unknown>, resume: Resume<A, E>): void {
    this.fiber = fiber
    this.#resume = resume
  }

  /** The fiber that waits; there is one from now on. */
  get host(): Fiber.Fiber<unknown, unknown> {
    if (this.fiber === undefined) this.#waiter?.fill()
    return this.fiber as Fiber.Fiber<unknown, unknown>
  }

  tell(exit: Exit.Exit<A, E | SharedCancelled>): void {
    const { fiber } = this
    if (fiber === undefined) this.#waiter?.told(exit)
    else if (this.#resume === undefined) this.exit = exit
    else Child.resumeWith(fiber, this.#resume, exit)
  }
}

/** Those who wait, in the order in which they came. */
export class Observers<A, E> {
  protected first: Observer<A, E> | undefined = undefined
  #last: Observer<A, E> | undefined = undefined
  /** How many wait. */
  observers = 0

  protected enter(observer: Observer<A, E>): void {
    const last = this.#last
    observer.previous = last
    observer.waits = true
    if (last === undefined) this.first = observer
    else last.next = observer
    this.#last = observer
    this.observers++
  }

  /** True iff it stood here. */
  protected drop(observer: Observer<A, E>): boolean {
    if (!observer.waits) return false
    observer.waits = false
    const { next, previous } = observer
    if (previous === undefined) this.first = next
    else previous.next = next
    if (next === undefined) this.#last = previous
    else next.previous = previous
    observer.next = undefined
    observer.previous = undefined
    this.observers--
    return true
  }
}
