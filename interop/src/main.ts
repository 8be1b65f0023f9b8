/**
 * Runs the tunnel against the Go library in every combination and prints one table; the last line is
 * `N passed, N failed`. The upstream suite's scenarios are its cases: channel cases of all kinds, a stalled reader,
 * many callers, and the library's own two programs.
 */

import { openForward, Services, serveReverse, type TunnelChannel, TunnelService } from "@curfew/tunnel"
import {
  type ChannelInterface,
  Client,
  status as Code,
  credentials,
  Metadata,
  makeClientConstructor,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type sendUnaryData
} from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Case, cases, type TestClient } from "./cases.ts"
import { build, type Counted, countTests, GoProcess, type Programs } from "./goPeer.ts"
import { definition, implementation, triggerDefinition } from "./testService.ts"

type Flow = "both" | "not at the dialled end" | "not at the dialling end"

interface Row {
  readonly dials: "Go" | "Curfew"
  readonly listens: "Go" | "Curfew"
  readonly direction: "forward" | "reverse"
  readonly flow: Flow
}

const options = (on: boolean) => ({ flowControl: on, maxMessageSize: 16 << 20 })
const environment = (on: boolean) => ({ CURFEW_FLOW_CONTROL: on ? "on" : "off" })

const offered = Services.empty.pipe(Services.add(definition, implementation))

const listen = (on: boolean) =>
  Effect.gen(function* () {
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => new Server()),
      (server) => Effect.sync(() => server.forceShutdown())
    )
    const service = yield* TunnelService.make({
      ...options(on),
      services: (self) => offered.pipe(Services.add(self.definition, self.implementation)),
      affinityKey: ({ metadata }) => String(metadata.get("test-client-key")[0] ?? "")
    })
    service.addTo(server)
    const port = yield* Effect.callback<number>((resume) =>
      server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        resume(error === null ? Effect.succeed(bound) : Effect.die(error))
      )
    )
    return { server, service, port }
  })

const go = (programs: Programs, role: string, on: boolean, more: Record<string, string> = {}) =>
  Effect.acquireRelease(
    Effect.sync(
      () => new GoProcess(programs.peer, ["-test.v"], { CURFEW_ROLE: role, ...environment(on), ...more })
    ),
    (peer) => Effect.sync(() => peer.kill())
  )

const goPort = (peer: GoProcess) =>
  Effect.map(
    Effect.promise(() => peer.said(/port (\d+)/)),
    (match) => Number(match[1])
  )

const to = (port: number) => ({ address: `127.0.0.1:${port}`, credentials: credentials.createInsecure() })

/** What a Go caller found. */
const found = (peer: GoProcess): Effect.Effect<Counted> =>
  Effect.map(
    Effect.promise(() => peer.ended),
    (code) => {
      const counted = countTests(peer.output)
      const silent = code !== 0 && counted.failures.length === 0
      return silent
        ? { ...counted, failures: [`the process ended with ${code}: ${peer.output.slice(-500)}`] }
        : counted
    }
  )

/** Our own cases over a tunnel, and then over a tunnel inside it. */
const ask = (
  channel: TunnelChannel,
  flow: boolean,
  wanted: ReadonlyArray<Case>
): Effect.Effect<Counted, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const plain = yield* askOnce(channel, "", wanted)
    const nested = yield* openForward({ client: channel.client(Client) }, options(flow))
    const inside = yield* askOnce(nested, "nested, ", wanted)
    return { passed: plain.passed + inside.passed, failures: [...plain.failures, ...inside.failures] }
  })

const askOnce = (channel: TunnelChannel, lead: string, wanted: ReadonlyArray<Case>): Effect.Effect<Counted> =>
  Effect.promise(async () => {
    const client = stubOf<TestClient>(channel, definition)
    const failures: Array<string> = []
    let passed = 0
    for (const { name, run } of wanted) {
      try {
        await run(client)
        passed++
      } catch (error) {
        failures.push(`${lead}${name}: ${sentence(error)}`)
      }
    }
    return { passed, failures }
  })

const run = (programs: Programs, { dials, direction, flow, listens }: Row) => {
  const dialled = flow !== "not at the dialled end"
  const dialling = flow !== "not at the dialling end"
  const serves = direction === "forward" ? listens : dials
  const wanted = cases.filter((it) => it.needsFlowControl !== true || flow === "both" || serves === "Curfew")
  // The same for a Go caller.
  const stall: Record<string, string> = wanted.length < cases.length ? { CURFEW_STALL: "off" } : {}
  const agentServices = Effect.map(
    TunnelService.make({ ...options(dialling), services: offered }),
    (nested) => offered.pipe(Services.add(nested.definition, nested.implementation))
  )
  return Effect.scoped(
    Effect.gen(function* () {
      if (listens === "Curfew") {
        const { port, service } = yield* listen(dialled)
        if (dials === "Go" && direction === "forward")
          return yield* Effect.flatMap(
            go(programs, "call", dialling, { CURFEW_ADDRESS: `127.0.0.1:${port}`, ...stall }),
            found
          )
        if (dials === "Go") {
          yield* go(programs, "agent", dialling, { CURFEW_ADDRESS: `127.0.0.1:${port}` })
          return yield* Effect.flatMap(service.reverse.awaitReverse(), (tunnel) =>
            ask(tunnel, dialled, wanted)
          )
        }
        if (direction === "forward")
          return yield* Effect.flatMap(openForward(to(port), options(dialling)), (tunnel) =>
            ask(tunnel, dialling, wanted)
          )
        yield* serveReverse(to(port), yield* agentServices, options(dialling))
        return yield* Effect.flatMap(service.reverse.awaitReverse(), (tunnel) => ask(tunnel, dialled, wanted))
      }
      if (direction === "forward") {
        const port = yield* Effect.flatMap(go(programs, "serve", dialled), goPort)
        if (dials === "Curfew")
          return yield* Effect.flatMap(openForward(to(port), options(dialling)), (tunnel) =>
            ask(tunnel, dialling, wanted)
          )
        return yield* Effect.flatMap(
          go(programs, "call", dialling, { CURFEW_ADDRESS: `127.0.0.1:${port}`, ...stall }),
          found
        )
      }
      const inviting = yield* go(programs, "invite", dialled, stall)
      const port = yield* goPort(inviting)
      if (dials === "Curfew") yield* serveReverse(to(port), yield* agentServices, options(dialling))
      else yield* go(programs, "agent", dialling, { CURFEW_ADDRESS: `127.0.0.1:${port}` })
      return yield* found(inviting)
    })
  )
}

const stubOf = <C>(channel: TunnelChannel | ChannelInterface, service: ServiceDefinition): C => {
  const Stub = makeClientConstructor(service, "test")
  const override = "grpc" in channel ? channel.grpc : channel
  return new Stub("tunnel", credentials.createInsecure(), { channelOverride: override }) as unknown as C
}

const sentence = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Calls of all kinds until the time is over, as the Go library's programs do. */
const batch = async (client: TestClient, millis: number): Promise<number> => {
  const until = performance.now() + millis
  const wanted = cases.filter(({ name }) => name.endsWith("success"))
  let calls = 0
  await Promise.all(
    wanted.map(async ({ run }) => {
      for (; performance.now() < until; calls++) await run(client)
    })
  )
  return calls
}

/** The Go library's own client program against our server: forward, and called back over a reverse tunnel. */
const upstreamClient = (programs: Programs, on: boolean) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { port, server, service } = yield* listen(on)
      server.addService(triggerDefinition, {
        TriggerTestRPCs: (call: { request: { client_key: string } }, answer: sendUnaryData<object>) => {
          Effect.runPromise(Effect.timeout(service.reverse.awaitReverse(call.request.client_key), "1 second"))
            .then((tunnel) => batch(stubOf(tunnel, definition), 1_000))
            .then(() => answer(null, {}))
            .catch((error) => answer({ code: Code.INTERNAL, details: sentence(error) }))
        }
      })
      const args = ["-server-port", `${port}`, ...(on ? [] : ["-no-flow-control"])]
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new GoProcess(programs.upstreamClient, args)),
        (client) => Effect.sync(() => client.kill())
      )
      const code = yield* Effect.promise(() => client.ended)
      const failures = code === 0 ? [] : [`tunneltestclient ended with ${code}: ${client.output.slice(-500)}`]
      return { passed: 1 - failures.length, failures }
    })
  )

/** Our client against the Go library's own server program, in both directions. */
const upstreamServer = (programs: Programs, on: boolean) =>
  Effect.scoped(
    Effect.gen(function* () {
      const args = ["-port", "0", ...(on ? [] : ["-no-flow-control"])]
      const server = yield* Effect.acquireRelease(
        Effect.sync(() => new GoProcess(programs.upstreamServer, args)),
        (server) => Effect.sync(() => server.kill())
      )
      const [, port] = yield* Effect.promise(() => server.said(/Listening on \S+:(\d+)/))
      const tunnel = yield* openForward(to(Number(port)), options(true))
      yield* Effect.promise(() => batch(stubOf(tunnel, definition), 1_000))
      const metadata = new Metadata()
      metadata.set("test-client-key", "curfew")
      yield* serveReverse(to(Number(port)), offered, { ...options(true), metadata })
      const direct = yield* Effect.acquireRelease(
        Effect.sync(() => new Client(`127.0.0.1:${port}`, credentials.createInsecure())),
        (client) => Effect.sync(() => client.close())
      )
      const trigger = stubOf<Trigger>(direct.getChannel(), triggerDefinition)
      const error = yield* Effect.callback<Error | null>((resume) => {
        trigger.TriggerTestRPCs({ client_key: "curfew" }, (error) => resume(Effect.succeed(error)))
      })
      return error === null
        ? { passed: 2, failures: [] }
        : { passed: 1, failures: [`called back: ${error.message}`] }
    })
  )

interface Trigger {
  TriggerTestRPCs(request: object, done: (error: Error | null) => void): unknown
}

const rows: ReadonlyArray<Row> = (["forward", "reverse"] as const).flatMap((direction) =>
  (["Curfew", "Go"] as const).flatMap((listens) =>
    (["Curfew", "Go"] as const).flatMap((dials) =>
      (["both", "not at the dialled end", "not at the dialling end"] as const).map((flow) => ({
        direction,
        listens,
        dials,
        flow
      }))
    )
  )
)

const line = (direction: string, dials: string, listens: string, flow: string, rest: string) =>
  console.log(`${direction.padEnd(9)} ${dials.padEnd(8)} ${listens.padEnd(8)} ${flow.padEnd(24)} ${rest}`)

const programs = build()
if (typeof programs === "string") {
  console.log(programs)
  console.log("0 passed, 1 failed")
  process.exit(1)
}

let passed = 0
const failures: Array<string> = []
const take = (name: string, counted: Counted, seconds: number): string => {
  passed += counted.passed
  failures.push(...counted.failures.map((failure) => `${name}: ${failure}`))
  return `${`${counted.passed}`.padStart(6)} ${`${counted.failures.length}`.padStart(6)} ${seconds.toFixed(1).padStart(7)} s`
}

const timed = async (work: Effect.Effect<Counted, unknown>): Promise<readonly [Counted, number]> => {
  const began = performance.now()
  const counted = await Effect.runPromise(
    Effect.catchCause(work, (cause) => Effect.succeed({ passed: 0, failures: [String(cause)] }))
  )
  return [counted, (performance.now() - began) / 1000]
}

line("direction", "dials", "listens", "flow control", "passed failed     time")
for (const row of rows) {
  const [counted, seconds] = await timed(run(programs, row))
  const name = `${row.direction}, ${row.dials} to ${row.listens}, flow control ${row.flow}`
  line(row.direction, row.dials, row.listens, row.flow, take(name, counted, seconds))
}
for (const on of [true, false]) {
  const own = [
    ["Go", "Curfew", "both", upstreamClient, "the Go library's own client program"],
    ["Curfew", "Go", "both", upstreamServer, "the Go library's own server program"]
  ] as const
  for (const [dials, listens, direction, ask, what] of own) {
    const [counted, seconds] = await timed(ask(programs, on))
    line(
      direction,
      dials,
      listens,
      on ? "both" : "not at the Go end",
      `${take(what, counted, seconds)}   ${what}`
    )
  }
}
for (const failure of failures) console.log(`failed: ${failure}`)
console.log(`${passed} passed, ${failures.length} failed`)
process.exitCode = failures.length === 0 && passed > 0 ? 0 : 1
