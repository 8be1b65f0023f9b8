/**
 * What a server has under way, and who waits for it to end.
 *
 * Invariants
 * 1. What was let in leaves once: with the end of its request.
 * 2. What several servers have under way together stops with the first of them, and is told once, with the last.
 * 3. Who waits for the last one is told in the turn in which it leaves.
 */
import type { CancelReason } from "@curfew/reason"
import * as Effect from "effect/Effect"
import { endTurn } from "./turn.ts"

/**
 * Entries, linked through themselves. A `Set` that is always in use grows old, and each table that it has grown out of keeps
 * the requests that stood in it until the collector looks at old objects.
 */
class Entries implements Iterable<Entry> {
  #first: Entry | undefined
  #last: Entry | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  add(entry: Entry): void {
    entry.before = this.#last
    if (this.#last === undefined) this.#first = entry
    else this.#last.after = entry
    this.#last = entry
    entry.entered = true
    this.#size++
  }

  /** True iff it stood here. */
  delete(entry: Entry): boolean {
    if (!entry.entered) return false
    const { after, before } = entry
    if (before === undefined) this.#first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    // A dead entry must not keep its neighbours.
    entry.before = undefined
    entry.after = undefined
    entry.entered = false
    this.#size--
    return true
  }

  /** Those that stand here now, whatever leaves meanwhile. */
  [Symbol.iterator](): Iterator<Entry> {
    const all: Array<Entry> = []
    for (let entry = this.#first; entry !== undefined; entry = entry.after) all.push(entry)
    return all[Symbol.iterator]()
  }
}

/** One exchange, or one socket that was upgraded. */
export interface Entry {
  /** Where it stands, for `Entries` alone. */
  entered: boolean
  before: Entry | undefined
  after: Entry | undefined
  readonly id: string
  readonly method: string
  readonly url: string
  readonly transport: "http1" | "http2" | "ws"
  /** Cancels it, whatever its policy. */
  readonly stop: (reason: CancelReason) => void
  /** The server stops: what answers from now on says so. */
  readonly stopping: () => void
  /** Nobody waits for it any more: its record comes now, and says so. */
  readonly abandon: Effect.Effect<void>
}

export class Table {
  readonly entries = new Entries()
  refusing = false
  /** The servers whose requests these are, and that have not ended. */
  servers = 0
  /** What was under way when the first of them stopped, and what of it was cancelled. */
  readonly atStop = new Set<Entry>()
  readonly atForce = new Set<Entry>()
  readonly #waiters = new Set<() => void>()
  readonly #watchers = new Set<() => void>()
  #ids = 0

  nextId(): string {
    return `http-${this.nextNumber()}`
  }

  /** The number in an id, for whom mostly nobody asks for the whole of it. */
  nextNumber(): number {
    this.#ids++
    return this.#ids
  }

  /** How much is under way now. */
  get size(): number {
    endTurn()
    return this.entries.size
  }

  enter(entry: Entry): void {
    this.entries.add(entry)
  }

  /** Nothing is let in any more. */
  refuse(): void {
    if (this.refusing) return
    // What has ended in this very turn is not under way any more.
    endTurn()
    this.refusing = true
    for (const entry of this.entries) {
      this.atStop.add(entry)
      entry.stopping()
    }
  }

  leave(entry: Entry): void {
    if (!this.entries.delete(entry)) return
    if (this.#watchers.size > 0) for (const watcher of this.#watchers) watcher()
    if (this.entries.size === 0 && this.#waiters.size > 0) for (const waiter of [...this.#waiters]) waiter()
  }

  /** Calls back each time something leaves. Returns the removal. */
  onLeave(watcher: () => void): () => void {
    this.#watchers.add(watcher)
    return () => {
      this.#watchers.delete(watcher)
    }
  }

  readonly idle: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.entries.size === 0) return resume(Effect.void)
    const waiter = (): void => {
      this.#waiters.delete(waiter)
      resume(Effect.void)
    }
    this.#waiters.add(waiter)
    return Effect.sync(() => {
      this.#waiters.delete(waiter)
    })
  })
}
