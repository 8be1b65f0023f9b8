/**
 * Each server with the policy layer beside the same server without it, and beside that with the least that notices a
 * client's leaving, which says how much of the difference any such layer has.
 *
 * Invariants:
 * 1. The servers and the clients are processes of their own; of the servers only the one that is measured has work.
 */
import { Child } from "../harness/child.ts"
import { compare } from "../harness/compare.ts"
import { type Options, wanted } from "../harness/options.ts"
import { median, type Row } from "../harness/row.ts"
import type { Load, Method } from "./load.ts"
import { leastOf, type Side } from "./servers.ts"

const connections = 48

const names = ["node:http", "node:http2", "Express", "Fastify", "Hono", "fetch handler", "Effect HttpServer"]
const methods: ReadonlyArray<Method> = ["GET", "POST"]

const file = (name: string): URL => new URL(name, import.meta.url)

/** A server, and what it takes to put load on it. */
class Measured {
  readonly #server: Child
  readonly #client: Child
  readonly #port: number
  readonly #http2: boolean
  /** Microseconds of the server's processor a request, one figure a round. */
  readonly #cpu: Array<number> = []
  /** Requests a second, one figure a round. */
  readonly #rates: Array<number> = []

  private constructor(server: Child, client: Child, port: number, http2: boolean) {
    this.#server = server
    this.#client = client
    this.#port = port
    this.#http2 = http2
  }

  static async start(name: string, side: Side, client: Child): Promise<Measured> {
    const server = await Child.start(file("./serverEnd.ts"), { args: [name, side] })
    return new Measured(server, client, await server.ask("port"), name === "node:http2")
  }

  /** Requests a second. */
  async measure(method: Method, requests: number): Promise<number> {
    const load: Load = { port: this.#port, http2: this.#http2, method, requests, connections }
    const before = await this.#server.cpu()
    const seconds = await this.#client.ask<number>("load", load)
    this.#cpu.push(((await this.#server.cpu()) - before) / requests)
    this.#rates.push(requests / seconds)
    return requests / seconds
  }

  /** Forgets the rounds so far, and gives the median of their processor time and each one's rate. */
  take(): { readonly cpu: number; readonly rates: ReadonlyArray<number> } {
    return { cpu: median(this.#cpu.splice(0)), rates: this.#rates.splice(0) }
  }

  stop(): Promise<void> {
    return this.#server.stop()
  }
}

export const run = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const { calls = 10_000, rounds = 7 } = options
  const rows: Array<Row> = []
  const client = await Child.start(file("./clientEnd.ts"))
  try {
    for (const name of names) {
      const asked = methods.filter((method) => wanted(options, `${name} ${method}`))
      if (asked.length === 0) continue
      const edge = await Measured.start(name, "edge", client)
      const bare = await Measured.start(name, "bare", client)
      const least = await Measured.start(name, "least", client)
      const all = [edge, bare, least]
      for (const method of asked) {
        // What the engine compiles while it is measured for the first time is nobody's throughput.
        for (const each of [...all, ...all]) await each.measure(method, calls)
        for (const each of all) each.take()
        const [row] = await compare({
          row: `${name} ${method}`,
          unit: "requests/s",
          better: "higher",
          target: 0.9,
          rounds,
          ours: { name: "with the edge", measure: () => edge.measure(method, calls) },
          peers: [
            { name: "bare", measure: () => bare.measure(method, calls) },
            { name: "the least", measure: () => least.measure(method, calls) }
          ]
        })
        const note = noteOf(name, edge.take(), bare.take(), least.take())
        rows.push({ ...(row as Row), note })
      }
      for (const each of all) await each.stop()
    }
    return rows
  } finally {
    await client.stop()
  }
}

type Taken = ReturnType<Measured["take"]>

/** The processor's share, and what the least layer has of the bare server's rate in the same rounds. */
const noteOf = (name: string, edge: Taken, bare: Taken, least: Taken): string => {
  const reaches = median(least.rates.map((rate, round) => rate / (bare.rates[round] as number)))
  return (
    `processor time of the server: ${edge.cpu.toFixed(1)} and ${bare.cpu.toFixed(1)} µs a request, ` +
    `${(bare.cpu / edge.cpu).toFixed(2)}; ${leastOf(name)}: ${reaches.toFixed(2)} x, ${least.cpu.toFixed(1)} µs`
  )
}
