/** The disconnect matrix over Effect's server: answers and response streams, behind an edge and without one. */
import { createServer, type Server } from "node:http"
import { createServer as createServer2 } from "node:http2"
import type { AddressInfo } from "node:net"
import type { Duplex } from "node:stream"
import { currentReason } from "@curfew/reason"
import { awaitPeerGone, type OnDisconnect } from "@curfew/request"
import { inspect, Owner, TaskScope } from "@curfew/scope"
import type { DisconnectDriver, DisconnectEndpoint } from "@curfew/testing/Disconnects"
import { disconnectMatrix } from "@curfew/testing/disconnectMatrix"
import { type HttpLink, httpDisconnects } from "@curfew/testing/httpDisconnects"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { describe, test } from "vitest"
import { EdgeServer } from "../src/EdgeServer.ts"
import { HttpEdge } from "../src/index.ts"
import { http2Departures } from "./support/http2Departures.ts"

interface Link extends HttpLink {
  readonly open: () => number
}

const policyOf = ({ grace, policy }: DisconnectEndpoint): OnDisconnect =>
  policy === "grace" ? { grace } : policy === "stock" ? "shield" : policy

const asked = {
  peerGone: Effect.map(awaitPeerGone, ({ _tag }) => _tag as string),
  reason: Effect.map(
    currentReason,
    Option.match({ onNone: () => "none", onSome: ({ _tag }) => _tag as string })
  )
}

/** A handler whose parts, and whose answer, make up a response stream. */
const streamed = (endpoint: DisconnectEndpoint, known: typeof asked | undefined) =>
  Effect.map(Queue.bounded<string>(16), (parts) => {
    const handled = endpoint.handler({
      write: (part) => Effect.asVoid(Queue.offer(parts, part)),
      peerGone: known?.peerGone,
      reason: known?.reason
    })
    const answer = Stream.fromEffect(handled)
    const body = Stream.merge(Stream.fromQueue(parts), answer, { haltStrategy: "right" })
    return HttpServerResponse.stream(Stream.encodeText(body))
  })

const answered = (endpoint: DisconnectEndpoint, known: typeof asked | undefined) =>
  Effect.map(
    endpoint.handler({ write: () => Effect.void, peerGone: known?.peerGone, reason: known?.reason }),
    (value) => HttpServerResponse.text(value)
  )

type Make = typeof answered

const serve =
  (make: Make, mode: "edge" | "staged" | "stock", http2 = false) =>
  (endpoint: DisconnectEndpoint) =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make({ name: "server" })
      const server = (http2 ? createServer2() : createServer()) as Server
      const link = linkOf(server, http2)
      const routes = HttpRouter.add("*", "/", make(endpoint, mode === "stock" ? undefined : asked))
      const edge = HttpEdge.edge({
        accessLog: false,
        routes: { "* /": policyOf(endpoint) },
        body: "drain",
        bodyBytes: Number.POSITIVE_INFINITY
      })
      const live = HttpRouter.serve((mode === "stock" ? routes : edge(routes)) as never, {
        disableLogger: true,
        disableListenLog: true,
        middleware: (handled) => Effect.ensuring(handled, endpoint.edgeDone)
      }).pipe(
        Layer.provide(
          mode === "staged"
            ? EdgeServer.layer({ port: 0, server: () => server })
            : NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" })
        ),
        Layer.provide(Layer.succeed(Owner)(owner)),
        Layer.provide(Logger.layer([]))
      )
      yield* Effect.addFinalizer(() => Effect.sync(() => server.closeAllConnections?.()))
      yield* Effect.orDie(Layer.build(live as unknown as Layer.Layer<never>))
      return { ...link, port: (server.address() as AddressInfo).port }
    })

const linkOf = (server: Server, http2: boolean): { readonly open: () => number } => {
  let open = 0
  // A session of HTTP/2 outlives its streams, and is the client's to end.
  server.on(http2 ? "stream" : "connection", (socket: Duplex) => {
    open++
    socket.on("close", () => open--)
  })
  return { open: () => open }
}

const connections = ({ open }: Link) => open()
const policies = ["cancel", "shield", "grace", "detach"] as const
const left = Effect.map(inspect, ({ roots }) =>
  roots.map(({ name }) => name).filter((name) => name === "server")
)

const drivers: ReadonlyArray<DisconnectDriver<Link>> = [
  { name: "answers behind an edge", policies, serve: serve(answered, "edge"), connections, left },
  { name: "streams behind an edge", policies, serve: serve(streamed, "edge"), connections, left },
  {
    name: "streams of a server that stops in stages",
    policies,
    serve: serve(streamed, "staged"),
    connections,
    left
  },
  {
    name: "Effect's server alone",
    policies: ["stock"],
    stock: "interrupted",
    // Its parser waits for somebody to read the body, and its socket with it.
    hears: (departure) => !departure.includes("body that nobody reads"),
    serve: serve(answered, "stock"),
    connections
  }
]

const overHttp2: ReadonlyArray<DisconnectDriver<Link>> = [
  {
    name: "answers behind an edge, HTTP/2",
    policies,
    serve: serve(answered, "edge", true),
    connections,
    left
  },
  {
    name: "streams behind an edge, HTTP/2",
    policies,
    serve: serve(streamed, "staged", true),
    connections,
    left
  }
]

describe.each(overHttp2)("L39, L40: the disconnect matrix over $name", { timeout: 60_000 }, (driver) => {
  const departures = driver.name.startsWith("streams")
    ? http2Departures
    : http2Departures.filter(({ at }) => at !== "streaming")
  const cases = disconnectMatrix(driver, departures).map(({ name, run }) => [name, run] as const)
  test.each(cases)("%s", async (_, run) => {
    await Effect.runPromise(run)
  })
})

describe.each(drivers)("L39, L40: the disconnect matrix over $name", { timeout: 60_000 }, (driver) => {
  // Only a stream is left while it streams.
  const departures = driver.name.startsWith("streams")
    ? httpDisconnects
    : httpDisconnects.filter(({ at }) => at !== "streaming")
  const cases = disconnectMatrix(driver, departures).map(({ name, run }) => [name, run] as const)
  test.each(cases)("%s", async (_, run) => {
    await Effect.runPromise(run)
  })
})
