import * as Metric from "effect/Metric"

/** The values of attributes that tell the series of a metric apart. */
type Attributes = Readonly<Record<string, string>>

/**
 * The series of a metric, by the values of its attributes, for those who count on hot paths: making a series costs
 * several times what updating it does, so each is made once. It keeps as many as the registry of metrics does.
 *
 * Each series is a metric of its own, with the name of the others: one metric that is asked for several series in turn, as
 * `Metric.withAttributes` has it, works its key out again for each update.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Metric from "effect/Metric"
 * import { counterLike, seriesOf } from "@curfew/reason/seriesOf"
 *
 * const calls = Metric.counter("calls", { incremental: true })
 * const callsOf = seriesOf(counterLike(calls), "method", "code")
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
  make: (attributes: Attributes) => Metric.Metric<Input, State>,
  ...names: Names
): ((...values: { readonly [K in keyof Names]: string }) => Metric.Metric<Input, State>) => {
  const known = new Map<string, Metric.Metric<Input, State>>()
  return (...values) => {
    const key = values.join("\u0000")
    const found = known.get(key)
    if (found !== undefined) return found
    const attributes = Object.fromEntries(names.map((name, i) => [name, values[i] as string]))
    const made = make(attributes)
    known.set(key, made)
    return made
  }
}

/**
 * A counter that only grows, like this one and with attributes.
 *
 * @stability internal
 * @since 0.1.0
 */
export const counterLike =
  ({ description, id }: Metric.Counter<number>): ((attributes: Attributes) => Metric.Counter<number>) =>
  (attributes) =>
    Metric.counter(id, { description, incremental: true, attributes })

/**
 * A gauge like this one, with attributes.
 *
 * @stability internal
 * @since 0.1.0
 */
export const gaugeLike =
  ({ description, id }: Metric.Gauge<number>): ((attributes: Attributes) => Metric.Gauge<number>) =>
  (attributes) =>
    Metric.gauge(id, { description, attributes })
