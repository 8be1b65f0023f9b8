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
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import type * as Tracer from "effect/Tracer"
import { attributes } from "../attributes.ts"
import type { CancelReason } from "../CancelReason.ts"
import { cancelledBy } from "../Outer.ts"
import { counterLike, seriesOf } from "../seriesOf.ts"
import { type Witness, witness } from "./witness.ts"

interface Told {
  readonly cancelled: Metric.Counter<number>
  readonly cleanup: Metric.Histogram<number>
}

let told: Told | undefined

/** The metrics, which are counted and with which spans are told from their first mention on. */
const metrics = (): Told => {
  if (told !== undefined) return told
  told = {
    cancelled: Metric.counter("curfew_cancelled_total", {
      description: "Running work that was told to stop.",
      incremental: true
    }),
    cleanup: cleanupWith({})
  }
  witness.current = telling(told)
  return told
}

export const cancelledMetric = (): Metric.Counter<number> => metrics().cancelled

export const cleanupMetric = (): Metric.Histogram<number> => metrics().cleanup

const cleanupWith = (attributes: Readonly<Record<string, string>>): Metric.Histogram<number> =>
  Metric.histogram("curfew_cleanup_milliseconds", {
    description: "From the cancel of work to its end.",
    boundaries: [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000],
    attributes
  })

const telling = (told: Told): Witness => {
  const cancelled = seriesOf(counterLike(told.cancelled), "kind", "reason")
  const cleanup = seriesOf(cleanupWith, "kind")
  // Work that is cancelled after other work is mostly of the same kind, for the same reason.
  let kindOf: string | undefined
  let tagOf: string | undefined
  let series!: ReturnType<typeof cancelled>
  let endedKind: string | undefined
  let endedSeries!: ReturnType<typeof cleanup>
  const count = (kind: string, tag: string, fiber: Fiber.Fiber<unknown, unknown>): void => {
    if (kind !== kindOf || tag !== tagOf) {
      series = cancelled(kind, tag)
      kindOf = kind
      tagOf = tag
    }
    series.updateUnsafe(1, fiber.context)
  }
  return {
    cancel: (reason, cell) => {
      let told: Set<Tracer.Span> | undefined
      const tell = (kind: string, fiber: Fiber.Fiber<unknown, unknown>): void => {
        const { span } = fiber.cache
        if (span?._tag === "Span" && span.status._tag !== "Ended" && told?.has(span) !== true) {
          told ??= new Set()
          told.add(span)
          try {
            tellSpan(span, fiber, reason, cancelledBy(cell))
          } finally {
            count(kind, reason._tag, fiber)
          }
        } else count(kind, reason._tag, fiber)
      }
      return tell
    },
    ended: (kind, millis, fiber) => {
      if (kind !== endedKind) {
        endedSeries = cleanup(kind)
        endedKind = kind
      }
      endedSeries.updateUnsafe(millis, fiber.context)
    }
  }
}

const tellSpan = (
  span: Tracer.Span,
  fiber: Fiber.Fiber<unknown, unknown>,
  reason: CancelReason,
  scope: string | undefined
): void => {
  const at = fiber.getRef(Clock.Clock).currentTimeNanosUnsafe()
  span.event("cancelled", at, attributes(reason, scope))
}
