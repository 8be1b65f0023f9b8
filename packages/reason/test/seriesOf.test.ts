import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { expect, test } from "vitest"
import { seriesOf } from "../src/seriesOf.ts"

test("a series is made once for its values, in their order", () => {
  const callsOf = seriesOf(Metric.counter("calls of the test", { incremental: true }), "method", "code")
  expect(callsOf("Get", "OK")).toBe(callsOf("Get", "OK"))
  const others = [callsOf("OK", "Get"), callsOf("Get", ""), callsOf("GetOK", "")]
  expect(new Set([callsOf("Get", "OK"), ...others]).size).toBe(4)
  const counted = Effect.gen(function* () {
    yield* Metric.update(callsOf("Get", "OK"), 1)
    return [yield* Metric.value(callsOf("Get", "OK")), yield* Metric.value(callsOf("OK", "Get"))]
  }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  expect(Effect.runSync(counted).map(({ count }) => count)).toEqual([1, 0])
})
