/** Load with clients that leave at seeded moments. `npm run http:load` has more of it, and says what it costs. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { describe, expect, test } from "vitest"
import { runs, seed } from "../../../test/support/seed.ts"
import type { Loaded } from "./support/load.ts"

const load = (requests: number): Promise<ReadonlyArray<Loaded>> =>
  new Promise((resolve, reject) => {
    const program = fileURLToPath(new URL("./support/load.ts", import.meta.url))
    execFile(
      process.execPath,
      ["--conditions=@curfew/source", program, String(requests), String(seed)],
      { maxBuffer: 1 << 24 },
      (error, stdout, stderr) =>
        error ? reject(new Error(`${error.message}\n${stderr}`)) : resolve(JSON.parse(stdout))
    )
  })

describe("L8, L37: load with 1, 10 and 50 % of the clients leaving", () => {
  // CURFEW_RUNS asks for more of it.
  const requests = Math.max(1000, Math.min(20_000, runs(1000).numRuns))
  test(`L8 L37 answers those who stay, accounts for each request, and leaves nothing (${requests} requests)`, async () => {
    for (const {
      left,
      logs,
      records,
      share,
      slope,
      stayed,
      unaccounted,
      unhandled,
      unreleased,
      wrong
    } of await load(requests)) {
      expect({ share, wrong, logs, unhandled, unaccounted, unreleased }).toEqual({
        share,
        wrong: [],
        logs: [],
        unhandled: 0,
        unaccounted: 0,
        unreleased: 0
      })
      expect(stayed + left).toBe(requests)
      expect(left).toBeGreaterThan(0)
      expect(Object.keys(records).sort()).toEqual(["answered 200", "gone 499"])
      expect(records["gone 499"]).toBeGreaterThan(0)
      // A heap that keeps a request keeps some kilobytes of it; what is measured here is the noise of one collection.
      expect((slope * requests) / 2).toBeLessThan(2 ** 20)
    }
  }, 600_000)
})
