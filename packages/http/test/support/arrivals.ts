/**
 * Arrivals at a fixed rate, whatever the server does with them, and the two servers that they arrive at.
 */
import { fork } from "node:child_process"
import { Agent, request } from "node:http"
import { fileURLToPath } from "node:url"
import type { Counts } from "./loadServer.ts"

/** mulberry32: small, and the same everywhere. */
export const random = (seed: number) => {
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

export interface Sent {
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

export const arrivals = async (
  port: number,
  draw: () => number,
  { many, rate, share }: { readonly share: number; readonly many: number; readonly rate: number }
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

export const percentile = (sorted: ReadonlyArray<number>, p: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN

export const tookBy = (sent: ReadonlyArray<Sent>): ReadonlyArray<number> =>
  sent
    .filter(({ left }) => !left)
    .map(({ took }) => took)
    .sort((a, b) => a - b)

const programs = {
  effect: new URL("./loadServer.ts", import.meta.url),
  node: new URL("./loadNodeServer.ts", import.meta.url)
}

export const serve = async (half: keyof typeof programs = "effect") => {
  const child = fork(fileURLToPath(programs[half]), {
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
