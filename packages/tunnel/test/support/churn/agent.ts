/**
 * The dialling process of the churn: opens tunnels of both kinds, calls over the forward ones, serves the reverse ones,
 * and closes and opens single ones again all the time. Told "stop" it ends in good order and reports its accounts.
 *
 *   agent.ts <address> <tunnels> <streams> <seed> <hold>
 */
import { setTimeout as later } from "node:timers/promises"
import { credentials, Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { openForward, Services, serveReverse, type TunnelHandle } from "../../../src/index.ts"
import { drawing } from "../draw.ts"
import { definition, EchoClient, implementation } from "../echo.ts"
import { callers, discrepancies, makeLedger, observe } from "./ledger.ts"

const [address = "", tunnels = "0", streams = "0", seed = "0", hold = "0"] = process.argv.slice(2)
const draw = drawing(Number(seed))
const ledger = makeLedger()
const observer = observe(ledger)
const to = { address, credentials: credentials.createInsecure() }
const services = Services.empty.pipe(Services.add(definition, implementation()))
const clients = new Set<EchoClient>()
let stopping = false
let fibers = 0
let stop = (): void => undefined

const lifetime = (): number => Number(hold) + draw(Number(hold) * 5)

/** Most tunnels drain before they are closed; the others are closed under their calls. */
const leave = (tunnel: TunnelHandle, retire: Effect.Effect<unknown>): Effect.Effect<unknown> =>
  draw(4) === 0 ? Effect.void : Effect.andThen(retire, tunnel.drain(Number(hold) * 2))

const forward = Effect.scoped(
  Effect.gen(function* () {
    const tunnel = yield* openForward(to, { observer, openTimeout: "30 seconds" })
    const client = tunnel.client(EchoClient)
    clients.add(client)
    yield* Effect.addFinalizer(() => Effect.sync(() => clients.delete(client)))
    const retire = Effect.sync(() => clients.delete(client))
    yield* Effect.raceFirst(Effect.andThen(Effect.sleep(lifetime()), leave(tunnel, retire)), tunnel.closed)
  })
)

const reverse = Effect.scoped(
  Effect.gen(function* () {
    const tunnel = yield* serveReverse(to, services, { observer, openTimeout: "30 seconds" })
    yield* Effect.raceFirst(
      Effect.andThen(Effect.sleep(lifetime()), leave(tunnel, Effect.void)),
      tunnel.closed
    )
  })
)

const slot = (index: number) =>
  (index % 2 === 0 ? forward : reverse).pipe(
    Effect.catch(() => Effect.sleep(50 + draw(200))),
    Effect.forever
  )

const told = Effect.callback<void>((resume) => {
  stop = () => resume(Effect.void)
})
process.on("message", () => {
  stopping = true
  stop()
})
process.on("disconnect", () => process.exit(0))

const pick = (): EchoClient | undefined => {
  const all = [...clients]
  return all[draw(all.length)]
}

const life = Effect.gen(function* () {
  const running = Effect.forEach(
    Array.from({ length: Number(tunnels) }, (_, index) => index),
    slot,
    { concurrency: "unbounded", discard: true }
  )
  const busy = callers(pick, draw, ledger, new Metadata(), Math.ceil(Number(streams) / 2), Number(hold))
  const ready = setInterval(() => process.send?.({ open: ledger.tunnelsOpened - ledger.tunnelsClosed }), 200)
  yield* Effect.raceFirst(running, told)
  clearInterval(ready)
  yield* Effect.promise(() => busy.stop())
}).pipe(
  Effect.provideService(Metric.FiberRuntimeMetrics, {
    recordFiberStart: () => void fibers++,
    recordFiberEnd: () => void fibers--
  })
)

await Effect.runPromise(life)
// What overran its clean-up budget on a machine that is busy may take a while.
for (const end = performance.now() + 10_000; fibers > 0 && performance.now() < end; ) await later(50)
const found = [...discrepancies("agent", ledger)]
if (fibers !== 0) found.push(`agent: ${fibers} fibers are left`)
process.send?.({ ledger, found, stopping }, () => process.exit(0))
