/**
 * gRPC without a tunnel: a client in one process, a server in another, each stack with its own pair.
 *
 * Invariants
 * 1. Every stack has the same bytes, metadata, time-out and number of callers, and is warm before the first round.
 * 2. The rate is of answers that were right. What a call costs is the processor time of both processes.
 */
import { Child } from "../harness/child.ts"
import { type Contestant, compare } from "../harness/compare.ts"
import { type Options, wanted } from "../harness/options.ts"
import { median, type Row } from "../harness/row.ts"
import { type Kind, type Stack, stacks, streamed } from "./service.ts"

interface Shape {
  readonly row: string
  readonly kind: Kind
  readonly callers: number
  readonly calls: number
  readonly targets: Readonly<Record<Exclude<Stack, "curfew">, number>>
}

const unary = { "grpc-js": 0.9, "nice-grpc": 1, "connect-node": 3 }
/** Streams have no promise of their own: what is measured is that they do not fall behind either. */
const streams = { "grpc-js": 0.9, "nice-grpc": 1, "connect-node": 1 }

const shapes: ReadonlyArray<Shape> = [
  { row: "unary, 64 callers", kind: "unary", callers: 64, calls: 12_800, targets: unary },
  { row: "unary, 1 caller", kind: "unary", callers: 1, calls: 3_000, targets: unary },
  { row: `server stream of ${streamed}, 4 callers`, kind: "many", callers: 4, calls: 40, targets: streams },
  { row: `bidi of ${streamed}, 4 callers`, kind: "talk", callers: 4, calls: 40, targets: streams }
]

/** Turns of each in a round, which share its calls. */
const turns = 8

/** A stack's two processes. */
class Pair {
  readonly #client: Child
  readonly #server: Child

  private constructor(client: Child, server: Child) {
    this.#client = client
    this.#server = server
  }

  static async start(stack: Stack): Promise<Pair> {
    const server = await Child.start(new URL("./serverEnd.ts", import.meta.url))
    const client = await Child.start(new URL("./clientEnd.ts", import.meta.url))
    const pair = new Pair(client, server)
    const port = await server.ask<number>("listen", stack)
    await client.ask("connect", { port, stack })
    return pair
  }

  async run({ callers, calls, kind }: Shape): Promise<{ rate: number; client: number; server: number }> {
    const [client, server] = [await this.#client.cpu(), await this.#server.cpu()]
    const millis = await this.#client.ask<number>("run", { callers, calls, kind })
    const made = callers * Math.ceil(calls / callers)
    return {
      rate: (made / millis) * 1_000,
      client: ((await this.#client.cpu()) - client) / made,
      server: ((await this.#server.cpu()) - server) / made
    }
  }

  async stop(): Promise<void> {
    await this.#client.stop()
    await this.#server.stop()
  }
}

export const run = async (given: Options): Promise<ReadonlyArray<Row>> => {
  const options: Options = given.quick === true ? { rounds: 1, calls: 64, ...given } : given
  const asked = shapes
    .filter(({ row }) => wanted(options, row))
    .map((shape) => (options.calls === undefined ? shape : { ...shape, calls: options.calls }))
  if (asked.length === 0) return []
  const pairs = new Map<Stack, Pair>()
  try {
    for (const stack of stacks) pairs.set(stack, await Pair.start(stack))
    const rows: Array<Row> = []
    for (const shape of asked) rows.push(...(await measured(shape, pairs, options)))
    return rows
  } finally {
    for (const pair of pairs.values()) await pair.stop()
  }
}

const measured = async (
  shape: Shape,
  pairs: ReadonlyMap<Stack, Pair>,
  { rounds }: Options
): Promise<ReadonlyArray<Row>> => {
  const share: Shape = { ...shape, calls: Math.ceil(shape.calls / turns) }
  const costs = new Map<Stack, Array<{ rate: number; client: number; server: number }>>()
  const contestant = (stack: Stack, name: string = stack): Contestant => ({
    name,
    measure: async () => {
      const cost = await (pairs.get(stack) as Pair).run(share)
      costs.set(stack, [...(costs.get(stack) ?? []), cost])
      return cost.rate
    }
  })
  const cost = (stack: Stack): string => {
    const of = costs.get(stack) ?? []
    const [client, server] = [median(of.map((one) => one.client)), median(of.map((one) => one.server))]
    return `${client.toFixed(0)} + ${server.toFixed(0)} µs`
  }
  const rate = (stack: Stack): number => median((costs.get(stack) ?? []).map((one) => one.rate))
  // What no client and handler above grpc-js can get past.
  const limit = (stack: Stack): string =>
    stack === "grpc-js" ? "" : `; grpc-js by itself: ${(rate("grpc-js") / rate(stack)).toFixed(2)} x`
  const peers = stacks.filter((stack) => stack !== "curfew")
  return compare({
    row: shape.row,
    unit: "calls/s",
    better: "higher",
    target: 1,
    rounds,
    turns,
    warmups: 1,
    ours: contestant("curfew", "@curfew/grpc"),
    peers: peers.map((stack) => ({
      ...contestant(stack),
      target: shape.targets[stack],
      note: () => `CPU of a call, client + server: ${cost("curfew")}; ${stack}: ${cost(stack)}${limit(stack)}`
    }))
  })
}
