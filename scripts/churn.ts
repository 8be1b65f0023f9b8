/**
 * Two processes, very many tunnels, and everything that happens to them, for as long as asked:
 *
 *   npm run churn -- --minutes 10
 *   npm run churn -- --minutes 1 --cycles 2 --seed 12345 --tunnels 100 --streams 1000
 *
 * One process listens and one dials; they connect, call and cancel, and the one that dials is frozen, killed with -9 or
 * stopped, and started again. Afterwards every call has to be accounted for, and nothing may be left. The status is 1
 * when it is not so.
 */
import { randomInt } from "node:crypto"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { churn } from "../packages/tunnel/test/support/churn/run.ts"

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "5" },
    tunnels: { type: "string", default: "1000" },
    streams: { type: "string", default: "10000" },
    // From eight on it is judged whether the heap stays flat.
    cycles: { type: "string", default: "8" },
    seed: { type: "string", default: `${randomInt(2 ** 31)}` }
  }
})

const number = (name: keyof typeof values): number => {
  const value = Number(values[name])
  if (Number.isFinite(value) && value >= 0) return value
  console.error(`--${name} has to be a number, not "${values[name]}".`)
  process.exit(2)
}

const [cycles, minutes, tunnels, streams, seed] = [
  number("cycles"),
  number("minutes"),
  number("tunnels"),
  number("streams"),
  number("seed")
]
console.log(`seed ${seed}: ${tunnels} tunnels, ${streams} streams at a time, ${minutes} minutes`)
const began = performance.now()
const seconds = (): string => `${((performance.now() - began) / 1000).toFixed(0).padStart(5)} s`
const report = await Effect.runPromise(
  churn({
    seed,
    tunnels,
    streams,
    until: began + minutes * 60_000,
    cycles,
    busy: 20_000,
    progress: (line) => console.log(`${seconds()}  ${line}`)
  })
)
const { cancelled, completed, failed, opened, started, tunnelsOpened } = report.ledger
for (const problem of report.problems) console.log(`found: ${problem}`)
console.log(
  `${seconds()}  ${report.cycles} cycles, ${report.killed} killed, ${report.frozen} frozen; ` +
    `${started} calls started = ${completed} completed + ${cancelled} cancelled + ${failed} failed; ` +
    `${opened} streams over ${tunnelsOpened} tunnels; the heap grows by ${(report.slope / 1024).toFixed(0)} KiB a cycle`
)
console.log(`${report.problems.length} problems`)
process.exit(report.problems.length === 0 ? 0 : 1)
