/**
 * Each server with the policy layer beside the same server without it, and beside that with what one writes by hand in
 * its place, which says how much of the difference any such layer has.
 *
 * Invariants:
 * 1. The servers and the clients are processes of their own; of the servers only the one that is measured has work.
 */
import { Child } from "../harness/child.ts"
import { compare } from "../harness/compare.ts"
import { type Options, wanted } from "../harness/options.ts"
import { median, type Row } from "../harness/row.ts"
import type { Load, Method, Target } from "./load.ts"
import { handOf, type Side } from "./servers.ts"

const connections = 48

/** A round's requests go out in so many turns, each some tens of milliseconds. */
const turns = 20

const names = ["node:http", "node:http2", "Express", "Fastify", "Hono", "fetch handler", "Effect HttpServer"]
const methods: ReadonlyArray<Method> = ["GET", "POST"]

const file = (name: string): URL => new URL(name, import.meta.url)

/** A server, and what it takes to put load on it. */
class Measured {
  readonly #server: Child
  readonly #client: Child
  readonly #target: Target
  /** Microseconds of the server's processor, and requests, since it was taken. */
  #cpu = 0
  #requests = 0
  /** Seconds, one figure a turn. */
  #seconds: Array<number> = []

  private constructor(server: Child, client: Child, target: Target) {
    this.#server = server
    this.#client = client
    this.#target = target
  }

  static async start(name: string, side: Side, client: Child): Promise<Measured> {
    const server = await Child.start(file("./serverEnd.ts"), { args: [name, side] })
    const target: Target = { port: await server.ask("port"), http2: name === "node:http2", connections }
    await client.ask("dial", target)
    return new Measured(server, client, target)
  }

  /** Requests a second. */
  async measure(method: Method, requests: number): Promise<number> {
    const load: Load = { port: this.#target.port, method, requests }
    const before = await this.#server.cpu()
    const seconds = await this.#client.ask<number>("load", load)
    this.#cpu += (await this.#server.cpu()) - before
    this.#requests += requests
    this.#seconds.push(seconds)
    return requests / seconds
  }

  /** Forgets what was measured so far, and gives the processor time of a request and the time of each turn. */
  take(): { readonly cpu: number; readonly seconds: ReadonlyArray<number> } {
    const cpu = this.#cpu / this.#requests
    const seconds = this.#seconds
    this.#cpu = 0
    this.#requests = 0
    this.#seconds = []
    return { cpu, seconds }
  }

  async stop(): Promise<void> {
    await this.#client.ask("leave", this.#target)
    await this.#server.stop()
  }
}

export const run = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const { calls = 10_000, rounds = 7 } = options
  const requests = Math.ceil(calls / turns)
  const rows: Array<Row> = []
  const client = await Child.start(file("./clientEnd.ts"))
  try {
    for (const name of names) {
      const asked = methods.filter((method) => wanted(options, `${name} ${method}`))
      if (asked.length === 0) continue
      const edge = await Measured.start(name, "edge", client)
      const bare = await Measured.start(name, "bare", client)
      const hand = await Measured.start(name, "hand", client)
      const all = [edge, bare, hand]
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
          turns,
          ours: { name: "with the edge", measure: () => edge.measure(method, requests) },
          peers: [
            { name: "bare", measure: () => bare.measure(method, requests) },
            { name: "by hand", measure: () => hand.measure(method, requests) }
          ]
        })
        const note = noteOf(name, edge.take(), bare.take(), hand.take())
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

/** The seconds of each round, of those of its turns. */
const ofRounds = (seconds: ReadonlyArray<number>): ReadonlyArray<number> =>
  Array.from({ length: seconds.length / turns }, (_, round) =>
    seconds.slice(round * turns, (round + 1) * turns).reduce((all, one) => all + one, 0)
  )

/** The processor's share, and what the layer by hand has of the bare server's rate in the same rounds. */
const noteOf = (name: string, edge: Taken, bare: Taken, hand: Taken): string => {
  const bareRounds = ofRounds(bare.seconds)
  const reaches = median(ofRounds(hand.seconds).map((seconds, round) => (bareRounds[round] ?? 0) / seconds))
  return (
    `processor time of the server: ${edge.cpu.toFixed(1)} and ${bare.cpu.toFixed(1)} µs a request, ` +
    `${(bare.cpu / edge.cpu).toFixed(2)}; ${handOf(name)}: ${reaches.toFixed(2)} x, ${hand.cpu.toFixed(1)} µs`
  )
}
