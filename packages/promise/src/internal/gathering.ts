/**
 * Items of a gather as most of them are: all succeed, and nobody cancels them. They have no fiber.
 *
 * Invariants
 * 1. They stand in the live tree as a gather with fibers does: below its own cell, each by its place. Their cells are made when
 *    somebody looks.
 * 2. A failure is for the fiber as well: it is made first, with all that runs, and then told. What has succeeded by then
 *    is a value to it, and what has not started starts there.
 * 3. No more run at once than were allowed.
 */
import * as Gather from "@curfew/gather"
import { CancelCell, keepUnsafe, uptime } from "@curfew/reason/CancelCell"
import type { Owner } from "@curfew/scope"
import type * as TaskScope from "@curfew/scope/TaskScope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Gatherable, GatherItem } from "../gather.ts"
import type { Work } from "../Options.ts"
import { begin } from "./bridge.ts"
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
  if (seat === undefined) return undefined
  if (!keeps) {
    keeps = true
    const empty = { context: Context.empty(), tasks: undefined as never, name: undefined }
    const kept = new Gathering(empty, { keys: undefined, items: [] }, {})
    keepUnsafe(kept)
    keepUnsafe(new Item(() => {}, { keys: undefined, items: [] }, 0, kept, 0))
  }
  return new Gathering(start, parts, options).begin(seat, start.signal, concurrency)
}

let keeps = false

class Item extends Run<unknown> {
  readonly i: number
  readonly #parts: Parts
  /** When it began, in milliseconds. */
  readonly since: number
  /** Made when somebody looks. */
  cell: CancelCell | undefined = undefined

  constructor(work: Work<unknown>, parts: Parts, i: number, host: Gathering, since: number) {
    super(work, undefined, host)
    this.i = i
    this.#parts = parts
    this.since = since
  }

  protected override get settling() {
    return settlingOf(this.#parts, this.#parts.items[this.i] as Work<unknown>, this.i)
  }
}

/** What the items stand below. */
class Whole extends CancelCell {
  readonly #gathering: Gathering

  constructor(parent: CancelCell, gathering: Gathering) {
    super("tasks", { name: "gather", parent })
    this.#gathering = gathering
  }

  override reveal(): void {
    this.#gathering.reveal(this)
  }
}

class Gathering extends Seated<unknown> {
  readonly #parts: Parts
  readonly #options: GatherOptions
  #whole: Whole | undefined = undefined
  /** What has succeeded has its result here, and what has no work stands here from the start. */
  readonly #results: Array<unknown>
  /** By their places. */
  readonly #items: Array<Item | undefined>
  #running = 0
  #next = 0
  #concurrency = 0

  constructor(start: Start, parts: Parts, options: GatherOptions) {
    super(start)
    this.#parts = parts
    this.#options = options
    this.#results = [...parts.items]
    this.#items = new Array(parts.items.length)
  }

  begin(seat: TaskScope.Place, signal: AbortSignal | undefined, concurrency: number): Promise<unknown> {
    const cell = this.sit(seat, signal)
    this.#whole = new Whole(cell, this)
    this.#concurrency = concurrency
    this.#startMore()
    return this.promise
  }

  #startMore(): void {
    const { items } = this.#parts
    if (this.#next >= items.length) return
    const now = uptime()
    while (this.#next < items.length && this.#running < this.#concurrency) {
      const i = this.#next++
      const work = items[i]
      if (work === null || work === undefined) continue
      const item = new Item(work, this.#parts, i, this, now)
      this.#items[i] = item
      this.#running++
      begin(item)
    }
  }

  /** Somebody looks at the items. */
  reveal(whole: CancelCell): void {
    const { keys } = this.#parts
    for (const item of this.runs)
      item.cell ??= new CancelCell("task", {
        name: `gather[${keys?.[item.i] ?? item.i}]`,
        parent: whole,
        age: uptime() - item.since
      })
  }

  over(run: AnyRun, result: PromiseSettledResult<unknown>): void {
    // Whoever answers for it is told next.
    if (result.status === "rejected") {
      this.fill()
      return
    }
    const { cell, i } = run as Item
    this.#results[i] = result.value
    this.#items[i] = undefined
    this.#running--
    cell?.unlink()
    this.#startMore()
    if (this.#running > 0) return
    this.#whole?.unlink()
    this.end(Exit.succeed(arranged(this.#parts.keys, this.#results)))
  }

  protected get runs(): ReadonlyArray<Item> {
    return this.#items.filter((item) => item !== undefined)
  }

  protected work(): Effect.Effect<unknown, unknown, Owner> {
    for (const { cell } of this.runs) cell?.unlink()
    this.#whole?.unlink()
    return gatherAll(this.#parts, this.#options, (work, i) => {
      const item = this.#items[i]
      if (item !== undefined) return enter(item)
      return i < this.#next ? Effect.succeed(this.#results[i]) : settleItem(this.#parts, work, i)
    })
  }
}
