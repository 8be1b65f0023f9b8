/**
 * Two processes and very many tunnels: this one listens, the other dials, and is killed, frozen and started again. When
 * it is over everything has to add up, and nothing may be left.
 */
import { type ChildProcess, fork } from "node:child_process"
import { setTimeout as later } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { credentials, Metadata, Server, ServerCredentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { Services, type TunnelChannel, TunnelService } from "../../../src/index.ts"
import { audited } from "../audit.ts"
import { drawing } from "../draw.ts"
import { definition, EchoClient, implementation } from "../echo.ts"
import { callers, discrepancies, type Ledger, makeLedger, observe } from "./ledger.ts"

export interface ChurnOptions {
  readonly seed: number
  readonly tunnels: number
  readonly streams: number
  /** Cycles go on until this moment of `performance.now()`, and at least `cycles` of them. */
  readonly until: number
  readonly cycles: number
  /** How long a cycle keeps its calls going, in milliseconds. */
  readonly busy: number
  readonly progress?: (line: string) => void
}

export interface ChurnReport {
  readonly cycles: number
  readonly killed: number
  readonly frozen: number
  readonly ledger: Ledger
  /** Live heap and buffers after each cycle, when no tunnel was open. */
  readonly heaps: ReadonlyArray<number>
  /** Bytes by which it grew with each cycle but the first two. */
  readonly slope: number
  readonly problems: ReadonlyArray<string>
}

interface Said {
  readonly open?: number
  readonly ledger?: Ledger
  readonly found?: ReadonlyArray<string>
}

const agentFile = fileURLToPath(new URL("./agent.ts", import.meta.url))

const start = (port: number, { busy, streams, tunnels }: ChurnOptions, seed: number) => {
  const args = [`127.0.0.1:${port}`, `${tunnels}`, `${streams}`, `${seed}`, `${busy / 4}`]
  const child: ChildProcess = fork(agentFile, args, { execArgv: ["-C", "@curfew/source"] })
  let said: Said = {}
  child.on("message", (message: Said) => {
    said = { ...said, ...message }
  })
  child.on("error", () => undefined)
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  return { child, exited, said: () => said }
}

/** How much a value grows at each step: the median over all pairs, which one value that stands out does not move. */
const slopeOf = (values: ReadonlyArray<number>): number => {
  const slopes = values.flatMap((later, index) =>
    values.slice(0, index).map((earlier, before) => (later - earlier) / (index - before))
  )
  return slopes.sort((one, other) => one - other)[Math.floor(slopes.length / 2)] ?? 0
}

/** From so many cycles on it is judged whether the heap grows; the first two make the caches. */
const judged = 8

const mebi = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`

const collect = (() => {
  setFlagsFromString("--expose-gc")
  return runInNewContext("gc") as () => void
})()

/** What is live, once a collection finds hardly anything to take any more. */
const heapNow = async (): Promise<number> => {
  let before = Number.POSITIVE_INFINITY
  for (let turn = 0; ; turn++) {
    // Sockets and their buffers go in turns of their own.
    await later(50)
    collect()
    const { arrayBuffers, heapUsed } = process.memoryUsage()
    const now = heapUsed + arrayBuffers
    if (turn >= 20 || (turn >= 3 && now > before * 0.995)) return now
    before = now
  }
}

const until = async (what: () => Promise<boolean>, millis: number): Promise<boolean> => {
  for (const end = performance.now() + millis; performance.now() < end; await later(25))
    if (await what()) return true
  return what()
}

const cyclesOf = (options: ChurnOptions, ledger: Ledger, problems: Array<string>) =>
  Effect.gen(function* () {
    const draw = drawing(options.seed)
    const listed = new Set<TunnelChannel>()
    const seen: Array<TunnelChannel> = []
    const service = yield* TunnelService.make({
      services: Services.empty.pipe(Services.add(definition, implementation())),
      observer: observe(ledger),
      onReverseOpen: (_key, tunnel) => {
        seen.push(tunnel)
        listed.add(tunnel)
      },
      onReverseClose: (_key, tunnel) => void listed.delete(tunnel)
    })
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => new Server()),
      (server) => Effect.sync(() => server.forceShutdown())
    )
    service.addTo(server)
    const port = yield* Effect.callback<number>((resume) =>
      server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        resume(error === null ? Effect.succeed(bound) : Effect.die(error))
      )
    )
    const tunnels = () => Effect.runPromise(service.tunnels)
    const heaps: Array<number> = []
    let [cycles, killed, frozen] = [0, 0, 0]
    const channelOverride = service.reverse.channel()
    const client = new EchoClient("any", credentials.createInsecure(), { channelOverride })
    const pick = () => (listed.size > 0 ? client : undefined)
    const cycle = async (): Promise<void> => {
      const agent = start(port, options, draw(2 ** 30))
      // The reverse ones can be called; the others are on their way at the same time.
      const open = await until(
        async () => (await tunnels()) >= options.tunnels * 0.9 && listed.size >= options.tunnels * 0.45,
        120_000
      )
      if (!open) problems.push(`only ${await tunnels()} of ${options.tunnels} tunnels opened in two minutes`)
      const busy = callers(
        pick,
        draw,
        ledger,
        new Metadata(),
        Math.ceil(options.streams / 2),
        options.busy / 4
      )
      await later(options.busy / 2)
      if (draw(2) === 0) {
        frozen++
        agent.child.kill("SIGSTOP")
        await later(options.busy / 4)
        agent.child.kill("SIGCONT")
      }
      await later(options.busy / 2)
      const kills = cycles % 2 === 0
      const stopped = busy.stop()
      if (kills) {
        killed++
        agent.child.kill("SIGKILL")
      } else agent.child.send("stop")
      const gone = await until(
        async () => agent.child.exitCode !== null || agent.child.signalCode !== null,
        60_000
      )
      if (!gone) {
        problems.push("the agent did not stop within a minute")
        agent.child.kill("SIGKILL")
      }
      await agent.exited
      await stopped
      if (!kills) problems.push(...(agent.said().found ?? ["the agent gave no accounts"]))
      if (!(await until(async () => (await tunnels()) === 0, 30_000)))
        problems.push(`${await tunnels()} tunnels are left of a process that is gone`)
      if (listed.size > 0) problems.push(`${listed.size} reverse tunnels are still listed`)
      for (const tunnel of seen.splice(0)) {
        const { deadlines, heldBytes, streams } = await Effect.runPromise(tunnel.stats)
        if (streams + deadlines + heldBytes > 0)
          problems.push(
            `a tunnel that is gone has ${streams} streams, ${deadlines} deadlines and ${heldBytes} bytes`
          )
      }
      heaps.push(await heapNow())
      cycles++
      const { cancelled, completed, failed, started } = ledger
      options.progress?.(
        `cycle ${cycles}: ${started} calls = ${completed} completed + ${cancelled} cancelled + ${failed} failed; ` +
          `${ledger.opened} streams, ${ledger.tunnelsOpened} tunnels; ${mebi(heaps.at(-1) ?? 0)}; ${problems.length} problems`
      )
    }
    while (cycles < options.cycles || performance.now() < options.until) yield* Effect.promise(cycle)
    return { cycles, killed, frozen, heaps }
  })

/** Runs cycles: dial, call, freeze, kill or stop. */
export const churn = (options: ChurnOptions): Effect.Effect<ChurnReport> =>
  Effect.gen(function* () {
    const problems: Array<string> = []
    const ledger = makeLedger()
    const [outcome, findings] = yield* audited(Effect.scoped(cyclesOf(options, ledger, problems)))
    problems.push(...discrepancies("listener", ledger))
    if (findings.liveFibers !== 0) problems.push(`${findings.liveFibers} fibers are left`)
    problems.push(...findings.errorLogs.slice(0, 5).map((text) => `it logged: ${text}`))
    const quiet = yield* Effect.promise(() =>
      until(async () => !process.getActiveResourcesInfo().some((name) => /TCP/.test(name)), 5_000)
    )
    if (!quiet) problems.push(`left open: ${process.getActiveResourcesInfo().join(", ")}`)
    const slope = slopeOf(outcome.heaps.slice(2))
    if (outcome.heaps.length >= judged && slope > 512 * 1024)
      problems.push(`the heap grows by ${mebi(slope)} with each cycle: ${outcome.heaps.map(mebi).join(", ")}`)
    return { ...outcome, ledger, slope, problems }
  })
