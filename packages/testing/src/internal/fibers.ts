/**
 * The fibers of a world.
 *
 * Invariants
 * 1. A fiber has a record from its creation on, before it ran an operation and even if it never does.
 * 2. How many are alive is counted by their creations and ends; which ones is seen from the fibers themselves.
 */
import type * as Fiber from "effect/Fiber"

export type AnyFiber = Fiber.Fiber<unknown, unknown>

/** What a fiber was created for. Only places in `run` are steps. */
export type Phase = "setup" | "run" | "check" | "after" | "close"

export interface FiberRecord {
  /** From 1 on in each phase, in the order of creation. */
  readonly index: number
  readonly id: number
  readonly phase: Phase
  readonly parent: FiberRecord | undefined
  /** The step of the run in which it was created. */
  readonly born: number
  fiber: AnyFiber | undefined
  /** How many operations it has come to. */
  operations: number
}

export class FiberTable {
  #records: Array<FiberRecord> = []
  readonly #byId = new Map<number, FiberRecord>()
  #live = 0
  #numbered = 0

  /** Enters a fiber that is being created. */
  enter(id: number, phase: Phase, parent: AnyFiber | undefined, born: number): FiberRecord {
    const record: FiberRecord = {
      index: ++this.#numbered,
      id,
      phase,
      parent: parent === undefined ? undefined : this.#byId.get(parent.id),
      born,
      fiber: undefined,
      operations: 0
    }
    this.#live++
    this.#records.push(record)
    this.#byId.set(id, record)
    return record
  }

  /** Counts the end of one of them. */
  ended(): void {
    this.#live--
  }

  /** Lets the numbers start again at 1. */
  renumber(): void {
    this.#numbered = 0
  }

  recordOf(fiber: AnyFiber): FiberRecord | undefined {
    return this.#byId.get(fiber.id)
  }

  /** Those that are alive, in the order of creation. */
  alive(): ReadonlyArray<FiberRecord> {
    if (this.#live <= 0) return []
    const alive = this.#records.filter(({ fiber }) => fiber === undefined || fiber.pollUnsafe() === undefined)
    // One that never asked before an operation has no fiber to look at: only their number is known.
    const surplus = alive.length - this.#live
    if (surplus <= 0) return alive
    const unseen = alive.filter(({ fiber }) => fiber === undefined).slice(0, surplus)
    return alive.filter((record) => !unseen.includes(record))
  }

  /** Forgets those that have ended, in a world that lives through many runs. */
  prune(): void {
    const alive = this.alive()
    this.#byId.clear()
    for (const record of alive) this.#byId.set(record.id, record)
    this.#records = [...alive]
  }
}
