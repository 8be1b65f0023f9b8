import { spawn } from "node:child_process"
import { once } from "node:events"
import { createServer, request as httpRequest } from "node:http"
import { createServer as createServer2 } from "node:http2"
import { type Delivery, serve } from "@curfew/http"
import { eventStream } from "@curfew/http/ServerSentEvents"
import { onSocket, type SocketScope } from "@curfew/http/WebSocket"
import { cancellable } from "@curfew/request"
import { describe, expect, test } from "vitest"
import { WebSocket, WebSocketServer } from "ws"
import { aborted, gate, get, listen, raw, recording } from "./support/client.ts"

type OnSocket = (socket: unknown, scope: SocketScope) => unknown

const serving = async (handler: OnSocket, options: Parameters<typeof onSocket>[3] = {}, edgeOptions = {}) => {
  const { edge, records } = recording(edgeOptions)
  const server = createServer((_request, response) => response.writeHead(426).end())
  const sockets = new WebSocketServer({ server })
  onSocket(edge, sockets, handler, options)
  edge.attach(server)
  const port = await listen(server)
  const client = new WebSocket(`ws://127.0.0.1:${port}`)
  client.on("error", () => {})
  return { edge, records, client, port }
}

const closeOf = async (client: WebSocket): Promise<readonly [number, string]> => {
  const [code, words] = await once(client, "close")
  return [code, String(words)]
}

const waits: OnSocket = async (_socket, scope) => {
  await scope.run(aborted)
}

describe("a socket's life is a scope", () => {
  test("its handler ends: 1000", async () => {
    const { client, edge, records } = await serving(async (_socket, scope) => {
      expect(await scope.send("hello")).toEqual({ _tag: "Sent" })
    })
    await using _edge = edge
    const message = once(client, "message")
    const closed = closeOf(client)
    expect(String((await message)[0])).toBe("hello")
    expect(await closed).toEqual([1000, ""])
    expect((await records.until(1))[0]).toMatchObject({ transport: "ws", status: 101, reason: undefined })
  })

  test("its handler fails: 1011, without the words of the failure", async () => {
    const { client, edge } = await serving(async () => {
      throw new Error("secret")
    })
    await using _edge = edge
    expect(await closeOf(client)).toEqual([1011, "The request could not be answered."])
  })

  test("a deadline: 1008; a shutdown: 1001", async () => {
    const late = await serving(waits, { deadline: "10 millis" })
    await using _late = late.edge
    expect(await closeOf(late.client)).toEqual([1008, "The deadline of GET has passed."])
    const started = gate()
    const stopped = await serving(
      async (socket, scope) => {
        started.open()
        await waits(socket, scope)
      },
      {},
      { drain: "10 millis" }
    )
    const closed = closeOf(stopped.client)
    await started.promise
    await stopped.edge.shutdown()
    expect(await closed).toEqual([1001, "The server is shutting down (force)."])
    expect((await stopped.records.until(1))[0]?.reason?._tag).toBe("Shutdown")
  })

  test.each([
    ["closes it", (client: WebSocket) => client.close(4000, "bye"), "closed the socket with the code 4000"],
    ["vanishes", (client: WebSocket) => client.terminate(), "closed its connection"]
  ])("its client %s: the handler is cancelled, and a send is a value", async (_, leave, detail) => {
    const started = gate()
    const late = gate<Delivery>()
    const { client, edge, records } = await serving(async (_socket, scope) => {
      started.open()
      await aborted(scope.signal)
      late.open(await scope.send("too late"))
    })
    const opened = client.readyState === WebSocket.OPEN || once(client, "open")
    await using _edge = edge
    await Promise.all([started.promise, opened])
    leave(client)
    expect(await late.promise).toMatchObject({
      _tag: "PeerGone",
      reason: { _tag: "ClientGone", transport: "ws" }
    })
    expect((await records.until(1))[0]).toMatchObject({ status: 499, reason: { detail } })
  })

  test("its client answers no ping: it has gone", async () => {
    const { client, edge, port, records } = await serving(waits, {
      heartbeat: { every: "50 millis", within: "150 millis" }
    })
    await using _edge = edge
    // A process that is stopped keeps its connection, and says nothing on it.
    const script = `const s = new WebSocket("ws://127.0.0.1:${port}/frozen"); s.onopen = () => process.kill(process.pid, "SIGSTOP")`
    const child = spawn(process.execPath, ["-e", script], { stdio: "ignore" })
    const frozen = (await records.until(1)).find(({ url }) => url === "/frozen")
    expect(frozen).toMatchObject({ status: 499, reason: { detail: "answered no ping" } })
    client.terminate()
    child.kill("SIGKILL")
  })
})

describe("server-sent events", () => {
  test("a client that leaves is PeerGone to a send, also one that waits for room", async () => {
    const outcomes: Array<string> = []
    const full = gate()
    await using server = await serve(
      async (_request, response, exchange) => {
        const events = eventStream(exchange, response)
        for (;;) {
          const sending = events.send("x".repeat(1024 * 1024))
          if (response.writableNeedDrain) full.open()
          const { _tag } = await sending
          if (_tag === "Sent") continue
          outcomes.push(_tag, (await events.send("again"))._tag, events.end()._tag)
          return
        }
      },
      { kind: "stream", policy: "shield", host: "127.0.0.1", onRecord: () => ended.open() }
    )
    const ended = gate()
    const client = await raw(server.port)
    client.send(get())
    await client.until("text/event-stream")
    client.socket.pause()
    await full.promise
    client.socket.resetAndDestroy()
    await ended.promise
    expect(outcomes).toEqual(["PeerGone", "PeerGone", "PeerGone"])
  })

  test("a stream without a mark is cancelled when its client leaves", async () => {
    const { edge, records } = recording()
    await using _edge = edge
    const server = createServer(
      edge.handle(
        async (_request, response, exchange) => {
          eventStream(exchange, response)
          await exchange.run(aborted)
        },
        { kind: "stream" }
      )
    )
    edge.attach(server)
    const client = await raw(await listen(server))
    client.send(get())
    await client.until("text/event-stream")
    client.socket.resetAndDestroy()
    expect((await records.until(1))[0]).toMatchObject({ status: 499, reason: { _tag: "ClientGone" } })
  })

  test("what is in a field stays in it", async () => {
    await using server = await serve((_request, response, exchange) => {
      const events = eventStream(exchange, response)
      events.send({ event: "a\ndata: forged", id: "1\r\n2", retry: 10, data: "one\r\ntwo" })
      events.end()
    })
    const text = await (await fetch(`http://127.0.0.1:${server.port}`)).text()
    expect(text).toBe("event: a data: forged\nid: 1  2\nretry: 10\ndata: one\ndata: two\n\n")
  })
})

describe("signs of life while a handler computes", () => {
  test("over HTTP/1.1 an interim response, which a client need not look at; a comment in a stream of events", async () => {
    const proceed = gate()
    await using server = await serve(
      async (request, response, exchange) => {
        const events = request.url === "/events" ? eventStream(exchange, response) : undefined
        await proceed.promise
        if (events === undefined) exchange.answer(200, "done")
        else events.end()
      },
      { heartbeat: { every: "5 millis" }, host: "127.0.0.1" }
    )
    const interim = gate<number>()
    const call = httpRequest({ port: server.port, host: "127.0.0.1" })
    call.on("information", ({ statusCode }) => interim.open(statusCode))
    call.end()
    const answered = once(call, "response")
    const events = await raw(server.port)
    events.send(get("/events"))
    await events.until(":\n\n")
    expect(await interim.promise).toBe(102)
    proceed.open()
    const [response] = await answered
    expect(response.statusCode).toBe(200)
    response.resume()
    events.socket.destroy()
  })

  test("over HTTP/2 a ping: a process that is stopped has gone", async () => {
    const { edge, records } = recording({ heartbeat: { every: "50 millis", within: "150 millis" } })
    await using _edge = edge
    const server = createServer2(
      edge.handle(
        cancellable(async (_request: unknown, _response: unknown, exchange: { signal: AbortSignal }) => {
          child.kill("SIGSTOP")
          await aborted(exchange.signal)
        }) as () => Promise<void>
      )
    )
    edge.attach(server)
    const port = await listen(server)
    const script = `require("node:http2").connect("http://127.0.0.1:${port}").request({ ":path": "/" })`
    const child = spawn(process.execPath, ["-e", script], { stdio: "ignore" })
    expect((await records.until(1))[0]).toMatchObject({ status: 499, reason: { detail: "answered no ping" } })
    child.kill("SIGKILL")
  })
})
