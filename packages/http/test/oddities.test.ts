/** What HTTP allows and few clients send, over node:http: each request is answered, has its record, and leaves nothing. */
import { once } from "node:events"
import { createServer } from "node:http"
import { connect, constants, createServer as createServer2 } from "node:http2"
import { NodeEdge, nodeEdge } from "@curfew/http"
import { cancellable } from "@curfew/request"
import { Owner } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { describe, expect, test } from "vitest"
import { aborted, gate, get, listen, raw, recording, Told } from "./support/client.ts"

const served = async (handler: NodeEdge.PlainHandler, options: Parameters<typeof recording>[0] = {}) => {
  const { edge, records } = recording(options)
  const server = createServer(edge.handle(handler))
  edge.attach(server)
  return { edge, records, server, port: await listen(server) }
}

const reads: NodeEdge.PlainHandler = async (request, _response, exchange) => {
  let bytes = 0
  for await (const chunk of request) bytes += (chunk as Buffer).length
  exchange.answer(200, `read ${bytes}`)
}

const post = (headers: string, body = ""): string =>
  `POST / HTTP/1.1\r\nhost: localhost\r\n${headers}\r\n${body}`

describe("over node:http", () => {
  test("who asks for leave to send its body gets it, and its answer", async () => {
    const { edge, port, records } = await served(reads)
    await using _edge = edge
    const client = await raw(port)
    client.send(post("content-length: 3\r\nexpect: 100-continue\r\n"))
    await client.until("100 Continue")
    client.send("abc")
    await client.until("read 3")
    expect((await records.until(1))[0]?.status).toBe(200)
  })

  test("who asks for leave to send too much of it is told 413", async () => {
    const { edge, port, records } = await served(reads, { bodyBytes: 2 })
    await using _edge = edge
    const client = await raw(port)
    client.send(post("content-length: 3\r\nexpect: 100-continue\r\n"))
    await client.until("HTTP/1.1 413 ")
    client.socket.destroy()
    expect((await records.until(1))[0]?.status).toBe(413)
  })

  test("who would rather speak another protocol, which nobody knows here, is answered in this one", async () => {
    const { edge, port, records } = await served(reads)
    await using _edge = edge
    const client = await raw(port)
    client.send(
      get("/", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n")
    )
    await client.until("read 0")
    expect((await records.until(1))[0]?.status).toBe(200)
  })

  test("trailers change nothing, and the handler has them", async () => {
    const { edge, port, records } = await served(async (request, _response, exchange) => {
      for await (const _ of request);
      exchange.answer(200, `trailer ${request.trailers["x-checksum"]}`)
    })
    await using _edge = edge
    const client = await raw(port)
    client.send(post("transfer-encoding: chunked\r\n", "3\r\nabc\r\n0\r\nx-checksum: 1\r\n\r\n"))
    client.send(get())
    await client.until("trailer 1")
    await client.until("trailer undefined")
    await records.until(2)
  })

  test("HEAD is answered without a body: by the handler, at a deadline, at the end of the server", async () => {
    const started = gate()
    const { edge, port, records } = await served(
      cancellable(
        async (
          request: { url?: string },
          _response: unknown,
          exchange: {
            answer: (s: number, b?: string) => unknown
            run: <A>(b: (s: AbortSignal) => A | PromiseLike<A>) => Promise<A>
          }
        ) => {
          if (request.url === "/") return exchange.answer(200, "answer")
          if (request.url === "/stops") started.open()
          return await exchange.run(aborted)
        }
      ) as NodeEdge.PlainHandler,
      { deadline: 200, drain: 0 }
    )
    await using _edge = edge
    const client = await raw(port)
    const head = (path: string): string => get(path).replace("GET", "HEAD")
    client.send(head("/"))
    await client.until("\r\n\r\n")
    client.send(head("/late"))
    await client.until("HTTP/1.1 504 ")
    await client.until("\r\n\r\n", 2)
    client.send(head("/stops"))
    await started.promise
    const ended = edge.shutdown()
    await client.until("HTTP/1.1 503 ")
    await client.closed
    await ended
    expect(client.text.endsWith("\r\n\r\n")).toBe(true)
    expect(client.text).not.toContain("answer\r\n")
    expect((await records.until(3)).map(({ status }) => status)).toEqual([200, 504, 503])
  })

  test("an upload that ends at any byte leaves nothing, and the server answers", async () => {
    const failures: Array<unknown> = []
    const { edge, port, records } = await served(async (request, response, exchange) => {
      try {
        await reads(request, response, exchange)
      } catch (error) {
        failures.push(error)
        throw error
      }
    })
    await using _edge = edge
    const written = post("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")
    const head = written.indexOf("\r\n\r\n") + 4
    for (let end = 1; end < written.length; end++) {
      const before = records.all.length
      const client = await raw(port)
      client.send(written.slice(0, end))
      client.socket.end()
      await client.closed
      if (end >= head) await records.until(before + 1)
    }
    expect(records.all.map(({ status }) => status)).toEqual(records.all.map(() => 499))
    expect(failures.length).toBe(records.all.length)
    expect(edge.inFlight).toBe(0)
    const last = await raw(port)
    last.send(written)
    await last.until("read 5")
  })

  test.each([
    ["drain"],
    ["ignore"],
    [{ buffer: 10 }],
    [{ buffer: 10, whenFull: "reject" as const }]
  ] as const)(
    "pipelined uploads that nobody reads, under %j, and their client leaves in the second: each has its record",
    async (body) => {
      const proceed = gate()
      const begun = new Told<number>()
      const closed = gate()
      const { edge, port, records, server } = await served(
        async (_request, _response, exchange) => {
          begun.add(1)
          await proceed.promise
          exchange.answer(200)
        },
        { body }
      )
      await using _edge = edge
      server.once("connection", (socket) => socket.once("close", () => closed.open()))
      const client = await raw(port)
      client.send(post("content-length: 100\r\n", "x".repeat(100)))
      client.send(post("content-length: 100\r\n", "x".repeat(50)))
      await begun.until(2)
      client.socket.resetAndDestroy()
      await closed.promise
      proceed.open()
      expect((await records.until(2)).map(({ status }) => status)).toEqual([499, 499])
    }
  )

  test("what is written to the raw response after its end, and after that of its connection, changes nothing", async () => {
    const again = gate()
    const wrote = gate<unknown>()
    const { edge, port, records } = await served(async (_request, response) => {
      response.end("answer")
      await again.promise
      try {
        response.write("more")
        response.end("more")
        response.setHeader("x-late", "1")
        wrote.open("no error")
      } catch (error) {
        wrote.open((error as { code?: string }).code)
        throw error
      }
    })
    await using _edge = edge
    const client = await raw(port)
    client.send(get())
    await client.until("answer")
    again.open()
    expect(await wrote.promise).toBe("ERR_HTTP_HEADERS_SENT")
    expect((await records.until(1))[0]?.status).toBe(200)
    client.send(get())
    await client.until("answer", 2)
    expect(client.text).not.toContain("more")
  })
})

describe("a handler that fails", () => {
  test.each([
    ["cache-control", "public, max-age=3600"],
    ["expires", "Wed, 21 Oct 2099 07:28:00 GMT"],
    ["content-range", "bytes 0-1/2"],
    ["content-disposition", "attachment"],
    ["content-language", "de"],
    ["content-location", "/elsewhere"],
    ["location", "/elsewhere"],
    ["trailer", "x-checksum"],
    ["content-encoding", "gzip"],
    ["etag", '"1"']
  ])("had said of its answer what does not hold for this one: %s", async (name, value) => {
    const { edge, port } = await served((_request, response) => {
      response.setHeader(name, value)
      response.setHeader("x-trace", "kept")
      throw new Error("broken")
    })
    await using _edge = edge
    const response = await fetch(`http://127.0.0.1:${port}`)
    expect(response.status).toBe(500)
    expect(response.headers.get(name)).toBe(null)
    expect(response.headers.get("x-trace")).toBe("kept")
  })

  test("and whose response cannot be written to has its connection broken off, and its record", async () => {
    const { edge, port, records } = await served((_request, response) => {
      // As middleware does that hooks into the head of a response.
      response.writeHead = () => {
        throw new Error("no head")
      }
      throw new Error("broken")
    })
    await using _edge = edge
    const client = await raw(port)
    client.send(get())
    await client.closed
    expect(client.text).toBe("")
    expect(await records.until(1)).toMatchObject([{ outcome: "failed" }])
  })

  test("is told as it was: before its answer, in the middle of it, after it", async () => {
    const lines = new Told<string>()
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === "Error") lines.add(String(Array.isArray(message) ? message[0] : message))
    })
    const program = Effect.gen(function* () {
      const edge = yield* NodeEdge.make()
      const server = createServer(
        edge.handle(async (request, response) => {
          if (request.url === "/middle") response.write("half")
          if (request.url === "/after") {
            response.end("answer")
            await once(response, "finish")
          }
          throw new Error("broken")
        })
      )
      yield* edge.attach(server, { drain: 0 })
      const port = yield* Effect.promise(() => listen(server))
      for (const path of ["/before", "/middle", "/after"]) {
        const client = yield* Effect.promise(() => raw(port))
        client.send(get(path))
        yield* Effect.promise(() => lines.until(lines.all.length + 1))
        client.socket.destroy()
      }
    })
    await Effect.runPromise(Effect.provide(Effect.scoped(program), [Owner.layer(), Logger.layer([logger])]))
    expect(lines.all).toEqual([
      "GET was answered 500.",
      "GET failed in the middle of its answer, which was broken off.",
      "GET failed after its answer."
    ])
  })
})

describe("two edges on one server", () => {
  test("end together, each with its own requests", async () => {
    const first = recording({ name: "first", drain: 0 })
    const second = recording({ name: "second", drain: 0 })
    const started = new Told<string>()
    const waits =
      (name: string): NodeEdge.PlainHandler =>
      async (_request, _response, exchange) => {
        started.add(name)
        await exchange.run(aborted)
      }
    const [a, b] = [first.edge.handle(waits("a")), second.edge.handle(waits("b"))]
    const server = createServer((request, response) => (request.url === "/a" ? a : b)(request, response))
    first.edge.attach(server)
    second.edge.attach(server)
    const port = await listen(server)
    const clients = [await raw(port), await raw(port)]
    clients[0]?.send(get("/a"))
    clients[1]?.send(get("/b"))
    await started.until(2)
    await Promise.all([first.edge.shutdown(), second.edge.shutdown()])
    for (const client of clients) {
      await client.closed
      expect(client.text).toMatch(/^HTTP\/1.1 503 /)
    }
    expect(first.records.all.map(({ status, url }) => [url, status])).toEqual([["/a", 503]])
    expect(second.records.all.map(({ status, url }) => [url, status])).toEqual([["/b", 503]])
  })

  test("and the end of one lets the other finish what it has", async () => {
    const first = recording({ name: "first", drain: 0 })
    const second = recording({ name: "second", drain: "1 hour" })
    const started = gate()
    const proceed = gate()
    const b = second.edge.handle(async (_request, _response, exchange) => {
      started.open()
      await proceed.promise
      exchange.answer(200, "finished")
    })
    const server = createServer(b)
    first.edge.attach(server)
    second.edge.attach(server)
    const client = await raw(await listen(server))
    client.send(get("/b"))
    await started.promise
    const one = first.edge.shutdown()
    const two = second.edge.shutdown()
    await one
    proceed.open()
    await two
    await client.closed
    expect(client.text).toMatch(/^HTTP\/1.1 200 [\s\S]*finished/)
  })
})

describe("the end of a server over HTTP/2", () => {
  test("is told by GOAWAY without an error; what runs is answered, without a header of HTTP/1", async () => {
    const started = gate()
    const proceed = gate()
    const edge = nodeEdge({ drain: "1 minute" })
    const server = createServer2(
      edge.handle(async (_request, _response, exchange) => {
        started.open()
        await proceed.promise
        exchange.answer(200, "finished")
      })
    )
    edge.attach(server)
    const session = connect(`http://127.0.0.1:${await listen(server)}`)
    const away = once(session, "goaway")
    const stream = session.request({ ":path": "/" })
    const head = once(stream, "response")
    await started.promise
    const ended = edge.shutdown()
    expect((await away)[0]).toBe(constants.NGHTTP2_NO_ERROR)
    proceed.open()
    const [headers] = await head
    expect(headers[":status"]).toBe(200)
    expect(headers.connection).toBe(undefined)
    let text = ""
    for await (const chunk of stream) text += chunk
    expect(text).toBe("finished")
    await ended
  })
})
