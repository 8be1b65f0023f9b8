import { createServer, type IncomingMessage } from "node:http"
import { connect as connect2, createServer as createServer2 } from "node:http2"
import type { NodeEdge } from "@curfew/http"
import { cancellable } from "@curfew/request"
import { describe, expect, test } from "vitest"
import { aborted, gate, get, listen, raw, recording, Told } from "./support/client.ts"

/** Waits for its client, whatever the body. */
const waits = (started: Told<IncomingMessage>) =>
  cancellable(async (request: IncomingMessage, _response: unknown, { signal }: { signal: AbortSignal }) => {
    started.add(request)
    await aborted(signal)
  }) as NodeEdge.PlainHandler

const serving = async (options: Parameters<typeof recording>[0], halfOpen = false) => {
  const { edge, records } = recording(options)
  const started = new Told<IncomingMessage>()
  const server = createServer(edge.handle(waits(started)))
  if (halfOpen) Object.assign(server, { httpAllowHalfOpen: true })
  edge.attach(server)
  const port = await listen(server)
  return { edge, records, started, port }
}

const post = (length: number, sent = length): string =>
  `POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${length}\r\n\r\n${"x".repeat(sent)}`

const mebibyte = 1024 * 1024

describe("a client that leaves with a body that nobody reads is noticed", () => {
  test.each([
    ["1 kB, read ahead", 1024, undefined],
    ["200 kB, read ahead", 200 * 1024, undefined],
    ["1 MiB, the default limit, read ahead", mebibyte, undefined],
    ["8 MiB, read ahead", 8 * mebibyte, { body: { buffer: 8 * mebibyte } }],
    ["8 MiB, drained", 8 * mebibyte, { body: "drain" }]
  ] as const)("%s", async (_, size, options) => {
    const { edge, port, records, started } = await serving({ bodyBytes: 16 * mebibyte, ...options })
    await using _edge = edge
    const client = await raw(port)
    client.send(post(size))
    await started.until(1)
    client.socket.end()
    const [record] = await records.until(1)
    expect(record?.status).toBe(499)
    expect(record?.reason).toMatchObject({ _tag: "ClientGone", transport: "http1" })
  })

  test("and half of it still to come", async () => {
    const { edge, port, records, started } = await serving({ bodyBytes: 16 * mebibyte, body: "drain" })
    await using _edge = edge
    const client = await raw(port)
    client.send(post(16 * mebibyte, 4 * mebibyte))
    await started.until(1)
    client.socket.resetAndDestroy()
    expect((await records.until(1))[0]?.status).toBe(499)
  })
})

describe("a body", () => {
  test("that is read ahead is there for a handler that reads later", async () => {
    const { edge } = recording({ bodyBytes: 8 * mebibyte, body: { buffer: 8 * mebibyte } })
    await using _edge = edge
    const server = createServer(
      edge.handle(async (request, _response, exchange) => {
        // All of it has come before anybody reads.
        while (!request.complete) await new Promise((resolve) => setImmediate(resolve))
        let bytes = 0
        for await (const chunk of request) bytes += (chunk as Buffer).length
        exchange.answer(200, String(bytes))
      })
    )
    edge.attach(server)
    const port = await listen(server)
    const response = await fetch(`http://127.0.0.1:${port}`, {
      method: "POST",
      body: "x".repeat(4 * mebibyte)
    })
    expect(await response.text()).toBe(String(4 * mebibyte))
  })

  test("that nobody reads and that is over the buffer is refused where that is the policy", async () => {
    const { edge, port, records } = await serving({
      bodyBytes: 64 * mebibyte,
      body: { buffer: 256 * 1024, whenFull: "reject" }
    })
    await using _edge = edge
    const client = await raw(port)
    client.send(post(32 * mebibyte, mebibyte))
    expect(await client.until("\r\n\r\n")).toMatch(/^HTTP\/1.1 413 [\s\S]*connection: close/i)
    expect((await records.until(1))[0]?.status).toBe(413)
  })

  test("that is ignored hides its client, as node has it, until somebody reads it", async () => {
    const { edge, port, records, started } = await serving({ bodyBytes: 16 * mebibyte, body: "ignore" })
    await using _edge = edge
    const client = await raw(port)
    client.send(post(8 * mebibyte))
    const [request] = await started.until(1)
    client.socket.end()
    // Another client comes and goes meanwhile; this one is still not known to have gone.
    const other = await raw(port)
    other.send(get())
    await started.until(2)
    other.socket.resetAndDestroy()
    const [first] = await records.until(1)
    expect(first?.method).toBe("GET")
    request?.resume()
    expect((await records.until(2))[1]).toMatchObject({ method: "POST", status: 499 })
  })
})

describe("on one connection", () => {
  test("the second request of it is watched like the first, and leaves no listener behind", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    const started = gate()
    const listeners: Array<number> = []
    const server = createServer(
      edge.handle(
        cancellable(
          async (
            request: IncomingMessage,
            response: { end: (t: string) => void },
            { signal }: { signal: AbortSignal }
          ) => {
            listeners.push(request.socket.listenerCount("end") + request.socket.listenerCount("close"))
            if (request.url !== "/waits") return response.end("ok")
            started.open()
            await aborted(signal)
          }
        ) as NodeEdge.PlainHandler
      )
    )
    edge.attach(server)
    const client = await raw(await listen(server))
    for (let i = 1; i <= 20; i++) {
      client.send(get(`/${i}`))
      await records.until(i)
    }
    client.send(get("/waits"))
    await started.promise
    client.socket.resetAndDestroy()
    const all = await records.until(21)
    expect(all.map(({ status }) => status)).toEqual([...Array.from({ length: 20 }, () => 200), 499])
    expect(listeners.at(-1)).toBe(listeners[1])
  })

  test("pipelined requests run side by side, and each that is not delivered is 499", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    const started = new Told<string>()
    const server = createServer(
      edge.handle(
        cancellable(
          async (
            request: IncomingMessage,
            response: { end: (t: string) => void },
            { signal }: { signal: AbortSignal }
          ) => {
            started.add(request.url ?? "")
            // Its answer stands behind that of the first, which never comes.
            if (request.url === "/fast") return response.end("done")
            await aborted(signal)
          }
        ) as NodeEdge.PlainHandler
      )
    )
    edge.attach(server)
    const client = await raw(await listen(server))
    client.send(`${get("/slow")}${get("/fast")}${get("/slow")}`)
    await started.until(3)
    expect(records.all).toEqual([])
    client.socket.resetAndDestroy()
    const all = await records.until(3)
    expect(all.map(({ status }) => status)).toEqual([499, 499, 499])
  })
})

describe("a client that sends its FIN and would still read", () => {
  test("has gone, by default", async () => {
    const { edge, port, records, started } = await serving({})
    await using _edge = edge
    const client = await raw(port)
    client.send(get())
    await started.until(1)
    client.socket.end()
    expect((await records.until(1))[0]?.status).toBe(499)
  })

  test("has gone also where the server lets connections stay half open", async () => {
    const { edge, port, records, started } = await serving({}, true)
    await using _edge = edge
    const client = await raw(port)
    client.send(get())
    await started.until(1)
    client.socket.end()
    const [record] = await records.until(1)
    expect(record).toMatchObject({ status: 499, reason: { detail: "sent its FIN" } })
    await client.closed
  })

  test("is answered, where that is the policy", async () => {
    const { edge, records } = recording({ halfClose: "stays" })
    await using _edge = edge
    const started = gate()
    const proceed = gate()
    const server = createServer(
      edge.handle(
        cancellable(async (request: IncomingMessage, response: { end: (t: string) => void }) => {
          request.socket.once("end", () => proceed.open())
          started.open()
          await proceed.promise
          response.end("answered")
        }) as NodeEdge.PlainHandler
      )
    )
    Object.assign(server, { httpAllowHalfOpen: true })
    edge.attach(server)
    const client = await raw(await listen(server))
    client.send(get("/", "connection: close\r\n"))
    await started.promise
    client.socket.end()
    await client.until("answered")
    expect((await records.until(1))[0]?.status).toBe(200)
  })
})

describe("over HTTP/2", () => {
  const serving2 = async (handler: NodeEdge.PlainHandler, options: Parameters<typeof recording>[0] = {}) => {
    const { edge, records } = recording(options)
    const server = createServer2(edge.handle(handler))
    edge.attach(server)
    const port = await listen(server)
    const session = connect2(`http://127.0.0.1:${port}`)
    session.on("error", () => {})
    return { edge, records, session }
  }

  test("a stream that is reset has left, although node counts its response as finished", async () => {
    const started = new Told<IncomingMessage>()
    const { edge, records, session } = await serving2(waits(started))
    await using _edge = edge
    const stream = session.request({ ":path": "/a" })
    stream.on("error", () => {})
    const other = session.request({ ":path": "/b" })
    other.on("error", () => {})
    await started.until(2)
    stream.close(8)
    const [record] = await records.until(1)
    expect(record).toMatchObject({ url: "/a", status: 499, transport: "http2" })
    expect(record?.reason).toMatchObject({ detail: "reset its stream with the code 8" })
    session.destroy()
    expect((await records.until(2))[1]).toMatchObject({ url: "/b", status: 499 })
  })

  test("an answer that was ended and is not out yet has not arrived", async () => {
    const ended = gate()
    const { edge, records, session } = await serving2((_request, response) => {
      response.end(Buffer.alloc(8 * mebibyte))
      ended.open()
    })
    await using _edge = edge
    const stream = session.request({ ":path": "/" })
    stream.on("error", () => {})
    await ended.promise
    stream.close(8)
    expect((await records.until(1))[0]?.status).toBe(499)
    session.destroy()
  })

  test("an answer before the end of the request's body is an answer", async () => {
    const { edge, records, session } = await serving2((_request, response) => void response.end("early"))
    await using _edge = edge
    const stream = session.request({ ":path": "/", ":method": "POST" })
    stream.on("error", () => {})
    stream.write(Buffer.alloc(mebibyte))
    stream.resume()
    expect((await records.until(1))[0]?.status).toBe(200)
    session.destroy()
  })
})
