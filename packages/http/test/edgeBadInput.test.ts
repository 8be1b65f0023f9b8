/** What no client should send, over Effect's server: its status, the connection closed, and nothing left of it. */

import { createServer } from "node:http"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import { describe, expect, test } from "vitest"
import { serverOptions } from "../src/index.ts"
import { ask, run, serving, text, wire } from "./support/effectServer.ts"

const reads = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  const body = yield* request.text
  return text(`read ${body.length}`)
})

const served = (options: Parameters<typeof serving>[1] = {}) =>
  serving(HttpRouter.add("*", "/", reads), { staged: { drain: 0 }, ...options })

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
  ])("%s: its status, and the connection closed", (_, written, status) =>
    run(
      Effect.gen(function* () {
        const server = yield* served()
        const client = yield* wire(server.port, written)
        expect(yield* client.closed).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
        expect(server.records).toEqual([])
      })
    )
  )
})

describe("a length that lies", () => {
  test("more than it says: what is over is the next request, and no good one: 400, and the connection closed", () =>
    run(
      Effect.gen(function* () {
        const server = yield* served()
        const client = yield* wire(
          server.port,
          `${ask("/", "POST", "content-length: 2\r\n")}abcdefgh\r\n\r\n`
        )
        expect(yield* client.closed).toMatch(/HTTP\/1.1 400 /)
        yield* server.recorded(1)
      })
    ))

  test("less than it says, and gone: 499, and the handler that reads it fails in silence", () =>
    run(
      Effect.gen(function* () {
        const server = yield* served()
        const client = yield* wire(server.port, `${ask("/", "POST", "content-length: 100\r\n")}abc`)
        client.socket.end()
        expect(yield* server.recorded(1)).toMatchObject([{ status: 499, outcome: "gone" }])
        yield* client.closed
        expect(server.logged.filter(({ level }) => level === "Error")).toEqual([])
        expect(server.unhandled).toEqual([])
      })
    ))

  test("a chunk that is none: 400, and the connection closed", () =>
    run(
      Effect.gen(function* () {
        const server = yield* served()
        const client = yield* wire(server.port, `${ask("/", "POST", "transfer-encoding: chunked\r\n")}zz\r\n`)
        expect(yield* client.closed).toMatch(/^HTTP\/1.1 400 /)
        yield* server.recorded(1)
        expect(server.logged.filter(({ level }) => level === "Error")).toEqual([])
      })
    ))
})

describe("a client that is slow", () => {
  const limits = { headers: "30 millis", request: "60 millis", checkEvery: "10 millis" } as const
  const server = () => createServer(serverOptions(limits).options)

  test("with its head, a byte at a time: 408, and the connection closed", () =>
    run(
      Effect.gen(function* () {
        const { port, records } = yield* served({ server })
        const client = yield* wire(port, "GET / HTTP/1.1\r\nh")
        const drip = setInterval(() => client.socket.write("x"), 5)
        expect(yield* client.closed).toMatch(/^HTTP\/1.1 408 /)
        clearInterval(drip)
        expect(records).toEqual([])
      })
    ))

  test("with its body, a byte at a time: 408, the connection closed, and the record says 499", () =>
    run(
      Effect.gen(function* () {
        const { logged, port, recorded } = yield* served({ server })
        const client = yield* wire(port, ask("/", "POST", "content-length: 1000000\r\n"))
        const drip = setInterval(() => client.socket.write("x"), 5)
        expect(yield* client.closed).toMatch(/^HTTP\/1.1 408 /)
        clearInterval(drip)
        expect(yield* recorded(1)).toMatchObject([{ status: 499 }])
        expect(logged.filter(({ level }) => level === "Error")).toEqual([])
      })
    ))
})
