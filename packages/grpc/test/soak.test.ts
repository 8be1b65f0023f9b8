/** Thousands of calls cancelled at seeded moments: nothing is unhandled, nothing is logged, nothing grows. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { runs } from "../../../test/support/seed.ts"

interface Soaked {
  readonly calls: number
  readonly cancelled: number
  readonly errors: ReadonlyArray<string>
  readonly logs: ReadonlyArray<string>
  readonly listeners: number
  readonly fibers: number
  readonly stuck: number
  /** Bytes per call, after a warm-up. */
  readonly slope: number
}

const soak = (calls: number, seed: number): Effect.Effect<Soaked> =>
  Effect.callback((resume) => {
    const program = fileURLToPath(new URL("./support/soak.ts", import.meta.url))
    const child = execFile(
      process.execPath,
      ["--expose-gc", "--conditions=@curfew/source", program, String(calls), String(seed)],
      { maxBuffer: 1 << 24 },
      (error, stdout, stderr) =>
        resume(
          error ? Effect.die(new Error(`${error.message}\n${stderr}`)) : Effect.succeed(JSON.parse(stdout))
        )
    )
    return Effect.sync(() => child.kill())
  })

describe("L8: calls cancelled at seeded moments", () => {
  // CURFEW_RUNS asks for more of them: 20,000 in the long run.
  const calls = Math.max(2000, Math.min(20_000, runs(2000).numRuns))
  it.live(
    `leave nothing behind (${calls} calls)`,
    () =>
      Effect.gen(function* () {
        const soaked = yield* soak(calls, 20_260)
        expect(soaked).toMatchObject({ calls, errors: [], logs: [], listeners: 0, fibers: 0, stuck: 0 })
        expect(soaked.cancelled).toBeGreaterThan(calls / 4)
        // Half of the calls came after the warm-up.
        expect((soaked.slope * calls) / 2).toBeLessThan(2 ** 20)
      }),
    600_000
  )
})
