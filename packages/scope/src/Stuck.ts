import type { CancelReason } from "@curfew/reason"
import * as Effect from "effect/Effect"

/**
 * A piece of work that outlived its clean-up budget and was left behind.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface StuckRecord {
  readonly id: number
  readonly kind: "finalizer" | "task"
  readonly name: string | undefined
  /** Why the work was to end, when that is known. */
  readonly reason: CancelReason | undefined
  /** The name of the span the work ran in. */
  readonly span: string | undefined
  /** Wall clock, milliseconds since 1970, when the clean-up began. */
  readonly startedAt: number
  /** Where in the program's source it was called, when that is known. */
  readonly source: string | undefined
}

const registry = /* @__PURE__ */ new Map<number, StuckRecord>()
let lastId = 0

/**
 * All work of this process that is stuck now: it overran its clean-up budget and has not ended since.
 *
 * **Guarantees**
 *
 * - **One record an overrun**: entered when the budget is used up, taken out when the work ends after all.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { stuck } from "@curfew/scope"
 *
 * Effect.runSync(stuck) // => []
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const stuck: Effect.Effect<ReadonlyArray<StuckRecord>> = /* @__PURE__ */ Effect.sync(() => [
  ...registry.values()
])

export { takePosition } from "./internal/source.ts"

/**
 * Enters a record; the returned function takes it out again.
 *
 * @stability internal
 * @since 0.1.0
 */
export const enterUnsafe = (record: Omit<StuckRecord, "id">): (() => void) => {
  const id = ++lastId
  registry.set(id, { id, ...record })
  return () => {
    registry.delete(id)
  }
}
