/**
 * The process that calls `127.0.0.1:port`: `direct`, by a channel of grpc-js; `stubs`, by stubs over a tunnel; `effect`, by
 * a client of `@curfew/grpc` over a tunnel; `bare`, a stream of Node's HTTP/2. A third argument is the options of a direct channel.
 */
import { Owner } from "@curfew/scope"
import { openForward } from "@curfew/tunnel"
import { credentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { answer } from "../harness/child.ts"
import { bareDriver } from "./bare.ts"
import { type Driver, deferred, type Running } from "./driver.ts"
import { effectDriver } from "./effects.ts"
import {
  type Closed,
  closedLoop,
  nextNumber,
  type Open,
  type OpenResult,
  openLoop,
  percentile
} from "./load.ts"
import { Stub, stubDriver } from "./stubs.ts"
import type { Order } from "./wire.ts"

const [kind, port, channelOptions = "{}"] = process.argv.slice(2)
const address = `127.0.0.1:${port}`
const insecure = credentials.createInsecure()

const direct = Effect.sync(() => stubDriver(new Stub(address, insecure, JSON.parse(channelOptions))))

const stubs = Effect.map(openForward({ address, credentials: insecure }), (tunnel) =>
  stubDriver(tunnel.client(Stub))
)

const effect = Effect.flatMap(openForward({ address, credentials: insecure }), (tunnel) =>
  effectDriver(tunnel.grpc)
)

const bare = Effect.sync(() => bareDriver(address, "one by one"))

const batches = Effect.sync(() => bareDriver(address, "batches"))

const kinds: Record<string, Effect.Effect<Driver, unknown, Effect.Services<typeof stubs> | Owner>> = {
  direct,
  stubs,
  effect,
  bare,
  batches
}

const { promise: driver, reject, resolve } = deferred<Driver>()
const calling = Effect.flatMap(kinds[kind as string] as typeof stubs, (driver) => {
  resolve(driver)
  return Effect.never
})
Effect.runPromise(Effect.scoped(calling).pipe(Effect.provide(Owner.layer()))).catch(reject)

export interface Transfer extends Order {
  readonly direction: "download" | "upload"
}

/** Bytes per second of one stream after the other, for so long. */
const transfer = async (order: Transfer & { readonly millis: number }): Promise<number> => {
  const made = await driver
  const begin = performance.now()
  let bytes = 0
  do {
    await (order.direction === "download"
      ? made.download(order, nextNumber()).done
      : made.upload(order, nextNumber()))
    bytes += order.size * order.count
  } while (performance.now() - begin < order.millis)
  return (bytes * 1_000) / (performance.now() - begin)
}

export interface Beside {
  readonly small: Open
  /** What streams meanwhile; nothing, where it is absent. */
  readonly stream?: Order
}

export interface BesideResult extends Pick<OpenResult, "p50" | "p99" | "p99AtMost"> {
  /** Of the stream. */
  readonly megabytesPerSecond: number
}

const beside = async ({ small, stream }: Beside): Promise<BesideResult> => {
  const made = await driver
  let received = 0
  let running: Running | undefined
  if (stream !== undefined) {
    const first = deferred<void>()
    running = made.download(stream, nextNumber(), () => {
      received++
      first.resolve()
    })
    await Promise.race([first.promise, running?.done])
  }
  const [before, begin] = [received, performance.now()]
  const { p50, p99, p99AtMost } = await openLoop(made, small)
  const bytes = (received - before) * (stream?.size ?? 0)
  const megabytesPerSecond = bytes / 1_000 / (performance.now() - begin)
  await running?.cancel()
  return { p50, p99, p99AtMost, megabytesPerSecond }
}

export interface Released {
  readonly releasedP50: number
  readonly releasedP99: number
  readonly roundTripP50: number
  readonly roundTripP99: number
}

const releases = async (count: number): Promise<Released> => {
  const { releases } = await driver
  if (releases === undefined) throw new Error(`"${kind}" has no handlers with scopes.`)
  const { releasedMicros, roundTripMicros } = await releases(count)
  return {
    releasedP50: percentile(releasedMicros, 0.5),
    releasedP99: percentile(releasedMicros, 0.99),
    roundTripP50: percentile(roundTripMicros, 0.5),
    roundTripP99: percentile(roundTripMicros, 0.99)
  }
}

answer({
  closed: async (closed: Closed) => closedLoop(await driver, closed),
  open: async (open: Open) => openLoop(await driver, open),
  transfer,
  beside,
  releases
})
