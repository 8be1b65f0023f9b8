/** That a client has left is noticed where node alone does not, and is not where it has not. */
import * as http2 from "node:http2"
import { type CancelReason, currentReason } from "@curfew/reason"
import { awaitPeerGone, cancellable, isActive, onDisconnect } from "@curfew/request"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { ask, fetched, run, serving, text, wire } from "./support/effectServer.ts"

const KiB = 1024

/** Handlers that wait, and say what they hear. */
const waiting = () => {
  const begun = Deferred.makeUnsafe<void>()
  const go = Deferred.makeUnsafe<void>()
  const told = Deferred.makeUnsafe<string>()
  const log: Array<string> = []
  const tell = (reason: CancelReason) =>
    Deferred.succeed(told, "detail" in reason ? (reason.detail ?? "") : reason._tag)
  const handler = Effect.gen(function* () {
    yield* Effect.forkScoped(Effect.flatMap(awaitPeerGone, tell))
    yield* Effect.addFinalizer(() =>
      Effect.flatMap(currentReason, Option.match({ onNone: () => Effect.void, onSome: tell }))
    )
    yield* Deferred.succeed(begun, undefined)
    yield* Deferred.await(go)
    log.push((yield* isActive) ? "active" : "nobody there")
    return text("answer")
  })
  return {
    handler,
    log,
    begun: Deferred.await(begun),
    go: Deferred.succeed(go, undefined),
    told: Deferred.await(told),
    heard: () => Deferred.isDoneUnsafe(told)
  }
}

const upload = (port: number, bytes: number, sent = bytes) =>
  wire(port, `${ask("/", "POST", `content-length: ${bytes}\r\n`)}${"x".repeat(sent)}`)

describe("a body that nobody reads", () => {
  const cases = [
    ["drain", 64 * KiB, 64 * KiB],
    ["drain", 300 * KiB, 300 * KiB],
    ["drain", 8192 * KiB, 4096 * KiB],
    [{ buffer: 16 * KiB * KiB }, 64 * KiB, 64 * KiB],
    [{ buffer: 16 * KiB * KiB }, 300 * KiB, 300 * KiB],
    [{ buffer: 16 * KiB * KiB }, 8192 * KiB, 4096 * KiB]
  ] as const
  test.each(cases)("under %j of %i bytes hides no client that leaves", (body, bytes, sent) =>
    run(
      Effect.gen(function* () {
        const { begun, handler, told } = waiting()
        const server = yield* serving(HttpRouter.add("POST", "/", onDisconnect("cancel")(handler)), {
          body,
          bodyBytes: 16 * KiB * KiB
        })
        const client = yield* upload(server.port, bytes, sent)
        yield* begun
        client.socket.resetAndDestroy()
        yield* told
        expect(yield* server.recorded(1)).toMatchObject([{ status: 499, outcome: "gone" }])
      })
    )
  )

  test("and is ignored hides one, as node alone does: the handler is not told while others are answered", () =>
    run(
      Effect.gen(function* () {
        const { begun, handler, heard } = waiting()
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("POST", "/", onDisconnect("cancel")(handler)),
            HttpRouter.add("GET", "/ping", Effect.succeed(text("pong")))
          ),
          { body: "ignore", bodyBytes: 16 * KiB * KiB }
        )
        const client = yield* upload(server.port, 8192 * KiB, 8192 * KiB)
        yield* begun
        client.socket.resetAndDestroy()
        for (let i = 0; i < 20; i++) yield* fetched(server.port, "/ping")
        expect(heard()).toBe(false)
        server.server.closeAllConnections()
        yield* server.recorded(21)
      })
    ))

  test("and was read ahead is all there for a handler that reads it later", () =>
    run(
      Effect.gen(function* () {
        const begun = Deferred.makeUnsafe<void>()
        const go = Deferred.makeUnsafe<void>()
        const handler = Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          yield* Deferred.succeed(begun, undefined)
          yield* Deferred.await(go)
          return text(String((yield* request.arrayBuffer).byteLength))
        })
        const server = yield* serving(HttpRouter.add("POST", "/", handler))
        const client = yield* upload(server.port, 600 * KiB)
        yield* Deferred.await(begun)
        for (let i = 0; i < 50; i++) yield* Effect.yieldNow
        yield* Deferred.succeed(go, undefined)
        yield* client.until(String(600 * KiB))
      })
    ))

  test.each([
    ["declared", "content-length: 2000\r\n", "x".repeat(2000)],
    ["counted", "transfer-encoding: chunked\r\n", `7d0\r\n${"x".repeat(2000)}\r\n0\r\n\r\n`]
  ])("L48 and is over the limit, as it is %s, is 413, and the handler is cancelled", (_, header, body) =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(HttpRouter.add("POST", "/", Effect.never as never), { bodyBytes: 1000 })
        const client = yield* wire(server.port, ask("/", "POST", header) + body)
        yield* client.until("HTTP/1.1 413 ")
        expect(yield* server.recorded(1)).toMatchObject([
          { status: 413, outcome: "cancelled", reason: { _tag: "LimitExceeded", limit: "bodyBytes" } }
        ])
      })
    )
  )
})

describe("a client that ends its side of the connection", () => {
  test("has gone, as node has it", () =>
    run(
      Effect.gen(function* () {
        const { begun, handler, told } = waiting()
        const server = yield* serving(HttpRouter.add("GET", "/", cancellable(handler)))
        const client = yield* wire(server.port, ask("/"))
        yield* begun
        client.socket.end()
        yield* told
        expect(yield* server.recorded(1)).toMatchObject([{ status: 499 }])
        expect(yield* client.closed).toBe("")
      })
    ))

  test("stays, where edge and server say so, and gets its answer", () =>
    run(
      Effect.gen(function* () {
        const { begun, go, handler, heard, log } = waiting()
        const server = yield* serving(HttpRouter.add("GET", "/", cancellable(handler)), {
          halfClose: "stays",
          staged: { halfClose: "stays" }
        })
        const client = yield* wire(server.port, ask("/"))
        yield* begun
        const ended = Effect.callback<void>((resume) => {
          server.sockets()[0]?.once("end", () => resume(Effect.void))
          client.socket.end()
        })
        yield* ended
        expect(heard()).toBe(false)
        yield* go
        yield* client.until("answer")
        expect(log).toEqual(["active"])
        expect(yield* server.recorded(1)).toMatchObject([{ status: 200, outcome: "answered" }])
      })
    ))
})

describe("pipelined requests", () => {
  test("run side by side; their client's leaving is told to each of them, and no answer counts that did not go out", () =>
    run(
      Effect.gen(function* () {
        const slow = waiting()
        const other = waiting()
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("GET", "/slow", cancellable(slow.handler)),
            HttpRouter.add("GET", "/fast", cancellable(Effect.succeed(text("fast")))),
            HttpRouter.add("GET", "/other", cancellable(other.handler))
          )
        )
        const client = yield* wire(server.port, ask("/slow") + ask("/fast") + ask("/other"))
        yield* slow.begun
        yield* other.begun
        client.socket.resetAndDestroy()
        yield* slow.told
        yield* other.told
        const records = yield* server.recorded(3)
        expect(records.map(({ outcome, route, status }) => [route, status, outcome]).sort()).toEqual([
          ["GET /fast", 499, "gone"],
          ["GET /other", 499, "gone"],
          ["GET /slow", 499, "gone"]
        ])
      })
    ))
})

describe("HTTP/2", () => {
  const overHttp2 = (port: number) =>
    Effect.acquireRelease(
      Effect.callback<http2.ClientHttp2Session>((resume) => {
        const session = http2.connect(`http://127.0.0.1:${port}`)
        session.on("error", () => undefined)
        session.on("connect", () => resume(Effect.succeed(session)))
      }),
      (session) => Effect.sync(() => session.destroy())
    )
  const send = (session: http2.ClientHttp2Session, path: string, method = "GET") => {
    const stream = session.request({ ":path": path, ":method": method })
    stream.on("error", () => undefined)
    return stream
  }
  const answerOf = (stream: http2.ClientHttp2Stream) =>
    Effect.callback<string>((resume) => {
      let got = ""
      stream.on("data", (chunk: Buffer) => {
        got += chunk.toString()
      })
      stream.on("end", () => resume(Effect.succeed(got)))
    })

  test("a stream that its client resets is a client that left; the others of its session are answered", () =>
    run(
      Effect.gen(function* () {
        const [a, b] = [waiting(), waiting()]
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("GET", "/a", cancellable(a.handler)),
            HttpRouter.add("GET", "/b", cancellable(b.handler))
          ),
          { server: () => http2.createServer() as never }
        )
        const session = yield* overHttp2(server.port)
        const left = send(session, "/a")
        const stays = send(session, "/b")
        const got = yield* Effect.forkChild(answerOf(stays))
        yield* a.begun
        yield* b.begun
        left.close(http2.constants.NGHTTP2_CANCEL)
        expect(yield* a.told).toContain("reset its stream")
        expect(b.heard()).toBe(false)
        yield* b.go
        expect(yield* Fiber.join(got)).toBe("answer")
        const records = yield* server.recorded(2)
        expect(
          records.map(({ outcome, route, status, transport }) => [route, status, outcome, transport])
        ).toEqual([
          ["GET /a", 499, "gone", "http2"],
          ["GET /b", 200, "answered", "http2"]
        ])
      })
    ))

  test("a session that ends takes each of its requests along, also one whose body nobody reads", () =>
    run(
      Effect.gen(function* () {
        const [a, b] = [waiting(), waiting()]
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("GET", "/a", cancellable(a.handler)),
            HttpRouter.add("POST", "/b", onDisconnect("cancel")(b.handler))
          ),
          { server: () => http2.createServer() as never }
        )
        const session = yield* overHttp2(server.port)
        send(session, "/a").end()
        send(session, "/b", "POST").end("x".repeat(512 * KiB))
        yield* a.begun
        yield* b.begun
        session.destroy()
        yield* a.told
        yield* b.told
        const records = yield* server.recorded(2)
        expect(records.map(({ status }) => status)).toEqual([499, 499])
      })
    ))
})

describe("a client that vanished without a word", () => {
  const heartbeat = { every: "5 millis" } as const

  /** The beginning of a session, and a GET of /, by a client that answers nothing from then on. */
  const silent = [
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
    Buffer.from([0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, 0x61])
  ]

  test("over HTTP/2 answers no ping, and its handler is told", () =>
    run(
      Effect.gen(function* () {
        const { begun, handler, told } = waiting()
        const server = yield* serving(HttpRouter.add("GET", "/", cancellable(handler)), {
          heartbeat,
          server: () => http2.createServer() as never
        })
        const client = yield* wire(server.port)
        client.socket.write(Buffer.concat(silent))
        yield* begun
        expect(yield* told).toBe("answered no ping")
        expect(yield* server.recorded(1)).toMatchObject([
          { status: 499, reason: { detail: "answered no ping" } }
        ])
      })
    ))

  test("and one that is there is answered as without: over HTTP/1 after interim answers", () =>
    run(
      Effect.gen(function* () {
        const { go, handler } = waiting()
        const server = yield* serving(HttpRouter.add("GET", "/", cancellable(handler)), { heartbeat })
        const client = yield* wire(server.port, ask("/"))
        yield* client.until("102 Processing", 3)
        yield* go
        yield* client.until("answer")
        expect(yield* server.recorded(1)).toMatchObject([{ status: 200, outcome: "answered" }])
      })
    ))
})

describe("a connection that becomes a WebSocket", () => {
  test("L39 is a stream: its handler is interrupted when the client leaves without a word", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const open = Deferred.makeUnsafe<void>()
        const handler = Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          yield* request.upgrade
          yield* Deferred.succeed(open, undefined)
          return yield* Effect.never as Effect.Effect<HttpServerResponse.HttpServerResponse>
        }).pipe(Effect.onInterrupt(() => Effect.sync(() => log.push("interrupted"))))
        const server = yield* serving(HttpRouter.add("GET", "/ws", handler))
        const client = yield* wire(
          server.port,
          ask(
            "/ws",
            "GET",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
          )
        )
        yield* Effect.race(Deferred.await(open), client.until("101"))
        client.socket.resetAndDestroy()
        expect(yield* server.recorded(1)).toMatchObject([{ transport: "ws", outcome: "gone", status: 499 }])
        expect(log).toEqual(["interrupted"])
      })
    ))
})

describe("server-sent events", () => {
  test("L39 end with their client: the stream's finalizers run, and the record says what was sent", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const events = Stream.concat(Stream.make("data: 1\n\n", "data: 2\n\n"), Stream.never).pipe(
          Stream.encodeText,
          Stream.ensuring(Effect.sync(() => log.push("finalized")))
        )
        const server = yield* serving(
          HttpRouter.add(
            "GET",
            "/events",
            Effect.succeed(
              HttpServerResponse.stream(events, { contentType: "text/event-stream", headers: { "x-a": "b" } })
            )
          )
        )
        const client = yield* wire(server.port, ask("/events"))
        yield* client.until("data: 2")
        expect(client.received()).toMatch(/content-type: text\/event-stream/i)
        expect(client.received()).toMatch(/x-a: b/i)
        client.socket.resetAndDestroy()
        const records = yield* server.recorded(1)
        expect(log).toEqual(["finalized"])
        expect(records).toMatchObject([
          { status: 499, outcome: "gone", sent: { status: 200, parts: 2, bytes: 18, whole: false } }
        ])
      })
    ))

  test("L41 that are shielded run to their end, although nobody writes their parts any more", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const go = Deferred.makeUnsafe<void>()
        const rest = Stream.tap(Stream.rechunk(Stream.range(1, 20), 1), () => Effect.yieldNow)
        const events = Stream.make("data: 0\n\n").pipe(
          Stream.concat(Stream.drain(Stream.fromEffect(Deferred.await(go)))),
          Stream.concat(Stream.map(rest, (i) => `data: ${i}\n\n`)),
          Stream.encodeText,
          Stream.onExit((exit) => Effect.sync(() => log.push(exit._tag)))
        )
        const server = yield* serving(
          HttpRouter.add("GET", "/events", Effect.succeed(HttpServerResponse.stream(events))),
          { streams: "shield" }
        )
        const client = yield* wire(server.port, ask("/events"))
        yield* client.until("data: 0")
        client.socket.resetAndDestroy()
        while (server.sockets().length > 0) yield* Effect.yieldNow
        expect(log).toEqual([])
        yield* Deferred.succeed(go, undefined)
        expect(yield* server.recorded(1)).toMatchObject([{ status: 499, sent: { parts: 1, whole: false } }])
        expect(log).toEqual(["Success"])
      })
    ))
})
