/** The server of the load, in a process of its own: its parent asks it for what it has counted. */

import { EdgeMetrics, HttpEdge } from "@curfew/http"
import { EdgeServer } from "@curfew/http/EdgeServer"
import { cancellable } from "@curfew/request"
import { OnUnhandled, Owner, type Unhandled } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import type * as NetAddress from "effect/net/NetAddress"
import * as Stream from "effect/Stream"

export interface Counts {
  /** Requests that the edge took. */
  readonly taken: number
  /** Handlers. */
  readonly started: number
  readonly released: number
  /** By outcome and status. */
  readonly records: Readonly<Record<string, number>>
  /** At warning and above. */
  readonly logs: ReadonlyArray<string>
  readonly unhandled: number
  readonly heap: number
  /** Milliseconds of processor time, without what the counting itself takes. */
  readonly cpu: number
}

let started = 0
let released = 0
let unhandled = 0
const records: Record<string, number> = {}
const logs: Array<string> = []

/** Some work of a few milliseconds with something to give back. */
const work = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  const takes = Number(new URL(request.url, "http://localhost").searchParams.get("ms"))
  started++
  return yield* Effect.ensuring(
    Effect.as(Effect.sleep(takes), HttpServerResponse.text("x".repeat(100))),
    Effect.sync(() => released++)
  )
})

const routes = Layer.mergeAll(
  HttpRouter.add("GET", "/read", cancellable(work)),
  HttpRouter.add("POST", "/write", work),
  HttpRouter.add(
    "GET",
    "/stream",
    Effect.map(work, () =>
      HttpServerResponse.stream(
        Stream.encodeText(Stream.tap(Stream.make("a".repeat(50), "b".repeat(50)), () => Effect.sleep(1)))
      )
    )
  )
)

const app = HttpEdge.edge({
  accessLog: false,
  onRecord: ({ outcome, status }) =>
    Effect.sync(() => {
      const key = `${outcome} ${status}`
      records[key] = (records[key] ?? 0) + 1
    })
})(routes)

const logger = Logger.make(({ logLevel, message }) => {
  if (logLevel !== "Info" && logLevel !== "Debug" && logLevel !== "Trace") logs.push(`${logLevel} ${message}`)
})

const announce = Layer.effectDiscard(
  Effect.map(HttpServer.HttpServer, ({ address }) =>
    process.send?.({ port: (address as NetAddress.InetAddress).port })
  )
)

const main = Layer.mergeAll(
  announce,
  HttpRouter.serve(app, { disableLogger: true, disableListenLog: true })
).pipe(
  Layer.provide(EdgeServer.layer({ port: 0 })),
  Layer.provide(Owner.layer()),
  Layer.provide(Logger.layer([logger]))
)

const counted = Effect.map(
  Effect.forEach(["GET /read", "POST /write", "GET /stream"], (route) =>
    Metric.value(Metric.withAttributes(EdgeMetrics.started, { route, transport: "http1" }))
  ),
  (all) => all.reduce((sum, { count }) => sum + count, 0)
)

const cpuNow = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}
let counting = 0

process.on("message", () => {
  const asked = cpuNow()
  const taken = Effect.runSync(counted)
  globalThis.gc?.()
  globalThis.gc?.()
  const heap = process.memoryUsage().heapUsed
  const cpu = asked - counting
  counting += cpuNow() - asked
  process.send?.({ taken, started, released, records, cpu, logs, unhandled, heap } satisfies Counts)
})
process.on("disconnect", () => process.exit(0))

Effect.runFork(
  Effect.provideService(Layer.launch(main), OnUnhandled, (_: Unhandled) =>
    Effect.sync(() => void unhandled++)
  )
)
