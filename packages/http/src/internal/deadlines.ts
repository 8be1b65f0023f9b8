/**
 * The time limits of requests that have no fiber.
 *
 * Invariants
 * 1. Requests with the same limit share one timer, which is armed as long as one of them is under way and no longer.
 * 2. None is told early; each is told once, and none that has been taken out.
 */
import { Instant } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import { afterTurn } from "./turn.ts"

/** What has a limit. */
export interface Limited {
  /** The length of the limit, in milliseconds. */
  readonly limit: number
  /** When it is over, in monotonic milliseconds. */
  readonly at: number
  /** The limit is over. */
  readonly expire: () => void
  /** Where it stands, for `Deadlines` alone. */
  row: Row | undefined
}

/** Requests with the same limit, in the order in which they came: that of their ends. */
interface Row {
  readonly limit: number
  readonly waiting: Set<Limited>
  disarm: (() => void) | undefined
}

export class Deadlines {
  readonly #context: Context.Context<never>
  /** What limits are kept by. */
  readonly clock: Clock.Clock
  readonly #rows = new Map<number, Row>()

  constructor(context: Context.Context<never>) {
    this.#context = context
    this.clock = Context.get(context, Clock.Clock)
  }

  /** Takes a limit in: of those with the same length it is the last to end. */
  enter(limited: Limited): void {
    const row = this.#rowOf(limited.limit)
    limited.row = row
    row.waiting.add(limited)
    if (row.disarm === undefined) this.#arm(row)
  }

  /** The same for a call that has a fiber, from the end of the turn on. */
  arm(limit: number, at: number, expire: () => void): () => void {
    let over = false
    const limited: Limited = { limit, at, expire, row: undefined }
    const turned = (): void => {
      if (!over) this.enter(limited)
    }
    afterTurn({ turned })
    return () => {
      over = true
      this.leave(limited)
    }
  }

  /** Takes it out again: what it limits has ended, or has a timer of its own. */
  leave(limited: Limited): void {
    const { row } = limited
    if (row === undefined) return
    limited.row = undefined
    row.waiting.delete(limited)
    if (row.waiting.size === 0) this.#clear(row)
  }

  #rowOf(limit: number): Row {
    const known = this.#rows.get(limit)
    if (known !== undefined) return known
    const row: Row = { limit, waiting: new Set(), disarm: undefined }
    this.#rows.set(limit, row)
    return row
  }

  #clear(row: Row): void {
    const { disarm } = row
    row.disarm = undefined
    this.#rows.delete(row.limit)
    disarm?.()
  }

  #arm(row: Row): void {
    const [first] = row.waiting
    if (first === undefined) return
    let fired = false
    const disarm = Child.armUnsafe(this.#context, this.clock, first.at - Instant.nowOf(this.clock), () => {
      fired = true
      this.#fire(row)
    })
    // A clock may fire before the disarm is in our hands.
    if (!fired) row.disarm = disarm
  }

  #fire(row: Row): void {
    row.disarm = undefined
    const now = Instant.nowOf(this.clock)
    // The clock's own resolution is finer than that of its timers.
    for (const limited of row.waiting) {
      if (limited.at > now + 1e-3) break
      limited.row = undefined
      row.waiting.delete(limited)
      limited.expire()
    }
    if (row.waiting.size === 0) this.#clear(row)
    else if (row.disarm === undefined) this.#arm(row)
  }
}
