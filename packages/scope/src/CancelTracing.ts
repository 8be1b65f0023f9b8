import { attributes, fromCause, tellCancels } from "@curfew/reason"
import { CurrentCell } from "@curfew/reason/CancelCell"
import { cancelledBy } from "@curfew/reason/Outer"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"

/**
 * A tracer that stamps each span that ends by a cancellation with its reason, in front of the one that is given.
 *
 * **Guarantees**
 *
 * - **Every span**: those of `Effect.withSpan` and `Effect.fn` in a cancelled scope or task, in children that Effect
 *   alone forked there, and in items of a concurrent `all`, which see no reason of their own.
 * - **Cancelled only**: a success, a failure, a defect, and the loser of a race are left as they are.
 * - **Foreign is told apart**: work that only waited for what was cancelled elsewhere has
 *   `curfew.cancel.foreign` besides.
 *
 * | attribute | value |
 * | --- | --- |
 * | `curfew.cancel.reason`, `.message`, and the fields | as `attributes` of `@curfew/reason` says them |
 * | `curfew.cancel.scope` | the name of the scope that was cancelled |
 * | `curfew.cancel.foreign` | `true`, when the cancel was aimed at other work that this waited for |
 *
 * **Example**
 *
 * ```ts
 * import { CancelReason } from "@curfew/reason"
 * import { CancelScope, CancelTracing } from "@curfew/scope"
 * import * as Effect from "effect/Effect"
 * import * as Tracer from "effect/Tracer"
 *
 * const spans: Array<Tracer.NativeSpan> = []
 * const memory = Tracer.make({
 *   span: (options) => {
 *     const span = new Tracer.NativeSpan(options)
 *     spans.push(span)
 *     return span
 *   }
 * })
 * const program = CancelScope.run((scope) =>
 *   Effect.withSpan(Effect.andThen(scope.cancel(CancelReason.Superseded()), Effect.never), "lookup")
 * )
 * Effect.runSync(Effect.provideService(program, Tracer.Tracer, CancelTracing.stamping(memory)))
 * spans[0]?.attributes.get("curfew.cancel.reason") // => "Superseded"
 * ```
 *
 * @see layer to put it in front of the program's tracer.
 * @stability unstable
 * @since 0.1.0
 */
export const stamping = (tracer: Tracer.Tracer): Tracer.Tracer => {
  const { context } = tracer
  tellCancels()
  return Tracer.make({
    span: (options) => watch(tracer.span(options)),
    ...(context === undefined
      ? {}
      : { context: (primitive, fiber) => context.call(tracer, primitive, fiber) as never })
  })
}

/**
 * Puts {@link stamping} in front of the program's tracer.
 *
 * **Gotchas**
 *
 * It wraps the tracer that it finds: provide the exporter's layer to it, or around it.
 *
 * **Example**
 *
 * ```ts
 * import { CancelTracing } from "@curfew/scope"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.withSpan(Effect.succeed(1), "lookup")
 * Effect.runSync(Effect.provide(program, CancelTracing.layer)) // => 1
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const layer: Layer.Layer<never> = /* @__PURE__ */ Layer.effect(
  Tracer.Tracer,
  /* @__PURE__ */ Effect.map(Tracer.Tracer, stamping)
)

/** Replaces the span's own `end`: a span around it would hide the exporter's class from its children. */
const watch = (span: Tracer.Span): Tracer.Span => {
  const cell = Fiber.getCurrent()?.getRef(CurrentCell)
  // A race or a time-out in clean-up interrupts its losers without a reason, and they are not cancelled by the scope's.
  const before = cell?.reason
  const end = span.end
  span.end = (at, exit) => {
    if (exit._tag === "Failure" && span.status._tag !== "Ended") stamp(exit.cause)
    end.call(span, at, exit)
  }
  return span

  function stamp(cause: Cause.Cause<unknown>): void {
    if (!cause.reasons.some((reason) => reason._tag === "Interrupt")) return
    const own = before === undefined ? cell?.reason : undefined
    const carried = Option.getOrUndefined(fromCause(cause))
    const reason = own ?? carried
    if (reason === undefined) return
    const told = attributes(reason, own === undefined || cell === undefined ? undefined : cancelledBy(cell))
    for (const key of Object.keys(told)) span.attribute(key, told[key])
    if (own === undefined && before !== reason) span.attribute("curfew.cancel.foreign", true)
  }
}
