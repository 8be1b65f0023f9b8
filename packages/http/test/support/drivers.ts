/**
 * The drivers of the disconnect matrix: one for each way in which a handler of this package is served.
 */
import { createServer, type Server } from "node:http"
import { createServer as createServer2, type Http2Server } from "node:http2"
import type { Duplex } from "node:stream"
import { NodeEdge } from "@curfew/http"
import { mechanismOf } from "@curfew/http/NodeEdge"
import { currentReason } from "@curfew/reason"
import { awaitPeerGone, type OnDisconnect } from "@curfew/request"
import { inspect, Owner, TaskScope } from "@curfew/scope"
import type { DisconnectDriver, DisconnectEndpoint } from "@curfew/testing"
import { createAdaptorServer, type HttpBindings } from "@hono/node-server"
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import express from "express"
import Fastify from "fastify"
import { Hono } from "hono"

export interface Link {
  readonly port: number
  readonly open: () => number
}

type AnyServer = Server | Http2Server

const isHttp2 = (server: AnyServer): server is Http2Server => !("closeAllConnections" in server)

/** A listening server as a link, with a count of its connections. */
const listening = (server: AnyServer): Effect.Effect<Link, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Link>((resume) => {
      let open = 0
      // A session of HTTP/2 outlives its streams, and is the client's to end.
      server.on(isHttp2(server) ? "stream" : "connection", (one: Duplex) => {
        open++
        one.on("close", () => open--)
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({ port, open: () => open }))
      })
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        if ("closeAllConnections" in server) server.closeAllConnections()
      })
  )

const policyOf = ({ grace, policy }: DisconnectEndpoint): OnDisconnect =>
  policy === "grace" ? { grace } : policy === "stock" ? "shield" : policy

/** The part of a call that every driver has in common. */
const asking = {
  peerGone: Effect.map(awaitPeerGone, ({ _tag }) => _tag as string),
  reason: Effect.map(
    currentReason,
    Option.match({ onNone: () => "none", onSome: ({ _tag }) => _tag as string })
  )
}

/** Whether the owner of the driver's server is still in the live tree. */
const left = Effect.map(inspect, ({ roots }) =>
  roots.map(({ name }) => name).filter((name) => name === "server")
)

const withOwner = <A, E, R>(
  use: (owner: TaskScope.TaskScope) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Owner> | Scope.Scope> =>
  Effect.flatMap(TaskScope.make({ name: "server" }), (owner) =>
    Effect.provideService(use(owner), Owner, owner)
  )

/** Handlers as effects behind an edge. */
const served =
  (make: (listener: NodeEdge.Listener) => AnyServer) =>
  (endpoint: DisconnectEndpoint): Effect.Effect<Link, never, Scope.Scope> =>
    withOwner(() =>
      Effect.gen(function* () {
        const edge = mechanismOf(yield* NodeEdge.make())
        const spec = edge.specify(undefined, {
          policy: policyOf(endpoint),
          body: "drain",
          bodyBytes: Number.POSITIVE_INFINITY
        })
        const listener = (request: NodeEdge.NodeRequest, response: NodeEdge.NodeResponse): unknown =>
          edge.startNode(request, response, spec, () => ({
            handler: Effect.map(
              endpoint.handler({
                ...asking,
                write: (part) =>
                  Effect.sync(() => void (response as { write: (p: string) => void }).write(part))
              }),
              (answer) => response.end(answer)
            ),
            hooks: { done: endpoint.edgeDone }
          }))
        return yield* listening(make(listener))
      })
    )

/** The same behind a framework: what it does to requests before and after its handler is its own. */
const inExpress = (listener: NodeEdge.Listener): AnyServer =>
  createServer(express().all("/", (request, response) => listener(request, response)))

const inFastify = (listener: NodeEdge.Listener): AnyServer => {
  let server: Server | undefined
  const app = Fastify({
    serverFactory: (handler) => {
      server = createServer(handler)
      return server
    }
  })
  // The matrix sends bodies of no type, which are the handler's to read.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser("*", (_request, _payload, done) => done(null))
  app.all("/", (request, reply) => {
    reply.hijack()
    listener(request.raw, reply.raw)
  })
  app.ready()
  return server as unknown as Server
}

const inHono = (listener: NodeEdge.Listener): AnyServer => {
  const app = new Hono<{ Bindings: HttpBindings }>().all("/", (context) => {
    const { incoming, outgoing } = context.env
    listener(incoming, outgoing)
    return new Promise<Response>((resolve) => outgoing.on("close", () => resolve(RESPONSE_ALREADY_SENT)))
  })
  return createAdaptorServer({ fetch: app.fetch }) as Server
}

const policies = ["cancel", "shield", "grace", "detach"] as const
const connections = ({ open }: Link): number => open()

export const nodeHttp1: DisconnectDriver<Link> = {
  name: "node:http",
  policies,
  serve: served((listener) => createServer(listener)),
  connections,
  left
}

export const nodeHttp2: DisconnectDriver<Link> = {
  name: "node:http2",
  policies,
  serve: served((listener) => createServer2(listener)),
  connections,
  left
}

export const frameworks: ReadonlyArray<DisconnectDriver<Link>> = [
  { name: "Express 5", policies, serve: served(inExpress), connections, left },
  { name: "Fastify 5", policies, serve: served(inFastify), connections, left },
  { name: "Hono", policies, serve: served(inHono), connections, left }
]
