/**
 * Hostile peers against both ends of a tunnel, for as long as asked:
 *
 *   npm run fuzz -- --frames 1000000
 *   npm run fuzz -- --minutes 10
 *   npm run fuzz -- --seed 12345 --round 17     the one round, to look into it
 *
 * Prints its seed first. The status is 1 when something was found.
 */
import { randomInt } from "node:crypto"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { fuzz } from "../packages/tunnel/test/support/fuzz.ts"

const { values } = parseArgs({
  options: {
    frames: { type: "string" },
    minutes: { type: "string" },
    seed: { type: "string" },
    round: { type: "string" }
  }
})

const number = (name: keyof typeof values): number | undefined => {
  const text = values[name]
  if (text === undefined) return undefined
  const value = Number(text)
  if (Number.isFinite(value) && value >= 0) return value
  console.error(`--${name} has to be a number, not "${text}".`)
  process.exit(2)
}

const seed = number("seed") ?? randomInt(2 ** 31)
const minutes = number("minutes")
const round = number("round")
const frames = number("frames") ?? (minutes === undefined ? 100_000 : Number.POSITIVE_INFINITY)
console.log(`seed ${seed}`)
const began = performance.now()
const report = await Effect.runPromise(
  fuzz({
    seed,
    frames,
    ...(minutes === undefined ? {} : { until: began + minutes * 60_000 }),
    ...(round === undefined ? {} : { round }),
    progress: (line) =>
      console.log(`${((performance.now() - began) / 1000).toFixed(0).padStart(5)} s  ${line}`)
  })
)
const mebi = (bytes: number) => `${(bytes / 1024 / 1024).toFixed(1)} MiB`
for (const problem of report.problems) console.log(`found: ${problem}`)
console.log(
  `${report.frames} frames in ${report.rounds} rounds and ${((performance.now() - began) / 1000).toFixed(0)} s; ` +
    `${report.tunnelsEndedByRule} tunnels ended by a rule; ${report.healthyCalls} of ${report.rounds} healthy calls answered; ` +
    `live heap ${mebi(report.heap.early)} early, ${mebi(report.heap.late)} late, peak ${mebi(report.heap.peak)}`
)
console.log(`${report.problems.length} problems`)
process.exit(report.problems.length === 0 ? 0 : 1)
