/** The same calls beside the Go library with both its ends, and with one end of either. */
import { buildPeer, GoProcess } from "@curfew/interop/goPeer"
import { Child } from "../harness/child.ts"
import { type Options, wanted } from "../harness/options.ts"
import { median, type Row } from "../harness/row.ts"
import { names, withAll } from "./common.ts"
import type { Closed, ClosedResult } from "./load.ts"
import { inRounds, rowOf } from "./rounds.ts"

const ends = ["Go", "stubs", "effect"] as const
type End = (typeof ends)[number]

interface Server extends AsyncDisposable {
  readonly port: number
  readonly cpu: () => Promise<number>
}

interface Client extends AsyncDisposable {
  readonly closed: (closed: Closed) => Promise<ClosedResult>
}

/** A Go process that answers each line with one of its own, which begins with the line's number. */
class GoEnd implements AsyncDisposable {
  readonly process: GoProcess
  #lines = 0

  constructor(program: string, role: string, environment: Readonly<Record<string, string>> = {}) {
    this.process = new GoProcess(program, [], { CURFEW_ROLE: role, ...environment })
  }

  async ask(line: string, answer: string): Promise<string> {
    this.process.write(`${line}\n`)
    const [, said] = await this.process.said(new RegExp(`^${++this.#lines} ${answer} (.*)\\n`, "m"))
    return said as string
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.stop()
  }
}

const goServer = async (program: string): Promise<Server> => {
  const end = new GoEnd(program, "bench-serve")
  const [, port] = await end.process.said(/port (\d+)/)
  return {
    port: Number(port),
    cpu: async () => Number(await end.ask("", "cpu")),
    [Symbol.asyncDispose]: () => end[Symbol.asyncDispose]()
  }
}

const goClient = (program: string, port: number): Client => {
  const end = new GoEnd(program, "bench-call", { CURFEW_ADDRESS: `127.0.0.1:${port}` })
  return {
    closed: async (closed) => JSON.parse(await end.ask(JSON.stringify(closed), "closed")),
    [Symbol.asyncDispose]: () => end[Symbol.asyncDispose]()
  }
}

const ourServer = async (kind: End): Promise<Server> => {
  const child = await Child.start(new URL("./serverEnd.ts", import.meta.url), { args: [kind] })
  return {
    port: await child.ask<number>("port"),
    cpu: () => child.cpu(),
    [Symbol.asyncDispose]: () => child.stop()
  }
}

const ourClient = async (kind: End, port: number): Promise<Client> => {
  const child = await Child.start(new URL("./clientEnd.ts", import.meta.url), { args: [kind, `${port}`] })
  return {
    closed: (closed) => child.ask("closed", { ...closed, wrapped: true }),
    [Symbol.asyncDispose]: () => child.stop()
  }
}

interface Case {
  readonly calls: End
  readonly serves: End
  readonly target: number
  readonly row: string
}

const cases: ReadonlyArray<Case> = [
  { calls: "stubs", serves: "stubs", target: 1.5, row: `unary, 64 callers, beside Go: ${names.stubs}` },
  { calls: "effect", serves: "effect", target: 3, row: `unary, 64 callers, beside Go: ${names.effect}` },
  { calls: "stubs", serves: "Go", target: 1, row: "unary, 64 callers, beside Go: stubs of grpc-js to Go" },
  { calls: "effect", serves: "Go", target: 1, row: "unary, 64 callers, beside Go: Effect client to Go" },
  { calls: "Go", serves: "stubs", target: 1, row: "unary, 64 callers, beside Go: Go to handlers of grpc-js" },
  { calls: "Go", serves: "effect", target: 1, row: "unary, 64 callers, beside Go: Go to scoped handlers" }
]

const goToGo: Case = { calls: "Go", serves: "Go", target: 1, row: "Go grpctunnel at both ends" }

export const goRows = async (options: Options): Promise<ReadonlyArray<Row>> => {
  const chosen = cases.filter(({ row }) => wanted(options, row))
  if (chosen.length === 0) return []
  const programs = buildPeer()
  if (typeof programs === "string") throw new Error(programs)
  await using stack = new AsyncDisposableStack()
  const servers = new Map<End, Server>()
  const all = [goToGo, ...chosen]
  for (const end of ends)
    if (all.some(({ serves }) => serves === end))
      servers.set(end, stack.use(end === "Go" ? await goServer(programs.peer) : await ourServer(end)))
  const contestants: Record<string, () => Promise<{ readonly rate: number; readonly cpu: number }>> = {}
  for (const { calls, row, serves } of all) {
    const server = servers.get(serves) as Server
    const client = stack.use(
      calls === "Go" ? goClient(programs.peer, server.port) : await ourClient(calls, server.port)
    )
    const load = async (millis: number) => {
      const before = await server.cpu()
      const result = await client.closed({ callers: 64, millis })
      const used = result.cpuMicros + (await server.cpu()) - before
      return { rate: result.callsPerSecond, cpu: used / result.calls }
    }
    await load(options.quick ? 300 : 1_000)
    contestants[row] = () => load((options.seconds ?? 1) * 1_000)
  }
  const results = await inRounds("unary, 64 callers, beside Go", options.rounds ?? 5, contestants)
  const goResults = results[goToGo.row] ?? []
  const cpuOf = (figures: ReadonlyArray<{ readonly cpu: number }>): string =>
    median(figures.map(({ cpu }) => cpu)).toFixed(1)
  return chosen.map(({ row, target }) => {
    const own = results[row] ?? []
    return rowOf({
      row,
      unit: "calls/s",
      better: "higher",
      target,
      peerName: goToGo.row,
      ours: own.map(({ rate }) => rate),
      peer: goResults.map(({ rate }) => rate),
      note: `${withAll}; CPU of both ends for a call: ${cpuOf(own)} µs, Go to Go ${cpuOf(goResults)} µs`
    })
  })
}
