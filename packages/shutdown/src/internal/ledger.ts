/**
 * What a shutdown waits for, by name, and what became of it.
 *
 * Invariants
 * 1. Each fiber is entered once, however often it is seen. A task that began during the shutdown and ended by itself is
 *    kept as a number beside its name: a server that still answers thousands while it drains does not fill the memory.
 * 2. It is cancelled iff its cell was when it ended; abandoned iff it had not ended when the report was made. The
 *    program, which does not end by itself, counts as drained when nothing had to be forced.
 * 3. Clean-up that overran its budget is listed from the registry of stuck work, without the tasks that are listed here
 *    already.
 */
import type { CancelReason } from "@curfew/reason"
import type { CancelCell } from "@curfew/reason/CancelCell"
import { failureOf, type StuckRecord } from "@curfew/scope"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Fate, ReportItem } from "../Report.ts"

interface Entry {
  readonly name: string
  readonly kind: "main" | "task" | "hook"
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly since: number
  endedAt: number | undefined
  cancelled: boolean
  failed: boolean
}

interface Folded {
  count: number
  longest: number
}

export class Ledger {
  readonly #now: () => number
  readonly #entries = new Map<Fiber.Fiber<unknown, unknown>, Entry>()
  /** By name, the tasks that began and ended by themselves during the shutdown. */
  readonly #folded = new Map<string, Folded>()

  constructor(now: () => number) {
    this.#now = now
  }

  enter(
    kind: Entry["kind"],
    name: string,
    fiber: Fiber.Fiber<unknown, unknown>,
    cell: CancelCell | undefined,
    late = false
  ): void {
    if (this.#entries.has(fiber)) return
    const entry: Entry = {
      name,
      kind,
      fiber,
      since: this.#now(),
      endedAt: undefined,
      cancelled: false,
      failed: false
    }
    this.#entries.set(fiber, entry)
    fiber.addObserver((exit) => {
      entry.endedAt = this.#now()
      // A task that ends by itself is out of the tree before anybody is told, so a cancel after that is not its own.
      const reason = cell?.reason
      entry.cancelled = reason !== undefined && !(kind === "main" && drainedByShutdown(reason))
      entry.failed = exit._tag === "Failure" && failureOf(exit.cause) !== undefined
      if (late && !entry.cancelled && !entry.failed) this.#fold(entry)
    })
  }

  #fold(entry: Entry): void {
    this.#entries.delete(entry.fiber)
    const took = (entry.endedAt as number) - entry.since
    const folded = this.#folded.get(entry.name)
    if (folded === undefined) this.#folded.set(entry.name, { count: 1, longest: took })
    else {
      folded.count++
      folded.longest = Math.max(folded.longest, took)
    }
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

  items(stuck: ReadonlyArray<StuckRecord>, wallNow: number): ReadonlyArray<ReportItem> {
    const now = this.#now()
    const listed: Array<string> = []
    const items = [...this.#entries.values()].map((entry): ReportItem => {
      const fate: Fate = entry.endedAt === undefined ? "abandoned" : entry.cancelled ? "cancelled" : "drained"
      if (fate === "abandoned") listed.push(entry.name)
      const took = Duration.millis((entry.endedAt ?? now) - entry.since)
      return { name: entry.name, kind: entry.kind, fate, took, failed: entry.failed, count: 1 }
    })
    for (const [name, { count, longest }] of this.#folded) {
      const took = Duration.millis(longest)
      items.push({ name, kind: "task", fate: "drained", took, failed: false, count })
    }
    for (const { kind, name = "unnamed", startedAt } of stuck) {
      const at = kind === "task" ? listed.indexOf(name) : -1
      if (at >= 0) {
        listed.splice(at, 1)
        continue
      }
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

const rank: Readonly<Record<Fate, number>> = { abandoned: 0, cancelled: 1, drained: 2 }

const byUrgency = (a: ReportItem, b: ReportItem): number =>
  rank[a.fate] - rank[b.fate] ||
  Duration.toMillis(b.took) - Duration.toMillis(a.took) ||
  (a.name < b.name ? -1 : 1)
