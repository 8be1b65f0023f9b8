/** The stages of Effect's server at the end of its program. */
import { currentReason } from "@curfew/reason"
import { awaitPeerGone, onDisconnect } from "@curfew/request"
import { CleanupBudget } from "@curfew/scope"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import type { StopReport } from "../src/NodeEdge.ts"
import { ask, run, serving, text, wire } from "./support/effectServer.ts"

/** A handler that says when it has started, and goes on when it is let. */
const waiting = (then: Effect.Effect<HttpServerResponse.HttpServerResponse>) => {
  const begun = Deferred.makeUnsafe<void>()
  const go = Deferred.makeUnsafe<void>()
  return {
    handler: Effect.andThen(Deferred.succeed(begun, undefined), Effect.andThen(Deferred.await(go), then)),
    begun: Deferred.await(begun),
    go: Deferred.succeed(go, undefined)
  }
}

const answer = Effect.succeed(text("answer"))
const budget = Duration.millis(50)
const brief = Layer.succeed(CleanupBudget)(budget)
const inBrief = Effect.provideService(CleanupBudget, budget)

describe("L43: the end of the server", () => {
  test("L43 is at once with nothing but idle connections", () =>
    run(
      Effect.gen(function* () {
        const reports: Array<StopReport> = []
        const server = yield* serving(HttpRouter.add("GET", "/", answer), {
          staged: { drain: "1 hour", onStopped: (report) => reports.push(report) }
        })
        const idle = yield* wire(server.port, ask("/"))
        yield* idle.until("answer")
        const silent = yield* wire(server.port)
        yield* server.stop
        yield* idle.closed
        yield* silent.closed
        expect(reports).toEqual([{ drained: 0, cancelled: [], abandoned: [] }])
      })
    ))

  test("L43 lets what is under way end, says that its connection closes, and refuses what still comes", () =>
    run(
      Effect.gen(function* () {
        const reports: Array<StopReport> = []
        const { begun, go, handler } = waiting(answer)
        const server = yield* serving(HttpRouter.add("GET", "/", handler), {
          staged: { drain: "1 hour", onStopped: (report) => reports.push(report) }
        })
        const client = yield* wire(server.port, ask("/"))
        yield* begun
        const silent = yield* wire(server.port)
        const stopping = yield* Effect.forkChild(server.stop)
        // While others are under way.
        yield* silent.closed
        client.socket.write(ask("/late"))
        yield* go
        const got = yield* client.closed
        expect(got).toMatch(/^HTTP\/1.1 200 OK\r\n[\s\S]*connection: close\r\n[\s\S]*answer$/i)
        yield* Fiber.await(stopping)
        expect(reports).toEqual([{ drained: 1, cancelled: [], abandoned: [] }])
      })
    ))

  test("L43 waits for a shielded handler whose client has left", () =>
    run(
      Effect.gen(function* () {
        const reports: Array<StopReport> = []
        const { begun, go, handler } = waiting(answer)
        const gone = Deferred.makeUnsafe<void>()
        const noticing = Effect.andThen(
          Effect.forkScoped(Effect.andThen(awaitPeerGone, Deferred.succeed(gone, undefined))),
          handler
        )
        const server = yield* serving(HttpRouter.add("POST", "/", noticing), {
          staged: { drain: "1 hour", onStopped: (report) => reports.push(report) }
        })
        const client = yield* wire(server.port, ask("/", "POST", "content-length: 0\r\n"))
        yield* begun
        client.socket.resetAndDestroy()
        yield* Deferred.await(gone)
        const stopping = yield* Effect.forkChild(server.stop)
        while (server.server.listening) yield* Effect.yieldNow
        expect(stopping.pollUnsafe()).toBe(undefined)
        yield* go
        yield* Fiber.await(stopping)
        expect(reports).toEqual([{ drained: 1, cancelled: [], abandoned: [] }])
        expect(server.records).toMatchObject([{ status: 499, dropped: true }])
      })
    ))

  test("L43 L48 cancels what has not ended with Shutdown, whatever its policy, and answers 503", () =>
    run(
      Effect.gen(function* () {
        for (const policy of ["cancel", "shield", { grace: "1 hour" }, "detach"] as const) {
          const reports: Array<StopReport> = []
          const { begun, handler } = waiting(Effect.never)
          const server = yield* serving(HttpRouter.add("GET", "/", onDisconnect(policy)(handler)), {
            staged: { drain: 0, onStopped: (report) => reports.push(report) }
          })
          const client = yield* wire(server.port, ask("/"))
          yield* begun
          yield* server.stop
          expect(yield* client.closed).toMatch(/^HTTP\/1.1 503 /)
          expect(reports).toEqual([{ drained: 0, cancelled: ["GET /"], abandoned: [] }])
          expect(server.records).toMatchObject([
            { status: 503, outcome: "cancelled", reason: { _tag: "Shutdown" } }
          ])
        }
      })
    ))

  test("L43 leaves behind what does not end: behind an edge, in a mask, and in middleware that no edge knows", () =>
    run(
      Effect.gen(function* () {
        const reports: Array<StopReport> = []
        const { begun, handler } = waiting(Effect.never)
        const outside = waiting(Effect.never)
        const soft = waiting(Effect.never)
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("GET", "/", Effect.uninterruptible(handler)),
            HttpRouter.middleware(
              (app) =>
                Effect.flatMap(app, (response) => {
                  const kind = response.headers["x-outside"]
                  if (kind === undefined) return Effect.succeed(response)
                  return kind === "soft" ? Effect.interruptible(soft.handler) : outside.handler
                }),
              { global: true }
            ),
            HttpRouter.add("GET", "/soft", Effect.succeed(text("", { headers: { "x-outside": "soft" } }))),
            HttpRouter.add("GET", "/outside", Effect.succeed(text("", { headers: { "x-outside": "1" } })))
          ),
          { staged: { drain: 0, onStopped: (report) => reports.push(report) }, services: brief }
        )
        const client = yield* wire(server.port, ask("/"))
        yield* begun
        yield* wire(server.port, ask("/outside"))
        yield* outside.begun
        yield* wire(server.port, ask("/soft"))
        yield* soft.begun
        yield* server.stop
        expect(reports).toEqual([
          { drained: 0, cancelled: ["GET /soft"], abandoned: ["GET /", "GET /outside"] }
        ])
        // Told before it is left behind, and so is its record, which says that.
        expect(yield* client.closed).toMatch(/^HTTP\/1.1 503 /)
        expect(server.records.find(({ route }) => route === "GET /")).toMatchObject({
          status: 503,
          outcome: "abandoned",
          reason: { _tag: "Shutdown" },
          outlived: ["GET /"]
        })
      }).pipe(inBrief)
    ))

  test("L43 lets an answer out that a client still reads, which node's own close cuts off", () =>
    run(
      Effect.gen(function* () {
        const size = 32 * 1024 * 1024
        const server = yield* serving(HttpRouter.add("GET", "/", Effect.succeed(text("x".repeat(size)))), {
          staged: { drain: "1 hour" }
        })
        const idle = yield* wire(server.port, ask("/"))
        yield* idle.until("200 OK")
        idle.socket.destroy()
        const client = yield* wire(server.port, ask("/"))
        yield* client.until("200 OK")
        client.socket.pause()
        const stopping = yield* Effect.forkChild(server.stop)
        while (server.server.listening) yield* Effect.yieldNow
        for (let i = 0; i < 100; i++) yield* Effect.yieldNow
        client.socket.resume()
        const got = yield* client.closed
        expect(got.length).toBeGreaterThan(size)
        yield* Fiber.await(stopping)
        expect(server.records.at(-1)).toMatchObject({ status: 200, sent: { whole: true } })
      })
    ))

  test("L43 breaks off a client that does not read its answer", () =>
    run(
      Effect.gen(function* () {
        const reports: Array<StopReport> = []
        const large = text("x".repeat(32 * 1024 * 1024))
        const server = yield* serving(HttpRouter.add("GET", "/", Effect.succeed(large)), {
          staged: { drain: 0, onStopped: (report) => reports.push(report) },
          services: brief
        })
        const client = yield* wire(server.port, ask("/"))
        yield* client.until("200 OK")
        client.socket.pause()
        yield* server.stop
        expect(reports.length).toBe(1)
        const [record] = yield* server.recorded(1)
        expect(record).toMatchObject({ status: 499, outcome: "gone", sent: { status: 200, whole: false } })
      })
    ))

  test("L43 breaks a response stream off, after its finalizers, so that it does not look whole", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const reports: Array<StopReport> = []
        const stream = Stream.concat(Stream.make("part"), Stream.never).pipe(
          Stream.encodeText,
          Stream.ensuring(Effect.sync(() => log.push("finalized")))
        )
        const server = yield* serving(
          HttpRouter.add("GET", "/", Effect.succeed(HttpServerResponse.stream(stream))),
          {
            staged: { drain: 0, onStopped: (report) => reports.push(report) }
          }
        )
        const client = yield* wire(server.port, ask("/"))
        yield* client.until("part")
        yield* server.stop
        const got = yield* client.closed
        expect(log).toEqual(["finalized"])
        expect(got.endsWith("0\r\n\r\n")).toBe(false)
        expect(reports).toEqual([{ drained: 0, cancelled: ["GET /"], abandoned: [] }])
        expect(server.records).toMatchObject([
          {
            status: 200,
            outcome: "cancelled",
            reason: { _tag: "Shutdown" },
            sent: { parts: 1, bytes: 4, whole: false }
          }
        ])
      })
    ))
})

describe("L43: the end of Effect's own server", () => {
  test("L43 L48 cancels handlers and response streams behind an edge with Shutdown, whatever their policy", () =>
    run(
      Effect.gen(function* () {
        const reasons: Array<string> = []
        const noted = Effect.flatMap(
          currentReason,
          Option.match({
            onNone: () => Effect.void,
            onSome: ({ _tag }) => Effect.sync(() => reasons.push(_tag))
          })
        )
        const { begun, handler } = waiting(Effect.never)
        const stream = Stream.concat(Stream.make("part"), Stream.never).pipe(
          Stream.encodeText,
          Stream.ensuring(noted)
        )
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add(
              "POST",
              "/",
              Effect.onInterrupt(handler, () => noted)
            ),
            HttpRouter.add("GET", "/", Effect.succeed(HttpServerResponse.stream(stream)))
          ),
          { drain: 1, streams: "shield" }
        )
        const client = yield* wire(server.port, ask("/", "POST", "content-length: 0\r\n"))
        yield* begun
        const reader = yield* wire(server.port, ask("/"))
        yield* reader.until("part")
        const stopping = yield* Effect.forkChild(server.stop)
        yield* client.until("HTTP/1.1 503 ")
        yield* reader.closed
        expect(reasons).toEqual(["Shutdown", "Shutdown"])
        yield* server.recorded(2)
        // Its connection is kept alive, and Effect waits for it: what EdgeServer does not do.
        client.socket.destroy()
        yield* Fiber.await(stopping)
        expect(server.records.map(({ outcome, status }) => [status, outcome]).sort()).toEqual([
          [200, "cancelled"],
          [503, "cancelled"]
        ])
      })
    ))
})
