import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { repeats, seed } from "../../../test/support/seed.ts"
import { fuzz } from "./support/fuzz.ts"

const mebi = 1024 * 1024

describe("hostile peers, of either end", () => {
  it.live(
    "break nothing, leave nothing, and cost other tunnels nothing: npm run fuzz",
    () =>
      Effect.gen(function* () {
        const report = yield* fuzz({ seed, frames: 50_000 * repeats })
        expect(report.problems).toEqual([])
        expect(report.frames).toBeGreaterThanOrEqual(50_000)
        expect(report.healthyCalls).toBe(report.rounds)
        expect(report.heap.peak).toBeLessThan(512 * mebi)
        // Some live through their round, and some break a rule that ends them.
        expect(report.tunnelsEndedByRule).toBeGreaterThan(0)
        expect(report.tunnelsEndedByRule).toBeLessThan(report.rounds)
      }),
    600_000
  )
})
