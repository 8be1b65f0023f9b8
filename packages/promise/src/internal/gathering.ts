/**
 * Items of a gather as most of them are: all succeed, and nobody cancels them. They have no fiber.
 *
 * Invariants
 * 1. They stand in the live tree as a gather with fibers does: below its own cell, each by its place.
 * 2. A failure is for the fiber as well: it is made first, with all that runs, and then told. What has succeeded by then
 *    is a value to it, and what has not started starts there.
 * 3. No more run at once than were allowed.
 */
import * as Gather from "@curfew/gather"
import { CancelCell } from "@curfew/reason/CancelCell"
import type { Owner } from "@curfew/scope"
import type * as TaskScope from "@curfew/scope/TaskScope"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Gatherable, GatherItem } from "../gather.ts"
import type { Work } from "../Options.ts"
import { type AnyRun, enter, Seated, type Start, seatOf } from "./light.ts"
import { Run, settle } from "./settle.ts"

/** The items in their order, each checked, and under which keys, if any, the results are given. */
export interface Parts {
  readonly keys: ReadonlyArray<string> | undefined
  readonly items: ReadonlyArray<GatherItem>
}

export const partsOf = (given: Gatherable): Parts => {
  const keys = Symbol.iterator in given ? undefined : Object.keys(given)
  const items: ReadonlyArray<GatherItem> = Symbol.iterator in given ? [...given] : Object.values(given)
  for (let i = 0; i < items.length; i++) {
    const item = items[i]
    if (item !== null && item !== undefined && typeof item !== "function")
      throw new TypeError(
        `The item at ${JSON.stringify(keys?.[i] ?? i)} is not a function; give gather functions that take a signal.`
      )
  }
  return { keys, items }
}

export interface GatherOptions {
  readonly concurrency?: number | undefined
  readonly onFailure?: "cancel" | "letFinish" | undefined
}

type Any = Effect.Effect<unknown, unknown>

/** Gathers with fibers; `effectOf` gives the effect of an item. */
export const gatherAll = (
  { items, keys }: Parts,
  { concurrency, onFailure }: GatherOptions,
  effectOf: (item: Work<unknown>, i: number) => Any
): Effect.Effect<unknown, unknown, Owner> => {
  const effects = items.map((item, i) => item && effectOf(item, i))
  return Gather.gather(arranged(keys, effects) as ReadonlyArray<Any>, { concurrency, onFailure })
}

const arranged = (keys: Parts["keys"], values: ReadonlyArray<unknown>): unknown =>
  keys === undefined ? values : Object.fromEntries(keys.map((key, i) => [key, values[i]]))

const settlingOf = ({ keys }: Parts, item: Work<unknown>, i: number) => ({
  name: item.name || `gather[${keys?.[i] ?? i}]`,
  failsLate: true
})

export const settleItem = (parts: Parts, item: Work<unknown>, i: number): Any =>
  settle(item, settlingOf(parts, item, i))

/** Starts the items in a place of the task scope; `undefined` where they take fibers. */
export const gatherLightly = (
  start: Start,
  parts: Parts,
  options: GatherOptions
): Promise<unknown> | undefined => {
  const { concurrency = Number.POSITIVE_INFINITY } = options
  // What is not a number of items is refused where fibers are.
  if (!(concurrency >= 1) || parts.items.every((item) => item === null || item === undefined))
    return undefined
  const seat = seatOf(start)
  return seat && new Gathering(seat, start, parts, options).begin(concurrency)
}

interface Item {
  readonly run: Run<unknown>
  readonly cell: CancelCell
}

class Gathering extends Seated<unknown> {
  readonly #parts: Parts
  readonly #options: GatherOptions
  readonly #whole: CancelCell
  /** What has succeeded has its result here, and what has no work stands here from the start. */
  readonly #results: Array<unknown>
  readonly #running = new Map<number, Item>()
  #next = 0

  constructor(seat: TaskScope.Place, start: Start, parts: Parts, options: GatherOptions) {
    super(seat, start)
    this.#parts = parts
    this.#options = options
    this.#results = [...parts.items]
    this.#whole = new CancelCell("tasks", { name: "gather", parent: this.cell })
  }

  begin(concurrency: number): Promise<unknown> {
    this.#startMore(concurrency)
    return this.promise
  }

  #startMore(concurrency: number): void {
    const { items, keys } = this.#parts
    while (this.#next < items.length && this.#running.size < concurrency) {
      const i = this.#next++
      const item = items[i]
      if (item === null || item === undefined) continue
      const run = new Run<unknown>(item, settlingOf(this.#parts, item, i), this)
      const cell = new CancelCell("task", { name: `gather[${keys?.[i] ?? i}]`, parent: this.#whole })
      this.#running.set(i, { run, cell })
      run.begin((result) => {
        if (result.status === "fulfilled") this.#succeeded(i, cell, result.value, concurrency)
        // Whoever answers for it is told next.
        else this.fill()
      })
    }
  }

  #succeeded(i: number, cell: CancelCell, value: unknown, concurrency: number): void {
    this.#results[i] = value
    this.#running.delete(i)
    cell.unlink()
    this.#startMore(concurrency)
    if (this.#running.size > 0) return
    this.#whole.unlink()
    this.end(Exit.succeed(arranged(this.#parts.keys, this.#results)))
  }

  protected get runs(): ReadonlyArray<AnyRun> {
    return [...this.#running.values()].map(({ run }) => run)
  }

  protected work(): Effect.Effect<unknown, unknown, Owner> {
    for (const { cell } of this.#running.values()) cell.unlink()
    this.#whole.unlink()
    return gatherAll(this.#parts, this.#options, (item, i) => {
      const running = this.#running.get(i)
      if (running !== undefined) return enter(running.run)
      return i < this.#next ? Effect.succeed(this.#results[i]) : settleItem(this.#parts, item, i)
    })
  }
}
