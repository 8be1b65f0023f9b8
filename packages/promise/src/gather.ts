import { rejected } from "./internal/bridge.ts"
import { gatherAll, gatherLightly, partsOf, settleItem } from "./internal/gathering.ts"
import { launch, launchLightly } from "./internal/launch.ts"
import type { WorkOptions } from "./Options.ts"

/**
 * An item of a gather: a promise function, or a hole that stays where it is.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type GatherItem = ((signal: AbortSignal) => unknown) | null | undefined

/**
 * What `gather` takes: a tuple, a record or an iterable of items.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Gatherable =
  | ReadonlyArray<GatherItem>
  | Iterable<GatherItem>
  | Readonly<Record<string, GatherItem>>

type Result<I> = I extends (...args: ReadonlyArray<never>) => infer A ? Awaited<A> : I

/**
 * What `gather` gives: the same shape with the results in place.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Gathered<G> =
  G extends ReadonlyArray<unknown>
    ? { -readonly [K in keyof G]: Result<G[K]> }
    : G extends Iterable<infer I>
      ? Array<Result<I>>
      : { -readonly [K in keyof G]: Result<G[K]> }

/**
 * Runs promise functions side by side and gives their results in the same shape, or the first error, unwrapped.
 *
 * **Guarantees**
 *
 * - **Shape (L20)**: order, keys and holes are kept; `undefined` in gives `undefined` out, and so for `null`.
 * - **Unwrapped (L21)**: the first error in time comes out as it is. Those of siblings hang beside it
 *   (`siblingFailures(error)`), and each reaches `onUnhandled` once.
 * - **Foreign cancellations are typed (L22)**: an item that somebody else cancelled is a `ChildCancelled`.
 * - **Nothing left (L23)**: it settles only when no item runs. With `onFailure: "letFinish"` those still running belong to
 *   the owner from then on.
 *
 * **When cancelled**
 *
 * Every item's signal is aborted in one turn; the promise rejects with {@link Cancelled} when every item has settled.
 *
 * **Gotchas**
 *
 * Items are functions: a promise that runs already cannot be told to stop, and is refused with a `TypeError`.
 *
 * **Example**
 *
 * ```ts
 * import { gather } from "@curfew/promise"
 *
 * await gather({ user: async () => "ada", avatar: undefined }) // => { user: "ada", avatar: undefined }
 *
 * const log: Array<string> = []
 * const hangs = (signal: AbortSignal) =>
 *   new Promise<never>((_, reject) => {
 *     signal.addEventListener("abort", () => {
 *       log.push(signal.reason.reason._tag)
 *       reject(signal.reason)
 *     })
 *   })
 * const fails = () => Promise.reject("no route")
 * await gather([hangs, fails]).catch((error) => error) // => "no route"
 * log // => ["SiblingFailed"]
 * ```
 *
 * @see withCancelScope where the items are not known beforehand.
 * @stability unstable
 * @since 0.1.0
 */
export const gather = <const G extends Gatherable | { readonly [K in keyof G]: GatherItem }>(
  items: G,
  options?: WorkOptions & {
    /** How many items run at once. Default: all. */
    readonly concurrency?: number | undefined
    /** What an error does to the items that still run. Default: `cancel`. */
    readonly onFailure?: "cancel" | "letFinish" | undefined
  }
): Promise<Gathered<G>> => {
  try {
    const parts = partsOf(items as Gatherable)
    return (launchLightly(options, (start) => gatherLightly(start, parts, options ?? {})) ??
      launch(
        () => gatherAll(parts, options ?? {}, (item, i) => settleItem(parts, item, i)),
        options
      )) as Promise<Gathered<G>>
  } catch (error) {
    return rejected(error)
  }
}
