import type * as Metric from "effect/Metric"
import { cancelledMetric, cleanupMetric } from "./internal/telling.ts"

/**
 * How much running work was told to stop, by the attributes `kind` (`scope`, `task`, `call`, `shared`, `shield`) and
 * `reason` (the tag).
 *
 * **Gotchas**
 *
 * One cancel of a scope with ten tasks counts eleven: each piece of work that ran and was signalled. What was never
 * started, and what finished first, is not counted.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Metric from "effect/Metric"
 * import { CancelReason, cancelledTotal } from "@curfew/reason"
 * import { CancelScope } from "@curfew/scope"
 *
 * const program = Effect.gen(function* () {
 *   yield* CancelScope.run((scope) => Effect.andThen(scope.cancel(CancelReason.Superseded()), Effect.never))
 *   const series = Metric.withAttributes(cancelledTotal, { kind: "scope", reason: "Superseded" })
 *   return (yield* Metric.value(series)).count
 * }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
 * Effect.runSync(program) // => 1
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const cancelledTotal: Metric.Counter<number> = /* @__PURE__ */ cancelledMetric()

/**
 * How long work took from its cancel to its end, in milliseconds, by the attribute `kind`; bounded clean-up, kind
 * `cleanup`, from its beginning to its end.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const cleanupMillis: Metric.Histogram<number> = /* @__PURE__ */ cleanupMetric()

/**
 * Has cancels counted and spans told of them, from now on. Programs that load the packages as they are have it from the
 * start. A bundler leaves out what nobody mentions: a bundle has it once it mentions one of these metrics, a tracing
 * layer, a shutdown, or this.
 *
 * **Example**
 *
 * ```ts
 * import { tellCancels } from "@curfew/reason"
 *
 * tellCancels()
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const tellCancels = (): void => {
  cancelledMetric()
}
