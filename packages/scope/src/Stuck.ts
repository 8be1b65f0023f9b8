import type { CancelReason } from "@curfew/reason"
import { fieldsOf } from "@curfew/reason/CancelCell"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"

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
export const stuck: Effect.Effect<ReadonlyArray<StuckRecord>> = /* @__PURE__ */ Effect.sync(() =>
  stuckUnsafe()
)

export { takePosition } from "./internal/source.ts"

/**
 * The same from a callback.
 *
 * @stability internal
 * @since 0.1.0
 */
export const stuckUnsafe = (): ReadonlyArray<StuckRecord> => [...registry.values()]

/**
 * How often work overran its clean-up budget and was left behind, by the attributes `kind` (`finalizer`, `task`) and
 * `reason` (the tag, or `none`). How much is stuck now is {@link liveGauge} with the state `stuck`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const stuckTotal: Metric.Counter<number> = /* @__PURE__ */ Metric.counter("curfew_stuck_total", {
  description: "Work that overran its clean-up budget and was left behind.",
  incremental: true
})

/**
 * Enters a record and counts it; the returned function takes it out again. Whoever enters it logs it, with
 * {@link logStuck} where nothing else does.
 *
 * @stability internal
 * @since 0.1.0
 */
export const enterUnsafe = (
  record: Omit<StuckRecord, "id">,
  context: Context.Context<never>
): (() => void) => {
  const id = ++lastId
  countUnsafe(stuckTotal, { kind: record.kind }, record.reason, context)
  registry.set(id, { id, ...record })
  return () => {
    registry.delete(id)
  }
}

/**
 * Counts one by the attribute `reason`, and others.
 *
 * @stability internal
 * @since 0.1.0
 */
export const countUnsafe = (
  total: Metric.Counter<number>,
  labels: Record<string, string>,
  reason: CancelReason | undefined,
  context: Context.Context<never>
): void =>
  Metric.withAttributes(total, { ...labels, reason: reason?._tag ?? "none" }).updateUnsafe(1, context)

/**
 * Says in each line that is logged why the work was being cancelled, if it was.
 *
 * @stability internal
 * @since 0.1.0
 */
export const loggingWhy = <A, E, R>(
  lines: Effect.Effect<A, E, R>,
  reason: CancelReason | undefined
): Effect.Effect<A, E, R> => (reason === undefined ? lines : Effect.annotateLogs(lines, fieldsOf(reason)))

/**
 * The kind of a work with its name, for a sentence.
 *
 * @stability internal
 * @since 0.1.0
 */
export const named = (kind: string, name: string | undefined): string =>
  name === undefined ? kind : `${kind} "${name}"`

/**
 * Logs a warning about work that was left behind.
 *
 * @stability internal
 * @since 0.1.0
 */
export const logStuck = (
  record: Pick<StuckRecord, "kind" | "name" | "reason" | "source">
): Effect.Effect<void> =>
  loggingWhy(
    Effect.logWarning(
      `This ${named(record.kind, record.name)} overran its clean-up budget and was left behind; make it end once it is cancelled, or give it a longer budget.${
        record.source === undefined ? "" : ` It was called at ${record.source}.`
      }`
    ),
    record.reason
  )
