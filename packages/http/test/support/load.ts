/**
 * Load on Effect's server with clients of whom a share leaves, at seeded moments: `load.ts <requests> <seed> <rate>`
 * prints what was counted, as JSON. What leaving costs those who stay is measured by `paired.ts`.
 */
import { arrivals, percentile, random, serve, tookBy } from "./arrivals.ts"

export interface Loaded {
  /** Percent of the clients that left. */
  readonly share: number
  readonly requests: number
  readonly stayed: number
  readonly left: number
  /** What was wrong with answers of those who stayed. */
  readonly wrong: ReadonlyArray<string>
  /** Requests that the edge took and that have no record, or more than one. */
  readonly unaccounted: number
  readonly unreleased: number
  readonly records: Readonly<Record<string, number>>
  readonly logs: ReadonlyArray<string>
  readonly unhandled: number
  /** Milliseconds, of those who stayed. */
  readonly p50: number
  readonly p99: number
  /** Bytes per request, in the second half. */
  readonly slope: number
}

const [count = "2000", seedText = "1", rateText = "200"] = process.argv.slice(2)
const requests = Number(count)
const rate = Number(rateText)

const loaded: Array<Loaded> = []
for (const share of [1, 10, 50]) {
  const draw = random(Number(seedText) + share)
  const { port, settled, stop } = await serve()
  await arrivals(port, draw, { share, rate, many: Math.min(500, requests) })
  const half = { share, rate, many: requests / 2 }
  const halves = [await arrivals(port, draw, half)]
  const middle = await settled()
  halves.push(await arrivals(port, draw, half))
  const end = await settled()
  stop()
  const sent = halves.flat()
  const took = tookBy(sent)
  const ended = Object.values(end.records).reduce((sum, it) => sum + it, 0)
  loaded.push({
    share,
    requests: sent.length,
    stayed: took.length,
    left: sent.length - took.length,
    wrong: sent.flatMap(({ wrong }) => wrong ?? []),
    unaccounted: ended - end.taken,
    unreleased: end.started - end.released,
    records: end.records,
    logs: end.logs,
    unhandled: end.unhandled,
    p50: percentile(took, 0.5),
    p99: percentile(took, 0.99),
    slope: (end.heap - middle.heap) / (requests / 2)
  })
}
process.stdout.write(`${JSON.stringify(loaded, null, 1)}\n`)
