import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { seed } from "../../../test/support/seed.ts"
import { churn } from "./support/churn/run.ts"

describe("two processes, of which one is frozen, killed and stopped,", () => {
  it.live(
    "account for every call and leave nothing: npm run churn",
    () =>
      Effect.gen(function* () {
        const options = { seed, tunnels: 20, streams: 100, until: 0, cycles: 2, busy: 1_500 }
        const { killed, ledger, problems } = yield* churn(options)
        expect(problems).toEqual([])
        expect(killed).toBe(1)
        expect(ledger.started).toBeGreaterThan(100)
        for (const outcome of ["completed", "cancelled", "failed"] as const)
          expect(ledger[outcome], outcome).toBeGreaterThan(0)
      }),
    300_000
  )
})
