/**
 * What it costs those who stay that others leave: `paired.ts <effect|node> <requests> <rounds> <rate> <seed>`.
 *
 * A round is two loads of as many requests one after the other on the same server, with the same seed, so that the same
 * requests come at the same moments: in the one a share of the clients leaves, in the other nobody does. Which of the two
 * comes first changes with each round. What the machine does beside it reaches both alike, or else the one ratio and not
 * the median of all of them; how far it reaches is said by the rounds in which nobody leaves in either. The processor time
 * of the server is printed beside it, which says what a client that leaves costs also where the machine is busy.
 */
import { cpus, loadavg } from "node:os"
import { arrivals, percentile, random, serve, tookBy } from "./arrivals.ts"

const [half = "effect", manyText = "2000", roundsText = "7", rateText = "150", seedText = "1"] =
  process.argv.slice(2)
if (half !== "effect" && half !== "node") throw new Error("The first argument is effect or node.")
const [many, rounds, rate, seed] = [manyText, roundsText, rateText, seedText].map(Number) as [
  number,
  number,
  number,
  number
]

const say = (text: string): void => void process.stdout.write(`${text}\n`)
const rounded = (value: number): string => value.toFixed(2)
const sorted = (values: ReadonlyArray<number>): ReadonlyArray<number> => [...values].sort((a, b) => a - b)

say(
  `${half}: ${rounds} rounds of 2 x ${many} requests at ${rate}/s, ${cpus().length} cores, load ${loadavg().map(rounded).join(" ")}`
)
const { port, settled, stop } = await serve(half)
await arrivals(port, random(seed), { share: 10, rate, many })
let { cpu } = await settled()
for (const share of [0, 1, 10, 50]) {
  const ratios: Array<number> = []
  const took: Record<"leaving" | "calm", Array<number>> = { leaving: [], calm: [] }
  const p99: Record<"leaving" | "calm", number> = { leaving: 0, calm: 0 }
  const worked: Record<"leaving" | "calm", number> = { leaving: 0, calm: 0 }
  let wrong = 0
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? (["leaving", "calm"] as const) : (["calm", "leaving"] as const)
    for (const which of order) {
      const draw = random(seed * 1000 + round)
      const sent = await arrivals(port, draw, { share: which === "leaving" ? share : 0, rate, many })
      // What those who left still have running must not run into the next load.
      const counts = await settled()
      worked[which] += counts.cpu - cpu
      cpu = counts.cpu
      wrong += sent.filter((one) => one.wrong !== undefined).length
      const stayed = tookBy(sent)
      took[which].push(...stayed)
      p99[which] = percentile(stayed, 0.99)
    }
    ratios.push(p99.leaving / p99.calm)
  }
  const [leaving, calm] = [sorted(took.leaving), sorted(took.calm)]
  const all = sorted(ratios)
  const perRequest = (which: "leaving" | "calm") => rounded(worked[which] / (rounds * many))
  const at = (p: number) => `${rounded(percentile(leaving, p))} / ${rounded(percentile(calm, p))} ms`
  say(
    `${share} % leaving: p99 ratio, median ${rounded(percentile(all, 0.5))}, from ${rounded(all[0] ?? Number.NaN)} to ${rounded(all.at(-1) ?? Number.NaN)}` +
      `; of all rounds together ${rounded(percentile(leaving, 0.99) / percentile(calm, 0.99))}` +
      `; p50 ${at(0.5)}, p99 ${at(0.99)}; processor time of the server ${perRequest("leaving")} / ${perRequest("calm")} ms a request; ${wrong} wrong answers; load ${rounded(loadavg()[0] as number)}`
  )
}
stop()
