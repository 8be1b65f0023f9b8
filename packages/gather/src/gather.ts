import type { Owner, TaskScope } from "@curfew/scope"
import { countUnsafe } from "@curfew/scope/Argument"
import { ownerOfUnsafe } from "@curfew/scope/Owner"
import * as Effect from "effect/Effect"
import type { ChildCancelled } from "./ChildCancelled.ts"
import type { ErrorOf, Gatherable, GatherableLike, Gathered, NoItem, ServicesOf } from "./Gatherable.ts"
import { runAll } from "./internal/runAll.ts"

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
    const given = items as Gatherable
    const list = Symbol.iterator in given
    const owner: TaskScope.TaskScope | undefined =
      options?.onFailure === "letFinish" ? ownerOfUnsafe(fiber.context) : undefined
    return runAll(
      fiber,
      list ? [...given] : Object.values(given),
      list ? undefined : Object.keys(given),
      concurrency,
      owner
    )
  }) as Effect.Effect<Gathered<G>, ErrorOf<G> | ChildCancelled, ServicesOf<G>>
