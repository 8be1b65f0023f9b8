/**
 * What a shutdown waits for, by name, and what became of it.
 *
 * Invariants
 * 1. Each fiber is entered once, however often it is seen. A task that began during the shutdown and ended by itself is
 *    kept as a number beside its name: a server that still answers thousands while it drains does not fill the memory.
 * 2. It is cancelled iff its cell was when it ended; abandoned iff it had not ended when the report was made. The
 *    program, which does not end by itself, counts as drained when nothing had to be forced.
 * 3. A task has failed iff nobody took its failure: an answer that an edge has sent is none. Nobody takes a hook's, and
 *    the program's is the exit of the whole.
 * 4. What is one to its owner is one item: the hooks of a name, and a call with the task of its name that waits for it.
 * 5. Clean-up that overran its budget is listed from the registry of stuck work, without the tasks that are listed here
 *    already.
 */
import type { CancelReason } from "@curfew/reason"
import type { Cell } from "@curfew/reason/CancelCell"
import { failureOf, type StuckRecord } from "@curfew/scope"
import { isUnhandledUnsafe } from "@curfew/scope/OnUnhandled"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Fate, ReportItem } from "../Report.ts"

interface Entry {
  readonly name: string | undefined
  readonly kind: "main" | "task" | "hook"
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly cell: Cell | undefined
  /** It began during the shutdown. */
  readonly late: boolean
  readonly since: number
  endedAt: number | undefined
  cancelled: boolean
  failed: boolean
}

const unnamed = "unnamed"

interface Folded {
  count: number
  longest: number
}

export class Ledger {
  readonly #now: () => number
  readonly #entries = new Map<Fiber.Fiber<unknown, unknown>, Entry>()
  /** By name, the tasks that began and ended by themselves during the shutdown. */
  readonly #folded = new Map<string, Folded>()
  /** By the cell of the task that waits for it and sends the answer. */
  readonly #calls = new WeakMap<Cell, Entry>()

  constructor(now: () => number) {
    this.#now = now
  }

  enter(
    kind: Entry["kind"],
    name: string | undefined,
    fiber: Fiber.Fiber<unknown, unknown>,
    cell: Cell | undefined,
    late = false
  ): void {
    if (this.#entries.has(fiber)) return
    const edge = kind === "task" && cell !== undefined ? edgeOf(cell) : undefined
    const around = edge?.fiber === undefined ? undefined : this.#entries.get(edge.fiber)
    const entry: Entry = {
      name,
      kind,
      fiber,
      cell,
      // A call is as old as the task that waits for it.
      late: late && around?.late !== false,
      since: this.#now(),
      endedAt: undefined,
      cancelled: false,
      failed: false
    }
    this.#entries.set(fiber, entry)
    if (edge !== undefined) this.#calls.set(edge, entry)
    fiber.addObserver((exit) => {
      entry.endedAt = this.#now()
      // A task that ends by itself is out of the tree before anybody is told, so a cancel after that is not its own.
      const reason = cell?.reason
      entry.cancelled = reason !== undefined && !(kind === "main" && drainedByShutdown(reason))
      entry.failed = exit._tag === "Failure" && failureOf(exit.cause) !== undefined
      // The failure of a task may have gone to whoever waited for it.
      if (kind === "task" && cell !== undefined && !isUnhandledUnsafe(cell)) entry.failed = false
      if (entry.late && !entry.cancelled && !entry.failed) this.#fold(entry)
    })
  }

  #fold(entry: Entry): void {
    this.#entries.delete(entry.fiber)
    // Its call is counted.
    if (this.#callOf(entry) !== undefined) return
    const took = (entry.endedAt as number) - entry.since
    const name = entry.name ?? unnamed
    const folded = this.#folded.get(name)
    if (folded === undefined) this.#folded.set(name, { count: 1, longest: took })
    else {
      folded.count++
      folded.longest = Math.max(folded.longest, took)
    }
  }

  #callOf({ cell }: Entry): Entry | undefined {
    return cell === undefined ? undefined : this.#calls.get(cell)
  }

  /** What has an item of its own, with what stands in the same item. */
  #items(): ReadonlyArray<ReadonlyArray<Entry>> {
    const items = new Map<unknown, Array<Entry>>()
    for (const entry of this.#entries.values()) {
      const call = this.#callOf(entry)
      const known = call !== undefined && this.#entries.has(call.fiber) ? call : entry
      const key = entry.kind === "hook" ? entry.name : known
      const item = items.get(key)
      if (item === undefined) items.set(key, [entry])
      else item.push(entry)
    }
    return [...items.values()]
  }

  /** Waits until everything entered has ended, what is entered meanwhile included. */
  awaitAll(kinds?: ReadonlyArray<Entry["kind"]>): Effect.Effect<void> {
    return Effect.suspend(() => {
      for (const { endedAt, fiber, kind } of this.#entries.values()) {
        if (endedAt !== undefined || kinds?.includes(kind) === false) continue
        return Effect.flatMap(awaitFiber(fiber), () => this.awaitAll(kinds))
      }
      return Effect.void
    })
  }

  /** `owner` is the name under which a task without one is stuck. */
  items(stuck: ReadonlyArray<StuckRecord>, wallNow: number, owner: string): ReadonlyArray<ReportItem> {
    const now = this.#now()
    const listed: Array<string> = []
    /** The names of calls that are waited for by clean-up of that name. */
    const calls = new Set<string>()
    const items = this.#items().map((entries): ReportItem => {
      const [{ kind, name = unnamed }] = entries as readonly [Entry]
      for (const { cell, endedAt, name: given } of entries) {
        if (endedAt !== undefined) continue
        listed.push(given ?? owner)
        if (cell?.kind === "call") calls.add(name)
      }
      const [fate = "drained"] = entries.map(fateOf).sort((a, b) => rank[a] - rank[b])
      const ended = Math.max(...entries.map(({ endedAt }) => endedAt ?? now))
      const took = Duration.millis(ended - Math.min(...entries.map(({ since }) => since)))
      return { name, kind, fate, took, failed: entries.some(({ failed }) => failed), count: 1 }
    })
    for (const [name, { count, longest }] of this.#folded) {
      const took = Duration.millis(longest)
      items.push({ name, kind: "task", fate: "drained", took, failed: false, count })
    }
    for (const { kind, name = unnamed, startedAt } of stuck) {
      const at = kind === "task" ? listed.indexOf(name) : -1
      if (at >= 0) {
        listed.splice(at, 1)
        continue
      }
      if (kind !== "task" && calls.has(name)) continue
      const took = Duration.millis(wallNow - startedAt)
      items.push({
        name,
        kind: kind === "task" ? "task" : "clean-up",
        fate: "abandoned",
        took,
        failed: false,
        count: 1
      })
    }
    return items.sort(byUrgency)
  }
}

const awaitFiber = (fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> =>
  Effect.callback((resume) => Effect.sync(fiber.addObserver(() => resume(Effect.void))))

const drainedByShutdown = (reason: CancelReason): boolean =>
  reason._tag === "Shutdown" && reason.phase === "drain"

/** The task that a call is answered by: the one around it that has its name. */
const edgeOf = (cell: Cell): Cell | undefined => {
  if (cell.kind !== "call") return undefined
  let around = cell.outer
  while (around !== undefined && (around.kind !== "task" || around.name !== cell.name)) around = around.parent
  return around
}

const fateOf = ({ cancelled, endedAt }: Entry): Fate =>
  endedAt === undefined ? "abandoned" : cancelled ? "cancelled" : "drained"

const rank: Readonly<Record<Fate, number>> = { abandoned: 0, cancelled: 1, drained: 2 }

const byUrgency = (a: ReportItem, b: ReportItem): number =>
  rank[a.fate] - rank[b.fate] ||
  Duration.toMillis(b.took) - Duration.toMillis(a.took) ||
  (a.name < b.name ? -1 : 1)
