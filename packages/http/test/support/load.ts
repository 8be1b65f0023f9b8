/**
 * Load on Effect's server with clients of whom a share leaves, at seeded moments: `load.ts <requests> <seed> <rate> [ratio]`
 * prints what was counted, as JSON; with `ratio`, against as many arrivals without anybody leaving.
 */
import { fork } from "node:child_process"
import { Agent, request } from "node:http"
import { fileURLToPath } from "node:url"
import type { Counts } from "./loadServer.ts"

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
  /** Of the p99 to that of the runs before and after it in which nobody left. */
  readonly ratio: number | null
  /** Bytes per request, in the second half. */
  readonly slope: number
}

const [count = "2000", seedText = "1", rateText = "200", against] = process.argv.slice(2)
const requests = Number(count)
const rate = Number(rateText)

/** mulberry32: small, and the same everywhere. */
const random = (seed: number) => {
  let state = seed
  return (): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

const kinds = [
  ["GET", "/read"],
  ["POST", "/write"],
  ["GET", "/stream"]
] as const

interface Sent {
  readonly left: boolean
  readonly took: number
  readonly wrong: string | undefined
}

const send = (port: number, agent: Agent, draw: () => number, share: number): Promise<Sent> =>
  new Promise((resolve) => {
    const [method, path] = kinds[Math.floor(draw() * kinds.length)] as (typeof kinds)[number]
    const leaves = draw() * 100 < share
    const moment = draw() * 8
    const began = performance.now()
    let bytes = 0
    const done = (wrong?: string): void => {
      clearTimeout(timer)
      resolve({ left: leaves && !complete, took: performance.now() - began, wrong })
    }
    let complete = false
    const sent = request({
      agent,
      port,
      host: "127.0.0.1",
      method,
      path: `${path}?ms=${Math.floor(draw() * 5)}`
    })
    const timer = leaves ? setTimeout(() => sent.destroy(), moment) : undefined
    sent.on("response", (response) => {
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length
      })
      response.on("error", () => undefined)
      response.on("close", () => {
        complete = response.complete
        if (leaves) return done()
        const { statusCode } = response
        done(
          statusCode === 200 && bytes === 100 && complete ? undefined : `${statusCode} with ${bytes} bytes`
        )
      })
    })
    sent.on("error", (error) => {
      if (bytes === 0) done(leaves ? undefined : error.message)
    })
    sent.end()
  })

const arrivals = async (
  port: number,
  draw: () => number,
  share: number,
  many: number
): Promise<Array<Sent>> => {
  const agent = new Agent({ keepAlive: true, maxSockets: 256 })
  const all: Array<Promise<Sent>> = []
  const began = performance.now()
  while (all.length < many) {
    const due = Math.min(many, Math.floor(((performance.now() - began) / 1000) * rate) + 1)
    while (all.length < due) all.push(send(port, agent, draw, share))
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  const sent = await Promise.all(all)
  agent.destroy()
  return sent
}

const percentile = (sorted: ReadonlyArray<number>, p: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN

const tookBy = (sent: ReadonlyArray<Sent>): ReadonlyArray<number> =>
  sent
    .filter(({ left }) => !left)
    .map(({ took }) => took)
    .sort((a, b) => a - b)

const serve = async () => {
  const child = fork(fileURLToPath(new URL("./loadServer.ts", import.meta.url)), {
    execArgv: ["--expose-gc", "--conditions=@curfew/source"]
  })
  const next = <A>(): Promise<A> => new Promise((resolve) => child.once("message", (it) => resolve(it as A)))
  const { port } = await next<{ port: number }>()
  const counts = (): Promise<Counts> => {
    const answer = next<Counts>()
    child.send("count")
    return answer
  }
  /** When everybody has been told about: what shielded handlers still do included. */
  const settled = async (): Promise<Counts> => {
    for (;;) {
      const found = await counts()
      const ended = Object.values(found.records).reduce((sum, it) => sum + it, 0)
      if (ended >= found.taken && found.released === found.started) return found
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  return { port, settled, stop: () => child.disconnect() }
}

const loaded: Array<Loaded> = []
for (const share of [1, 10, 50]) {
  const draw = random(Number(seedText) + share)
  const { port, settled, stop } = await serve()
  await arrivals(port, draw, share, Math.min(500, requests))
  const calmly = against === "ratio" ? requests / 2 : 0
  const before = tookBy(await arrivals(port, draw, 0, calmly))
  const halves = [await arrivals(port, draw, share, requests / 2)]
  const middle = await settled()
  halves.push(await arrivals(port, draw, share, requests / 2))
  const end = await settled()
  const after = tookBy(await arrivals(port, draw, 0, calmly))
  stop()
  const sent = halves.flat()
  const took = tookBy(sent)
  const calm = [...before, ...after].sort((a, b) => a - b)
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
    ratio: calmly === 0 ? null : percentile(took, 0.99) / percentile(calm, 0.99),
    slope: (end.heap - middle.heap) / (requests / 2)
  })
}
process.stdout.write(`${JSON.stringify(loaded, null, 1)}\n`)
