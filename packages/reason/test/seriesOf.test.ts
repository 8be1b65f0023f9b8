import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { expect, test } from "vitest"
import { counterLike, gaugeLike, seriesOf } from "../src/seriesOf.ts"

const calls = Metric.counter("calls of the test", { incremental: true })

test("a series is made once for its values, in their order", () => {
  const callsOf = seriesOf(counterLike(calls), "method", "code")
  expect(callsOf("Get", "OK")).toBe(callsOf("Get", "OK"))
  const others = [callsOf("OK", "Get"), callsOf("Get", ""), callsOf("GetOK", "")]
  expect(new Set([callsOf("Get", "OK"), ...others]).size).toBe(4)
  const counted = Effect.gen(function* () {
    yield* Metric.update(callsOf("Get", "OK"), 1)
    return [yield* Metric.value(callsOf("Get", "OK")), yield* Metric.value(callsOf("OK", "Get"))]
  }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  expect(Effect.runSync(counted).map(({ count }) => count)).toEqual([1, 0])
})

test("a series is the one that others know by the metric and the attributes", () => {
  const active = Metric.gauge("active of the test", { description: "what is active" })
  const seen = Effect.gen(function* () {
    yield* Metric.update(seriesOf(counterLike(calls), "method")("Get"), 2)
    yield* Metric.update(seriesOf(gaugeLike(active), "method")("Get"), 3)
    return {
      counted: yield* Metric.value(Metric.withAttributes(calls, { method: "Get" })),
      gauged: yield* Metric.value(Metric.withAttributes(active, { method: "Get" }))
    }
  }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  const { counted, gauged } = Effect.runSync(seen)
  expect([counted.count, gauged.value]).toEqual([2, 3])
})
