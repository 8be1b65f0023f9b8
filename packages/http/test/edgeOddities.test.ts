/** What HTTP allows and few clients send, over Effect's server: each request is answered, has its record, and leaves nothing. */
import { cancellable } from "@curfew/request"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { ask, run, serving, text, wire } from "./support/effectServer.ts"

const reads = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  const body = yield* request.text
  return text(`read ${body.length}`)
})
const routes = HttpRouter.add("*", "/", reads)

const kinds = [
  ["Effect's own server", {}],
  ["EdgeServer", { staged: { drain: 0 } }]
] as const

describe.each(kinds)("over %s", (_, options) => {
  test("who asks for leave to send its body gets it, and its answer", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(routes, options)
        const client = yield* wire(
          server.port,
          ask("/", "POST", "content-length: 3\r\nexpect: 100-continue\r\n")
        )
        yield* client.until("100 Continue")
        client.socket.write("abc")
        yield* client.until("read 3")
        expect(yield* server.recorded(1)).toMatchObject([{ status: 200, outcome: "answered" }])
      })
    ))

  test("who asks for leave to send too much of it is told 413", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(routes, { ...options, bodyBytes: 2 })
        const client = yield* wire(
          server.port,
          ask("/", "POST", "content-length: 3\r\nexpect: 100-continue\r\n")
        )
        yield* client.until("HTTP/1.1 413 ")
        client.socket.destroy()
        expect(yield* server.recorded(1)).toMatchObject([{ status: 413 }])
      })
    ))

  test("who expects anything else is told 417", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(routes, options)
        const client = yield* wire(server.port, ask("/", "POST", "content-length: 0\r\nexpect: wonders\r\n"))
        yield* client.until("HTTP/1.1 417 ")
      })
    ))

  test("who would rather speak another protocol, which nobody knows here, is answered in this one", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(routes, options)
        const client = yield* wire(
          server.port,
          ask(
            "/",
            "GET",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
          )
        )
        yield* client.until("read 0")
        expect(yield* server.recorded(1)).toMatchObject([{ status: 200 }])
      })
    ))

  test("trailers change nothing", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(routes, options)
        const body = "3\r\nabc\r\n0\r\nx-checksum: 1\r\n\r\n"
        const client = yield* wire(
          server.port,
          `${ask("/", "POST", "transfer-encoding: chunked\r\ntrailer: x-checksum\r\n")}${body}${ask("/")}`
        )
        yield* client.until("read 3")
        yield* client.until("read 0")
        yield* server.recorded(2)
      })
    ))

  test("HEAD has a record like any other, also of a stream", () =>
    run(
      Effect.gen(function* () {
        const stream = HttpServerResponse.stream(Stream.encodeText(Stream.make("part")))
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("GET", "/", Effect.succeed(text("answer"))),
            HttpRouter.add("GET", "/stream", Effect.succeed(stream)),
            HttpRouter.add("GET", "/late", cancellable(Effect.never))
          ),
          { ...options, routes: { "GET /late": { deadline: "1 millis" } } }
        )
        const client = yield* wire(server.port, ask("/", "HEAD"))
        yield* client.until("\r\n\r\n")
        client.socket.write(ask("/stream", "HEAD"))
        yield* client.until("\r\n\r\n", 2)
        client.socket.write(ask("/late", "HEAD"))
        yield* client.until("504")
        yield* client.until("\r\n\r\n", 3)
        const records = yield* server.recorded(3)
        expect(records.map(({ status }) => status)).toEqual([200, 200, 504])
      })
    ))

  test("an upload that ends at any byte leaves nothing, and the server answers", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(routes, options)
        const written = `${ask("/", "POST", "transfer-encoding: chunked\r\n")}5\r\nhello\r\n0\r\n\r\n`
        const head = written.indexOf("\r\n\r\n") + 4
        for (let end = 1; end < written.length; end++) {
          const before = server.records.length
          const client = yield* wire(server.port, written.slice(0, end))
          yield* Effect.callback<void>((resume) => {
            client.socket.end(() => resume(Effect.void))
          })
          yield* client.closed
          if (end >= head) yield* server.recorded(before + 1)
        }
        expect(server.records.map(({ outcome, status }) => `${outcome} ${status}`)).toEqual(
          server.records.map(() => "gone 499")
        )
        expect(server.logged.filter(({ level }) => level === "Error" || level === "Warn")).toEqual([])
        expect(server.unhandled).toEqual([])
        const last = yield* wire(server.port, written)
        yield* last.until("read 5")
      })
    ))

  test("a stream that fails after its head breaks its connection off, and the record says it failed", () =>
    run(
      Effect.gen(function* () {
        const stream = Stream.concat(Stream.make("part"), Stream.fail("broken"))
        const server = yield* serving(
          HttpRouter.add("GET", "/", Effect.succeed(HttpServerResponse.stream(Stream.encodeText(stream)))),
          options
        )
        const client = yield* wire(server.port, ask("/"))
        expect((yield* client.closed).endsWith("0\r\n\r\n")).toBe(false)
        expect(yield* server.recorded(1)).toMatchObject([{ outcome: "failed", sent: { whole: false } }])
      })
    ))

  test.each([
    ["drain"],
    ["ignore"],
    [{ buffer: 10 }],
    [{ buffer: 10, whenFull: "reject" as const }]
  ] as const)(
    "pipelined uploads that nobody reads, under %j, and their client leaves in the second: each has its record",
    (body) =>
      run(
        Effect.gen(function* () {
          const go = Deferred.makeUnsafe<void>()
          const both = Deferred.makeUnsafe<void>()
          let begun = 0
          const handler = Effect.suspend(() => {
            begun++
            if (begun === 2) Deferred.doneUnsafe(both, Effect.void)
            return Effect.as(Deferred.await(go), text("answer"))
          })
          const server = yield* serving(HttpRouter.add("POST", "/", handler), { ...options, body })
          const upload = ask("/", "POST", "content-length: 100\r\n")
          const client = yield* wire(server.port, `${upload}${"x".repeat(100)}${upload}${"x".repeat(50)}`)
          yield* Deferred.await(both)
          client.socket.resetAndDestroy()
          while (server.sockets().length > 0) yield* Effect.yieldNow
          yield* Deferred.succeed(go, undefined)
          const records = yield* server.recorded(2)
          expect(records.map(({ outcome, status }) => `${outcome} ${status}`)).toEqual([
            "gone 499",
            "gone 499"
          ])
        })
      )
  )
})
