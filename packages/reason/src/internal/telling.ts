/**
 * Telling metrics and spans that work was cancelled, and that it has ended.
 *
 * Invariants
 * 1. It costs nothing where nothing is cancelled: it is called for cells that were signalled, and for clean-up.
 * 2. It runs after every interrupt of a cancel is pending and before any finalizer runs, so that what it calls, a
 *    tracer of the user's, comes between no two signals.
 * 3. A span is told once per cancel, however many of the signalled fibers it is the current one of. It is not told that
 *    it was cancelled itself: whether it ends by that is known at its end only.
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import type * as Tracer from "effect/Tracer"
import { attributes } from "../attributes.ts"
import { cancelledTotal, cleanupMillis } from "../CancelMetrics.ts"
import type { CancelReason } from "../CancelReason.ts"

// One metric per series: making one with attributes costs more than updating it.
const counters = /* @__PURE__ */ new Map<string, Metric.Metric<number, unknown>>()
const histograms = /* @__PURE__ */ new Map<string, Metric.Metric<number, unknown>>()

const seriesOf = (
  known: Map<string, Metric.Metric<number, unknown>>,
  metric: Metric.Metric<number, unknown>,
  key: string,
  labels: () => Record<string, string>
): Metric.Metric<number, unknown> => {
  const found = known.get(key)
  if (found !== undefined) return found
  const made = Metric.withAttributes(metric, labels())
  known.set(key, made)
  return made
}

/** Work of this kind was signalled. */
export const signalled = (kind: string, reason: CancelReason, context: Context.Context<never>): void =>
  seriesOf(counters, cancelledTotal, `${kind}/${reason._tag}`, () => ({
    kind,
    reason: reason._tag
  })).updateUnsafe(1, context)

/** Signalled work, or clean-up, of this kind ended after so many milliseconds. */
export const ended = (kind: string, millis: number, context: Context.Context<never>): void =>
  seriesOf(histograms, cleanupMillis, kind, () => ({ kind })).updateUnsafe(millis, context)

/** Adds the event `cancelled` to the span that the fiber is in, unless it has been told already. */
export const tellSpan = (
  told: Set<Tracer.Span>,
  fiber: Fiber.Fiber<unknown, unknown>,
  reason: CancelReason,
  scope: string | undefined
): void => {
  const { span } = fiber.cache
  if (span?._tag !== "Span" || span.status._tag === "Ended" || told.has(span)) return
  told.add(span)
  const at = fiber.getRef(Clock.Clock).currentTimeNanosUnsafe()
  span.event("cancelled", at, attributes(reason, scope))
}
