import * as Metric from "effect/Metric"

/**
 * The series of a metric, by the values of its attributes, for those who count on hot paths: making a series costs
 * several times what updating it does, so each is made once. It keeps as many as the registry of metrics does.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Metric from "effect/Metric"
 * import { seriesOf } from "@curfew/reason/seriesOf"
 *
 * const calls = Metric.counter("calls", { incremental: true })
 * const callsOf = seriesOf(calls, "method", "code")
 * const program = Effect.gen(function* () {
 *   yield* Metric.update(callsOf("Get", "OK"), 1)
 *   return (yield* Metric.value(Metric.withAttributes(calls, { method: "Get", code: "OK" }))).count
 * })
 * Effect.runSync(program) // => 1
 * ```
 *
 * @stability internal
 * @since 0.1.0
 */
export const seriesOf = <Input, State, const Names extends ReadonlyArray<string>>(
  metric: Metric.Metric<Input, State>,
  ...names: Names
): ((...values: { readonly [K in keyof Names]: string }) => Metric.Metric<Input, State>) => {
  const known = new Map<string, Metric.Metric<Input, State>>()
  return (...values) => {
    const key = values.join("\u0000")
    const found = known.get(key)
    if (found !== undefined) return found
    const attributes = Object.fromEntries(names.map((name, i) => [name, values[i] as string]))
    const made = Metric.withAttributes(metric, attributes)
    known.set(key, made)
    return made
  }
}
