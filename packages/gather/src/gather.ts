import type { Owner, TaskScope } from "@curfew/scope"
import { countUnsafe } from "@curfew/scope/Argument"
import { ownerOfUnsafe } from "@curfew/scope/Owner"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { ChildCancelled } from "./ChildCancelled.ts"
import type { ErrorOf, Gatherable, GatherableLike, Gathered, NoItem, ServicesOf } from "./Gatherable.ts"
import { type Entry, runAll } from "./internal/runAll.ts"

/**
 * Runs items side by side and gives their results in the same shape, or the first failure, unwrapped.
 *
 * **Guarantees**
 *
 * - **Shape (L20)**: order, keys and holes are kept; `undefined` in gives `undefined` out, and so for `null` and
 *   `Option`.
 * - **Unwrapped (L21)**: the first failure in time comes out as it is. Failures of siblings are an annotation on it
 *   (`siblingFailures` reads it), never reasons of its cause, and each reaches `OnUnhandled` once.
 * - **Foreign interrupts are typed (L22)**: an item that somebody else interrupted fails the gather with
 *   {@link ChildCancelled}.
 * - **Nothing left (L23)**: it returns only when no item runs. With `letFinish` those still running belong to the
 *   {@link Owner} from then on; if the owner is closed, the gather waits for them instead.
 *
 * **When cancelled**
 *
 * Every item is signalled in one turn; the gather ends with a pure interrupt after every item has ended.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
 * import { gather } from "@curfew/gather"
 *
 * const both = gather({ user: Effect.succeed("ada"), avatar: undefined })
 * Effect.runSync(both) // => { user: "ada", avatar: undefined }
 *
 * const failed = gather([Effect.never, Effect.fail("no route")])
 * Effect.runSync(Effect.flip(failed)) // => "no route"
 * ```
 *
 * @see TaskScope.use in `@curfew/scope` where the items are not known beforehand.
 * @stability unstable
 * @since 0.1.0
 */
export const gather: {
  <const G extends GatherableLike<G>>(
    items: G & NoItem<G>,
    options?: {
      /** How many items run at once: a whole number from 1 on. Default: all. */
      readonly concurrency?: number | "unbounded" | undefined
      /** What a failure does to the items that still run. Default: `cancel`. */
      readonly onFailure?: "cancel" | undefined
    }
  ): Effect.Effect<Gathered<G>, ErrorOf<G> | ChildCancelled, ServicesOf<G>>
  <const G extends GatherableLike<G>>(
    items: G & NoItem<G>,
    options: {
      readonly concurrency?: number | "unbounded" | undefined
      readonly onFailure?: "cancel" | "letFinish" | undefined
    }
  ): Effect.Effect<Gathered<G>, ErrorOf<G> | ChildCancelled, ServicesOf<G> | Owner>
} = <G extends GatherableLike<G>>(
  items: G,
  options?: {
    readonly concurrency?: number | "unbounded" | undefined
    readonly onFailure?: "cancel" | "letFinish" | undefined
  }
): Effect.Effect<Gathered<G>, ErrorOf<G> | ChildCancelled, ServicesOf<G>> =>
  Effect.withFiber((fiber) => {
    const limit = options?.concurrency ?? "unbounded"
    const concurrency =
      limit === "unbounded" ? Number.POSITIVE_INFINITY : countUnsafe("the concurrency of gather", limit, 1)
    const { assemble, entries } = flatten(items as Gatherable)
    const owner: TaskScope.TaskScope | undefined =
      options?.onFailure === "letFinish" ? ownerOfUnsafe(fiber.context) : undefined
    return Effect.map(runAll(fiber, entries, concurrency, owner), assemble)
  }) as Effect.Effect<Gathered<G>, ErrorOf<G> | ChildCancelled, ServicesOf<G>>

interface Flat {
  readonly entries: ReadonlyArray<Entry>
  readonly assemble: (results: ReadonlyArray<unknown>) => unknown
}

/** The work in the items, and how the results go back into their places. */
const flatten = (items: Gatherable): Flat => {
  const list = Symbol.iterator in items
  const keys = list ? undefined : Object.keys(items)
  const values: ReadonlyArray<unknown> = list ? [...items] : Object.values(items)
  const entries: Array<Entry> = []
  values.forEach((value, i) => {
    const index = keys === undefined ? i : (keys[i] as string)
    if (Effect.isEffect(value)) entries.push({ at: i, index, work: value as Entry["work"] })
    else if (Option.isOption(value) && Option.isSome(value)) {
      const { value: work } = value as Option.Some<Entry["work"]>
      entries.push({
        at: i,
        index,
        work: Exit.isExit(work) ? Exit.map(work, Option.some) : Effect.map(work, Option.some)
      })
    }
  })
  return {
    entries,
    assemble: (results) => {
      // The usual list holds nothing but work.
      if (keys === undefined && entries.length === values.length) return results
      const placed = [...values]
      entries.forEach(({ at }, i) => {
        placed[at] = results[i]
      })
      return keys === undefined ? placed : Object.fromEntries(keys.map((key, i) => [key, placed[i]]))
    }
  }
}
