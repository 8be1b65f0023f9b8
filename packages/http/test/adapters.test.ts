/**
 * The frameworks with a server each: their own misleading events, and what the adapters make of the same departures.
 */
import { createServer } from "node:http"
import { connect as connect2, createServer as createServer2 } from "node:http2"
import type { Exchange, PlainEdge } from "@curfew/http"
import * as ForExpress from "@curfew/http/Express"
import * as ForFastify from "@curfew/http/Fastify"
import * as ForHono from "@curfew/http/Hono"
import { fetchHandler } from "@curfew/http/Web"
import { cancellable } from "@curfew/request"
import { createAdaptorServer } from "@hono/node-server"
import express from "express"
import Fastify from "fastify"
import { type Context, Hono } from "hono"
import { describe, expect, test } from "vitest"
import { aborted, gate, get, listen, raw, recording, Told } from "./support/client.ts"

const post = (body: string, path = "/"): string =>
  `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`

interface Serving {
  readonly port: number
  readonly close: () => unknown
}

type Work = (exchange: Exchange) => Promise<string>

/** The same handler, served by each framework: GET and POST of /. */
const frameworks: ReadonlyArray<
  readonly [name: string, (edge: PlainEdge, work: Work, cancel: boolean) => Promise<Serving>]
> = [
  [
    "node:http",
    async (edge, work, cancel) => {
      const handler = async (_request: unknown, _response: unknown, exchange: Exchange) => {
        exchange.answer(200, await work(exchange))
      }
      const server = createServer(edge.handle(cancel ? cancellable(handler) : handler))
      edge.attach(server)
      return { port: await listen(server), close: () => {} }
    }
  ],
  [
    "Express 5",
    async (edge, work, cancel) => {
      const handler = async (_request: express.Request, response: express.Response, exchange: Exchange) => {
        response.send(await work(exchange))
      }
      const app = express()
      app.use(express.json())
      app.all("/", ForExpress.route(edge, cancel ? cancellable(handler) : handler))
      app.use(((error: Error, _request, response, _next) => {
        response.status(418).send(error.message)
      }) as express.ErrorRequestHandler)
      const server = createServer(app)
      edge.attach(server)
      return { port: await listen(server), close: () => {} }
    }
  ],
  [
    "Fastify 5",
    async (edge, work, cancel) => {
      const handler = (_request: unknown, _reply: unknown, exchange: Exchange) => work(exchange)
      const app = Fastify()
      app.setErrorHandler((error: Error, _request, reply) => reply.status(418).send(error.message))
      app.route({
        method: ["GET", "POST"],
        url: "/",
        handler: ForFastify.route(edge, cancel ? cancellable(handler) : handler)
      })
      await app.listen({ port: 0, host: "127.0.0.1" })
      edge.attach(app.server)
      return { port: (app.server.address() as { port: number }).port, close: () => app.close() }
    }
  ],
  [
    "Hono",
    async (edge, work, cancel) => {
      const handler = async (c: Context, exchange: Exchange) => c.text(await work(exchange))
      const app = new Hono()
      app.onError((error, c) => c.text(error.message, 418))
      app.all("/", ForHono.route(edge, cancel ? cancellable(handler) : handler))
      const server = createAdaptorServer({ fetch: app.fetch })
      edge.attach(server as ReturnType<typeof createServer>)
      return { port: await listen(server), close: () => {} }
    }
  ]
]

describe.each(frameworks)("%s", (name, start) => {
  test.each([
    ["a GET", get("/")],
    ["a POST whose body a parser has read", post('{"a":1}')]
  ])("L39: marked cancellable, its client leaves: %s", async (_, request) => {
    const { edge, records } = recording()
    await using _edge = edge
    const started = gate()
    const log: Array<string> = []
    const work: Work = async (exchange) => {
      exchange.onCancel(({ _tag }) => log.push(_tag))
      started.open()
      await aborted(exchange.signal)
      return "never sent"
    }
    const server = await start(edge, work, true)
    const client = await raw(server.port)
    client.send(request)
    await started.promise
    client.socket.resetAndDestroy()
    const [record] = await records.until(1)
    expect(record).toMatchObject({ status: 499, reason: { _tag: "ClientGone" } })
    expect(log).toEqual(["ClientGone"])
    await server.close()
  })

  test("L40: a POST that is answered cancels nothing, wherever its body was read", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    let told = 0
    const server = await start(
      edge,
      async (exchange) => {
        exchange.signal.addEventListener("abort", () => told++)
        exchange.clientSignal.addEventListener("abort", () => told++)
        for (let i = 0; i < 5; i++) await exchange.checkpoint()
        return "stored"
      },
      true
    )
    const client = await raw(server.port)
    for (let i = 1; i <= 3; i++) {
      client.send(post(`{"a":${i}}`))
      expect((await records.until(i))[i - 1]).toMatchObject({ status: 200, reason: undefined })
    }
    await client.until("stored", 3)
    expect(told).toBe(0)
    client.socket.destroy()
    await server.close()
  })

  test("unmarked it runs to its end, and its answer is dropped without an error", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    const started = gate()
    let ended = false
    const server = await start(
      edge,
      async (exchange) => {
        started.open()
        await aborted(exchange.clientSignal)
        ended = true
        return "nobody reads this"
      },
      false
    )
    const client = await raw(server.port)
    client.send(get())
    await started.promise
    client.socket.resetAndDestroy()
    expect((await records.until(1))[0]?.status).toBe(499)
    expect(ended).toBe(true)
    await server.close()
  })

  test("L48: a deadline is answered 504 by the edge, a failure by the framework", async () => {
    const { edge, records } = recording({ deadline: "20 millis" })
    await using _edge = edge
    const server = await start(
      edge,
      (exchange) =>
        exchange.id === "http-1" ? exchange.run(aborted).then(String) : Promise.reject(new Error("teapot")),
      false
    )
    const url = `http://127.0.0.1:${server.port}/`
    expect((await fetch(url)).status).toBe(504)
    const failed = await fetch(url)
    if (name === "node:http") expect(failed.status).toBe(500)
    else expect([failed.status, await failed.text()]).toEqual([418, "teapot"])
    await server.close()
    expect(records.all.at(-1)?.status).toBe(failed.status)
  })
})

describe("the traps that the adapters go around, as the frameworks have them", () => {
  test("node: the request's close comes when its body was read, and the client is there", async () => {
    const log: Array<string> = []
    const server = createServer((request, response) => {
      request.on("close", () => {
        log.push(response.writableEnded ? "answered" : "close, not answered")
        response.end("still there")
      })
      request.resume()
    })
    const response = await fetch(`http://127.0.0.1:${await listen(server)}`, { method: "POST", body: "x" })
    expect(await response.text()).toBe("still there")
    expect(log).toEqual(["close, not answered"])
    server.close()
    server.closeAllConnections()
  })

  test("node:http2: the response of a stream that was reset counts as finished", async () => {
    const closed = gate<readonly [boolean, boolean]>()
    const started = gate()
    const server = createServer2((_request, response) => {
      response.on("close", () => closed.open([response.writableFinished, response.writableEnded]))
      started.open()
    })
    const session = connect2(`http://127.0.0.1:${await listen(server)}`)
    session.on("error", () => {})
    const stream = session.request({ ":path": "/" })
    stream.on("error", () => {})
    await started.promise
    stream.close(8)
    expect(await closed.promise).toEqual([true, false])
    session.destroy()
    server.close()
  })

  test("Fastify: request.signal aborts when a body was parsed, and the client is there", async () => {
    const app = Fastify()
    app.post("/", async ({ signal }) => {
      await aborted(signal)
      return String(signal.aborted)
    })
    await app.listen({ port: 0, host: "127.0.0.1" })
    const { port } = app.server.address() as { port: number }
    const response = await fetch(`http://127.0.0.1:${port}/`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}"
    })
    expect(await response.text()).toBe("true")
    await app.close()
  })

  test("Hono: the signal of a request whose large body nobody reads does not hear of its client", async () => {
    const started = new Told<AbortSignal>()
    const left = gate()
    const app = new Hono().all("/", async (c) => {
      const { signal } = c.req.raw
      started.add(signal)
      await aborted(signal)
      left.open()
      return c.text("")
    })
    const server = createAdaptorServer({ fetch: app.fetch })
    const port = await listen(server)
    const large = await raw(port)
    large.send(post("x".repeat(8 * 1024 * 1024)))
    await started.until(1)
    large.socket.end()
    // Another client comes and goes meanwhile.
    const other = await raw(port)
    other.send(get())
    await started.until(2)
    other.socket.resetAndDestroy()
    await left.promise
    expect(started.all.map(({ aborted }) => aborted)).toEqual([false, true])
    ;(server as ReturnType<typeof createServer>).closeAllConnections()
    server.close()
  })

  test("Hono over HTTP/2, behind an edge, is told", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    const started = gate()
    const handler = cancellable(async (c: Context, { signal }: Exchange) => {
      started.open()
      await aborted(signal)
      return c.text("")
    })
    const app = new Hono().get("/", ForHono.route(edge, handler))
    const server = createAdaptorServer({ fetch: app.fetch, createServer: createServer2 } as never)
    const session = connect2(`http://127.0.0.1:${await listen(server)}`)
    session.on("error", () => {})
    const stream = session.request({ ":path": "/" })
    stream.on("error", () => {})
    await started.promise
    stream.close(8)
    expect((await records.until(1))[0]).toMatchObject({ status: 499, transport: "http2" })
    session.destroy()
    server.close()
  })
})

describe("a web-standard handler", () => {
  const waits = cancellable(async (_request: Request, { signal }: { signal: AbortSignal }) => {
    await aborted(signal)
    return new Response("never sent")
  })

  test("is cancelled by the signal of its request, and its record says 499", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    const client = new AbortController()
    const answer = fetchHandler(edge, waits)(new Request("http://a/x?y", { signal: client.signal }))
    client.abort()
    expect((await answer).status).toBe(499)
    expect((await records.until(1))[0]).toMatchObject({ url: "/x?y", status: 499 })
  })

  test("an abort after the answer was read changes nothing; before, it has not arrived", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    const handle = fetchHandler(
      edge,
      cancellable(async (_request: Request) => new Response("found"))
    )
    const first = new AbortController()
    expect(await (await handle(new Request("http://a/", { signal: first.signal }))).text()).toBe("found")
    first.abort()
    const second = new AbortController()
    const response = await handle(new Request("http://a/", { signal: second.signal }))
    await response.body?.cancel()
    expect((await records.until(2)).map(({ status }) => status)).toEqual([200, 499])
  })

  test("a deadline is 504, a failure 500, a shutdown 503", async () => {
    const { edge } = recording({ deadline: "10 millis" })
    const handle = fetchHandler(edge, waits)
    expect((await handle(new Request("http://a/"))).status).toBe(504)
    const fails = fetchHandler(edge, (_request: Request): Response => {
      throw new Error("broken")
    })
    expect((await fails(new Request("http://a/"))).status).toBe(500)
    await edge.shutdown()
    expect((await handle(new Request("http://a/"))).status).toBe(503)
  })
})
