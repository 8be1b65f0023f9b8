/** The endpoint policy over Effect's server: who goes on, who is interrupted, what the record says. */
import { currentReason } from "@curfew/reason"
import { awaitPeerGone, cancellable, Endpoint, isActive, onDisconnect, RequestContext } from "@curfew/request"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { describe, expect, test } from "vitest"
import { ask, counted, run, serving, text, wire } from "./support/effectServer.ts"

/** A handler that says when it has started, and what became of it; it ends when it is let go. */
const steps = () => {
  const log: Array<string> = []
  const started = Deferred.makeUnsafe<void>()
  const go = Deferred.makeUnsafe<void>()
  const gone = Deferred.makeUnsafe<void>()
  const request = Deferred.makeUnsafe<RequestContext.RequestContext>()
  const tag = Effect.map(currentReason, Option.match({ onNone: () => "none", onSome: ({ _tag }) => _tag }))
  const handler = Effect.gen(function* () {
    yield* Effect.addFinalizer(() => Effect.sync(() => log.push("released")))
    yield* Effect.forkScoped(Effect.andThen(awaitPeerGone, Deferred.succeed(gone, undefined)))
    log.push("started")
    yield* Deferred.succeed(request, Option.getOrThrow(yield* RequestContext.current))
    yield* Deferred.succeed(started, undefined)
    yield* Deferred.await(go)
    log.push((yield* isActive) ? "active" : "nobody there")
    return text("answer")
  }).pipe(Effect.onInterrupt(() => Effect.map(tag, (reason) => log.push(`interrupted ${reason}`))))
  /** The edge is done with the request. */
  const finished = Effect.gen(function* () {
    const { finished } = yield* Deferred.await(request)
    while (!(yield* finished)) yield* Effect.yieldNow
  })
  return {
    log,
    handler,
    finished,
    started: Deferred.await(started),
    go: Deferred.succeed(go, undefined),
    gone: Deferred.await(gone)
  }
}

describe("L39: a client that leaves", () => {
  test("L39 does not touch an unmarked handler: it runs to its end, its answer is dropped and counted, and the record says 499", () =>
    run(
      Effect.gen(function* () {
        const { go, gone, handler, log, started } = steps()
        const server = yield* serving(HttpRouter.add("POST", "/orders", handler))
        const before = yield* counted(Endpoint.answersDropped, { method: "POST /orders", transport: "http1" })
        const client = yield* wire(server.port, ask("/orders", "POST", "content-length: 0\r\n"))
        yield* started
        client.socket.resetAndDestroy()
        yield* gone
        expect(log).toEqual(["started"])
        yield* go
        const [record] = yield* server.recorded(1)
        expect(log).toEqual(["started", "nobody there", "released"])
        expect(record).toMatchObject({
          route: "POST /orders",
          status: 499,
          outcome: "gone",
          dropped: true,
          reason: { _tag: "ClientGone", transport: "http1", detail: "closed its connection" },
          sent: { status: undefined, bytes: 0, whole: false }
        })
        const after = yield* counted(Endpoint.answersDropped, { method: "POST /orders", transport: "http1" })
        expect(after - before).toBe(1)
        expect(server.unhandled).toEqual([])
        expect(server.logged).toEqual([])
      })
    ))

  test("says of an unmarked handler's client how it left, too", () =>
    run(
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        const handler = Effect.as(
          Effect.andThen(Deferred.succeed(started, undefined), Deferred.await(go)),
          HttpServerResponse.empty()
        )
        const server = yield* serving(HttpRouter.add("POST", "/orders", handler))
        const client = yield* wire(server.port, ask("/orders", "POST", "content-length: 0\r\n"))
        yield* Deferred.await(started)
        const [socket] = server.sockets()
        const closed = Effect.callback<void>(
          (resume) => void socket?.once("close", () => resume(Effect.void))
        )
        client.socket.end()
        yield* closed
        yield* Deferred.succeed(go, undefined)
        const [record] = yield* server.recorded(1)
        expect(record?.reason).toMatchObject({ _tag: "ClientGone", detail: "sent its FIN" })
      })
    ))

  test("L39 interrupts a cancellable handler with ClientGone, its finalizers run, and the record says 499", () =>
    run(
      Effect.gen(function* () {
        const { handler, log, started } = steps()
        const server = yield* serving(HttpRouter.add("GET", "/search", cancellable(handler)))
        const client = yield* wire(server.port, ask("/search"))
        yield* started
        client.socket.resetAndDestroy()
        const [record] = yield* server.recorded(1)
        expect(log).toEqual(["started", "interrupted ClientGone", "released"])
        expect(record).toMatchObject({ status: 499, outcome: "gone", dropped: false })
      })
    ))

  test("L39 interrupts a handler with a grace that long after", () =>
    run(
      Effect.gen(function* () {
        const { gone, handler, log, started } = steps()
        const server = yield* serving(
          HttpRouter.add("GET", "/report", onDisconnect({ grace: "5 millis" })(handler))
        )
        const client = yield* wire(server.port, ask("/report"))
        yield* started
        client.socket.resetAndDestroy()
        yield* gone
        expect(log).toEqual(["started"])
        const [record] = yield* server.recorded(1)
        expect(log).toEqual(["started", "interrupted ClientGone", "released"])
        expect(record).toMatchObject({ status: 499, outcome: "gone" })
      })
    ))

  test("L39 lets the edge of a detached handler go at once; the record waits for the handler and names it", () =>
    run(
      Effect.gen(function* () {
        const { finished, go, handler, log, started } = steps()
        const server = yield* serving(HttpRouter.add("POST", "/mail", onDisconnect("detach")(handler)))
        const client = yield* wire(server.port, ask("/mail", "POST", "content-length: 0\r\n"))
        yield* started
        client.socket.resetAndDestroy()
        yield* finished
        expect(log).toEqual(["started"])
        expect(server.records).toEqual([])
        yield* go
        const [record] = yield* server.recorded(1)
        expect(log).toEqual(["started", "nobody there", "released"])
        expect(record).toMatchObject({ status: 499, outlived: ["POST /mail"], dropped: true })
      })
    ))

  test("L40 after the answer cancels nothing and is no 499", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(HttpRouter.add("GET", "/", cancellable(Effect.succeed(text("answer")))))
        const client = yield* wire(server.port, ask("/"))
        yield* client.until("answer")
        client.socket.resetAndDestroy()
        const [record] = yield* server.recorded(1)
        expect(record).toMatchObject({
          status: 200,
          outcome: "answered",
          dropped: false,
          sent: { status: 200, bytes: 6, whole: true }
        })
      })
    ))

  test("L37 L39 before its handler starts has a record too: a marked handler does not start, an unmarked one runs", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const [entered, go] = [Deferred.makeUnsafe<void>(), Deferred.makeUnsafe<void>()]
        let inside = 0
        const slow = HttpRouter.middleware(
          (app) =>
            Effect.gen(function* () {
              inside++
              if (inside === 2) yield* Deferred.succeed(entered, undefined)
              yield* Deferred.await(go)
              return yield* app
            }),
          { global: true }
        )
        const note = (name: string) =>
          Effect.as(
            Effect.sync(() => log.push(name)),
            text(name)
          )
        const server = yield* serving(
          Layer.mergeAll(
            slow,
            HttpRouter.add("GET", "/marked", cancellable(note("marked"))),
            HttpRouter.add("GET", "/unmarked", note("unmarked"))
          )
        )
        for (const path of ["/marked", "/unmarked"]) {
          const client = yield* wire(server.port, ask(path))
          while (inside === (path === "/marked" ? 0 : 1)) yield* Effect.yieldNow
          client.socket.resetAndDestroy()
        }
        yield* Deferred.await(entered)
        while (server.sockets().length > 0) yield* Effect.yieldNow
        yield* Deferred.succeed(go, undefined)
        const records = yield* server.recorded(2)
        expect(log).toEqual(["unmarked"])
        expect(
          records.map(({ dropped, outcome, route, status }) => [route, status, outcome, dropped]).sort()
        ).toEqual([
          ["GET /marked", 499, "gone", false],
          ["GET /unmarked", 499, "gone", true]
        ])
      })
    ))
})
