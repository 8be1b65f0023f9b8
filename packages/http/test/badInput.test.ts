import { createServer } from "node:http"
import { connect, createServer as createServer2 } from "node:http2"
import { type NodeEdge, nodeEdge, serve } from "@curfew/http"
import { mechanismOf } from "@curfew/http/NodeEdge"
import { describe, expect, test } from "vitest"
import { gate, listen, raw, recording, Told } from "./support/client.ts"

const reads: NodeEdge.PlainHandler = async (request, _response, exchange) => {
  let bytes = 0
  for await (const chunk of request) bytes += (chunk as Buffer).length
  exchange.answer(200, `read ${bytes}`)
}

const serving = async (limits: Parameters<typeof serve>[1] = {}, handler: NodeEdge.PlainHandler = reads) => {
  const records = new Told<{ readonly status: number }>()
  const server = await serve(handler, { host: "127.0.0.1", onRecord: records.add, ...limits })
  return { server, records, url: `http://127.0.0.1:${server.port}` }
}

describe("what is no request", () => {
  test.each([
    ["nonsense", "nonsense\r\n\r\n", 400],
    ["two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400],
    [
      "a length and chunks",
      "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
      400
    ],
    ["a length that is none", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: one\r\n\r\n", 400],
    ["a negative length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400],
    ["no host", "GET / HTTP/1.1\r\n\r\n", 400],
    ["a head that is too large", `GET / HTTP/1.1\r\nhost: a\r\nx: ${"y".repeat(20_000)}\r\n\r\n`, 431]
  ])("%s: its status, and the connection closed", async (_, text, status) => {
    const { records, server } = await serving()
    await using _server = server
    const client = await raw(server.port)
    client.send(text)
    expect(await client.until("\r\n\r\n")).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    await client.closed
    expect(records.all).toEqual([])
  })
})

describe("a body over its limit", () => {
  test("by its declared length: 413 before a byte of it came, and the handler does not run", async () => {
    let ran = 0
    const { records, server } = await serving({ bodyBytes: 100 }, () => {
      ran++
    })
    await using _server = server
    const client = await raw(server.port)
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 101\r\n\r\n")
    expect(await client.until("\r\n\r\n")).toMatch(/^HTTP\/1.1 413 [\s\S]*connection: close/i)
    await client.closed
    expect((await records.until(1))[0]?.status).toBe(413)
    expect(ran).toBe(0)
  })

  test("in chunks, by counting, while a handler reads it", async () => {
    const { records, server } = await serving({ bodyBytes: 100 })
    await using _server = server
    const client = await raw(server.port)
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    for (let i = 0; i < 3; i++) client.send(`32\r\n${"x".repeat(50)}\r\n`)
    expect(await client.until("\r\n\r\n")).toMatch(/^HTTP\/1.1 413 /)
    expect((await records.until(1))[0]).toMatchObject({ status: 413, reason: { limit: "bodyBytes" } })
    await client.closed
  })

  test("a client that reads only when it has sent all of it still reads the 413", async () => {
    const { server, url } = await serving({ bodyBytes: 1000 })
    await using _server = server
    for (let i = 0; i < 10; i++) {
      const response = await fetch(url, { method: "POST", body: "x".repeat(2_000_000) })
      expect(response.status).toBe(413)
    }
  })

  test("over HTTP/2", async () => {
    const { edge, records } = recording({ bodyBytes: 100 })
    await using _edge = edge
    const server = createServer2(edge.handle(reads))
    edge.attach(server)
    const session = connect(`http://127.0.0.1:${await listen(server)}`)
    const stream = session.request({ ":method": "POST", ":path": "/" })
    const status = gate<unknown>()
    stream.on("error", () => {})
    stream.on("response", (headers) => status.open(headers[":status"]))
    stream.write(Buffer.alloc(200))
    expect(await status.promise).toBe(413)
    expect((await records.until(1))[0]?.status).toBe(413)
    session.destroy()
  })
})

describe("a length that lies", () => {
  test("more than it says: what is over is the next request, and no good one: 400, and the connection closed", async () => {
    const { server } = await serving()
    await using _server = server
    const client = await raw(server.port)
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nabcdefgh\r\n\r\n")
    await client.closed
    expect(client.text).toMatch(/HTTP\/1.1 400 /)
  })

  test("less than it says, and gone: 499, and the handler that reads it fails", async () => {
    const { records, server } = await serving()
    await using _server = server
    const client = await raw(server.port)
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc")
    client.socket.end()
    expect((await records.until(1))[0]?.status).toBe(499)
  })
})

describe("a client that is slow", () => {
  const limits = { headers: "30 millis", request: "60 millis", checkEvery: "10 millis" } as const

  test("with its head: 408, and the connection closed", async () => {
    const { server } = await serving({ server: limits })
    await using _server = server
    const client = await raw(server.port)
    client.send("GET / HTTP/1.1\r\nh")
    expect(await client.until("\r\n\r\n")).toMatch(/^HTTP\/1.1 408 /)
    await client.closed
  })

  test("with its body, a byte at a time: 408, and the connection closed", async () => {
    const { records, server } = await serving({ server: limits })
    await using _server = server
    const client = await raw(server.port)
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
    const drip = setInterval(() => client.send("x"), 5)
    expect(await client.until("\r\n\r\n")).toMatch(/^HTTP\/1.1 408 /)
    await client.closed
    clearInterval(drip)
    expect((await records.until(1))[0]?.status).toBe(499)
  })

  test("one connection too many is closed without a word", async () => {
    const { server } = await serving({ server: { connections: 1 } })
    await using _server = server
    await raw(server.port)
    const second = await raw(server.port)
    await second.closed
    expect(second.text).toBe("")
  })
})

describe("what means nothing", () => {
  test.each([
    ["a deadline", { deadline: Number.NaN }],
    ["a limit of bytes", { bodyBytes: -1 }],
    ["a number of requests", { requests: Number.NaN }],
    ["a policy for bodies", { body: "keep" as never }],
    ["a policy for half-closed connections", { halfClose: "maybe" as never }],
    ["a heartbeat of no time", { heartbeat: { every: 0 } }],
    ["a client's most", { clientDeadline: { header: "x", max: "soon" as never } }]
  ])("%s is refused before anything is served", (_, options) => {
    // biome-ignore lint/suspicious/noExplicitAny: what a program without types may give
    expect(() => nodeEdge(options as any)).toThrow()
  })

  test("an edge that only looks like one", () => {
    expect(() => mechanismOf({} as never)).toThrow("make it with NodeEdge.make, nodeEdge or serve")
  })

  test("a status that no response can have becomes 500", async () => {
    const { edge } = recording({ mapError: () => ({ status: 7, message: "" }) })
    await using _edge = edge
    const server = createServer(edge.handle(() => Promise.reject("no")))
    edge.attach(server)
    expect((await fetch(`http://127.0.0.1:${await listen(server)}`)).status).toBe(500)
  })

  test("a port that is taken is a rejection, and leaves nothing", async () => {
    await using server = await serve(reads, { host: "127.0.0.1" })
    await expect(serve(reads, { host: "127.0.0.1", port: server.port })).rejects.toThrow("EADDRINUSE")
  })
})
