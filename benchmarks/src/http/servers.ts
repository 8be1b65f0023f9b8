/**
 * The same two handlers on every server, bare, behind an edge with its defaults, and behind what one writes by hand in its
 * place: `GET /items/7`, a small JSON answer, and `POST /sums`, a small JSON body and an answer that can only be right when the body was read.
 *
 * Invariants:
 * 1. Ours and the bare one differ in the edge alone: what reads, computes and answers is one function for all.
 * 2. Everything of the edge is on: a policy, a deadline, records, counters, and its part in the server's shutdown.
 * 3. No server closes a connection of a load because it was idle. A process that gets no processor for so long finds its
 *    timers over before it has read the requests that wait, and would reset their connections.
 */
import { AsyncLocalStorage } from "node:async_hooks"
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse
} from "node:http"
import { createServer as createHttp2Server, type Http2Server } from "node:http2"
import { nodeEdge } from "@curfew/http"
import { EdgeServer } from "@curfew/http/EdgeServer"
import * as ExpressEdge from "@curfew/http/Express"
import * as FastifyEdge from "@curfew/http/Fastify"
import * as HonoEdge from "@curfew/http/Hono"
import * as HttpEdge from "@curfew/http/HttpEdge"
import { fetchHandler } from "@curfew/http/Web"
import { cancellable } from "@curfew/request"
import { Owner } from "@curfew/scope"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { createAdaptorServer, type HttpBindings } from "@hono/node-server"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import { identity } from "effect/Function"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import type * as NetAddress from "effect/net/NetAddress"
import express, { type Request as ExpressRequest, type Response as ExpressResponse } from "express"
import Fastify, { type FastifyRequest } from "fastify"
import { type Context, Hono } from "hono"

/** How a server is built: by itself, behind an edge, or with what one writes by hand in its place. */
export const sides = ["bare", "edge", "hand"] as const
export type Side = (typeof sides)[number]

/** Listens, and says where. */
export type Build = (side: Side) => Promise<number>

interface Sum {
  readonly left: number
  readonly right: number
}

const item = (id: string | undefined) => ({ id, name: "a small item", tags: ["one", "two"], price: 42 })
const sum = ({ left, right }: Sum) => ({ sum: left + right, left, right })

/** Milliseconds. */
const deadline = 30_000

/** An edge as users have it: each of its options that costs something with each request. */
const edgeOf = () => nodeEdge({ deadline })

/** Far above what a load takes. Not without a limit: keeping one is among what a request of node costs. */
const keptFor = 10 * 60_000

const listening = (server: Server | Http2Server): Promise<number> =>
  new Promise((resolve) => {
    if ("keepAliveTimeout" in server) server.keepAliveTimeout = keptFor
    server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port))
  })

const current = new AsyncLocalStorage<AbortSignal>()

/** The requests that a plain layer has under way, for a shutdown to wait for, and what it has counted. */
const underWay = new Set<AbortController>()
const counts = { answered: 0, left: 0 }

/**
 * What the edge does, as one writes it by hand in a few lines: a signal, found from anywhere in the handler, that a leaving
 * client or the end of the request's time aborts, a record of what is under way, and two counts. It has no policy, waits for
 * nothing that a handler left running, and tells nobody what was lost.
 */
const byHand = <A>(
  response: { readonly writableEnded: boolean; on(name: "close", listener: () => void): unknown },
  handler: () => A
): A => {
  const controller = new AbortController()
  underWay.add(controller)
  const timer = setTimeout(() => controller.abort(new Error("The request took too long.")), deadline)
  response.on("close", () => {
    clearTimeout(timer)
    underWay.delete(controller)
    if (response.writableEnded) counts.answered++
    else {
      counts.left++
      controller.abort(new Error("The client has gone."))
    }
  })
  return current.run(controller.signal, handler)
}

/** What is written by hand for a server. */
export const handOf = (name: string): string =>
  name === "Effect HttpServer"
    ? "by hand, a fiber of an owner for each handler with a scope, a name, a time-out and two counts"
    : "by hand, a listener, a signal in an AsyncLocalStorage, a timer, a set and two counts"

const bodyOf = (request: IncomingMessage): Promise<string> =>
  new Promise((resolve, reject) => {
    const parts: Array<Buffer> = []
    request.on("data", (part: Buffer) => parts.push(part))
    request.on("end", () => resolve(Buffer.concat(parts).toString()))
    request.on("error", reject)
  })

const answer = (response: ServerResponse, value: unknown): void => {
  const text = JSON.stringify(value)
  response.setHeader("content-type", "application/json")
  response.setHeader("content-length", Buffer.byteLength(text))
  response.end(text)
}

const plain = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
  if (request.method === "POST") answer(response, sum(JSON.parse(await bodyOf(request))))
  else answer(response, item(request.url?.slice("/items/".length)))
}

const node =
  (create: (listener: RequestListener) => Server | Http2Server): Build =>
  (side) => {
    if (side === "bare") return listening(create((request, response) => void plain(request, response)))
    if (side === "hand")
      return listening(create((request, response) => void byHand(response, () => plain(request, response))))
    const edge = edgeOf()
    const server = create(edge.handle(cancellable(plain)))
    edge.attach(server)
    return listening(server)
  }

const http1 = node((listener) => createServer(listener))
const http2 = node((listener) => createHttp2Server(listener as never))

const onExpress: Build = (side) => {
  const app = express()
  const get = async (request: ExpressRequest, response: ExpressResponse) => {
    response.json(item(request.params["id"] as string))
  }
  const post = async (request: ExpressRequest, response: ExpressResponse) => {
    response.json(sum(request.body as Sum))
  }
  if (side === "bare") {
    app.get("/items/:id", get)
    app.post("/sums", express.json(), post)
    return listening(createServer(app))
  }
  if (side === "hand") {
    app.get("/items/:id", (request, response) => byHand(response, () => get(request, response)))
    app.post("/sums", express.json(), (request, response) => byHand(response, () => post(request, response)))
    return listening(createServer(app))
  }
  const edge = edgeOf()
  app.get("/items/:id", ExpressEdge.route(edge, cancellable(get), { route: "/items/:id" }))
  app.post("/sums", express.json(), ExpressEdge.route(edge, cancellable(post), { route: "/sums" }))
  const server = createServer(app)
  edge.attach(server)
  return listening(server)
}

const onFastify: Build = async (side) => {
  const app = Fastify({ keepAliveTimeout: keptFor })
  const get = async (request: FastifyRequest) => item((request.params as { id: string }).id)
  const post = async (request: FastifyRequest) => sum(request.body as Sum)
  if (side === "bare") {
    app.get("/items/:id", get)
    app.post("/sums", post)
  } else if (side === "hand") {
    app.get("/items/:id", (request, reply) => byHand(reply.raw, () => get(request)))
    app.post("/sums", (request, reply) => byHand(reply.raw, () => post(request)))
  } else {
    const edge = edgeOf()
    app.get("/items/:id", FastifyEdge.route(edge, cancellable(get), { route: "/items/:id" }))
    app.post("/sums", FastifyEdge.route(edge, cancellable(post), { route: "/sums" }))
    edge.attach(app.server)
  }
  await app.listen({ port: 0, host: "127.0.0.1" })
  return (app.server.address() as { port: number }).port
}

/** The response of node that `@hono/node-server` hands over. */
const outgoing = (environment: unknown): ServerResponse => (environment as HttpBindings).outgoing

const onHono: Build = (side) => {
  const app = new Hono()
  const get = async (context: Context) => context.json(item(context.req.param("id")))
  const post = async (context: Context) => context.json(sum(await context.req.json()))
  if (side === "bare") {
    app.get("/items/:id", get)
    app.post("/sums", post)
    return listening(createAdaptorServer(app) as Server)
  }
  if (side === "hand") {
    app.get("/items/:id", (context) => byHand(outgoing(context.env), () => get(context)))
    app.post("/sums", (context) => byHand(outgoing(context.env), () => post(context)))
    return listening(createAdaptorServer(app) as Server)
  }
  const edge = edgeOf()
  app.get("/items/:id", HonoEdge.route(edge, cancellable(get), { route: "/items/:id" }))
  app.post("/sums", HonoEdge.route(edge, cancellable(post), { route: "/sums" }))
  const server = createAdaptorServer(app) as Server
  edge.attach(server)
  return listening(server)
}

const onWeb: Build = (side) => {
  const fetch = async (request: Request) =>
    Response.json(
      request.method === "POST"
        ? sum((await request.json()) as Sum)
        : item(request.url.slice(request.url.lastIndexOf("/") + 1))
    )
  if (side === "bare") return listening(createAdaptorServer({ fetch }) as Server)
  if (side === "hand") {
    const hand = (request: Request, environment: unknown) =>
      byHand(outgoing(environment), () => fetch(request))
    return listening(createAdaptorServer({ fetch: hand }) as Server)
  }
  const edge = edgeOf()
  const server = createAdaptorServer({ fetch: fetchHandler(edge, cancellable(fetch)) }) as Server
  edge.attach(server)
  return listening(server)
}

const found = Effect.map(HttpRouter.params, ({ id }) => HttpServerResponse.jsonUnsafe(item(id)))
const summed = Effect.map(
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => request.json),
  (body) => HttpServerResponse.jsonUnsafe(sum(body as unknown as Sum))
)

const routesOf = (around: <A, E, R>(handler: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>) =>
  Layer.mergeAll(
    HttpRouter.add("GET", "/items/:id", around(found)),
    HttpRouter.add("POST", "/sums", around(summed))
  )

/**
 * The same by hand in Effect: a fiber that an owner waits for, with a scope, the request's name in its log lines, a limit to
 * its time, and two counts.
 */
const owned =
  (owner: FiberSet.FiberSet<unknown, unknown>) =>
  <A, E, R>(handler: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    let ids = 0
    const limited = Effect.onExit(Effect.timeout(Effect.scoped(handler), deadline), (exit) =>
      Effect.sync(() => {
        if (exit._tag === "Success") counts.answered++
        else counts.left++
      })
    )
    return Effect.suspend(() => {
      const named = Effect.annotateLogs(limited, "request", `http-${++ids}`)
      return Effect.flatMap(FiberSet.run(owner, named, { startImmediately: true }), Fiber.join)
    }) as Effect.Effect<A, E, R>
  }

/** A plain server, with the limits that both have. */
const plainServer = () => createServer({ keepAliveTimeout: keptFor })

const onEffect: Build = (side) =>
  new Promise((resolve) => {
    const announce = Layer.effectDiscard(
      Effect.map(HttpServer.HttpServer, ({ address }) => resolve((address as NetAddress.InetAddress).port))
    )
    const routes =
      side === "hand"
        ? Layer.unwrap(Effect.map(FiberSet.make<unknown, unknown>(), (owner) => routesOf(owned(owner))))
        : routesOf(side === "edge" ? cancellable : identity)
    const app = side === "edge" ? HttpEdge.edge({ deadline, accessLog: false })(routes) : routes
    const server =
      side === "edge"
        ? EdgeServer.layer({ port: 0, limits: { keepAlive: keptFor } })
        : NodeHttpServer.layer(plainServer, { port: 0, host: "127.0.0.1" })
    const main = Layer.mergeAll(
      announce,
      HttpRouter.serve(app as typeof routes, { disableLogger: true, disableListenLog: true })
    ).pipe(Layer.provide(server), Layer.provide(Owner.layer()))
    Effect.runFork(Layer.launch(main))
  })

export const servers: Readonly<Record<string, Build>> = {
  "node:http": http1,
  "node:http2": http2,
  Express: onExpress,
  Fastify: onFastify,
  Hono: onHono,
  "fetch handler": onWeb,
  "Effect HttpServer": onEffect
}
