/** Deadlines, the request's context, loops, and calls to other servers, behind an edge of Effect's server. */
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { checkpoint } from "@curfew/guard"
import { currentReason, fromAbort } from "@curfew/reason"
import { cancellable, onDisconnect, RequestContext } from "@curfew/request"
import { background, currentSignal } from "@curfew/scope"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { describe, expect, test } from "vitest"
import { EdgeMetrics, type EdgeRequest } from "../src/index.ts"
import { ask, counted, fetched, run, serving, text, wire } from "./support/effectServer.ts"

type Handler = Effect.Effect<HttpServerResponse.HttpServerResponse>
const never = Effect.never as Handler
const answer = Effect.succeed(text("answer"))
const tag = Effect.map(
  currentReason,
  Option.match({ onNone: () => "none", onSome: ({ _tag }) => _tag as string })
)

describe("L48: a deadline", () => {
  const clientDeadline = { header: "X-Request-Timeout", max: "40 millis" } as const

  test("L48 of the route ends in 504 with its reason, whatever the policy", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const noted = Effect.onInterrupt(never, () => Effect.map(tag, (it) => log.push(it)))
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("GET", "/cancel", cancellable(noted)),
            HttpRouter.add("POST", "/shield", noted),
            HttpRouter.add("POST", "/detach", onDisconnect("detach")(noted)),
            HttpRouter.add("GET", "/answers", answer)
          ),
          { deadline: "20 millis", routes: { "GET /answers": { deadline: "1 hour" } } }
        )
        const bodies: Array<string> = []
        for (const [method, path] of [
          ["GET", "/cancel"],
          ["POST", "/shield"],
          ["POST", "/detach"]
        ] as const) {
          const { body, status } = yield* fetched(server.port, path, { method })
          bodies.push(`${status} ${body.trim()}`)
        }
        expect(bodies).toEqual([
          "504 the deadline of GET /cancel has passed",
          "504 the deadline of POST /shield has passed",
          "504 the deadline of POST /detach has passed"
        ])
        expect((yield* fetched(server.port, "/answers")).status).toBe(200)
        const records = yield* server.recorded(4)
        expect(log).toEqual(["Deadline", "Deadline", "Deadline"])
        expect(records.map(({ outcome, status }) => [status, outcome])).toEqual([
          [504, "cancelled"],
          [504, "cancelled"],
          [504, "cancelled"],
          [200, "answered"]
        ])
      })
    ))

  test("L48 of a client is heard when the edge says so, and names the client", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(HttpRouter.add("GET", "/", never), { clientDeadline })
        const { body, status } = yield* fetched(server.port, "/", { headers: { "x-request-timeout": "5ms" } })
        expect([status, body.trim()]).toEqual([504, "the peer's deadline of GET / has passed"])
        expect(yield* server.recorded(1)).toMatchObject([{ reason: { _tag: "Deadline", origin: "remote" } }])
      })
    ))

  test("of a client is bounded, and the route's stands where it is earlier", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(
          Layer.mergeAll(HttpRouter.add("GET", "/", never), HttpRouter.add("GET", "/short", never)),
          { clientDeadline, routes: { "GET /short": { deadline: "1 millis" } } }
        )
        const headers = { "x-request-timeout": "3600s" }
        expect((yield* fetched(server.port, "/", { headers })).body.trim()).toBe(
          "the peer's deadline of GET / has passed"
        )
        expect((yield* fetched(server.port, "/short", { headers })).body.trim()).toBe(
          "the deadline of GET /short has passed"
        )
      })
    ))

  test.each(["soon", "-1", "1e3", "5 m"])("of a client that is no time is 400: %s", (value) =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(HttpRouter.add("GET", "/", answer), { clientDeadline })
        const { body, status } = yield* fetched(server.port, "/", { headers: { "x-request-timeout": value } })
        expect([status, body]).toEqual([
          400,
          "The header x-request-timeout has to be a time such as 1500, 1500ms or 30s."
        ])
      })
    )
  )

  test("of a client is nobody's business by default", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(HttpRouter.add("GET", "/", answer))
        const headers = { "x-request-timeout": "0" }
        expect((yield* fetched(server.port, "/", { headers })).status).toBe(200)
      })
    ))

  test("of a client cuts a response stream off, so that it does not look whole", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const body = Stream.concat(Stream.make("part"), Stream.never).pipe(
          Stream.encodeText,
          Stream.ensuring(Effect.map(tag, (it) => log.push(it)))
        )
        const server = yield* serving(
          HttpRouter.add("GET", "/", Effect.succeed(HttpServerResponse.stream(body))),
          {
            clientDeadline
          }
        )
        const client = yield* wire(server.port, ask("/", "GET", "x-request-timeout: 30\r\n"))
        const got = yield* client.closed
        expect(got).toContain("part")
        expect(got.endsWith("0\r\n\r\n")).toBe(false)
        expect(log).toEqual(["Deadline"])
        expect(yield* server.recorded(1)).toMatchObject([
          {
            status: 200,
            outcome: "cancelled",
            reason: { _tag: "Deadline" },
            sent: { parts: 1, whole: false }
          }
        ])
      })
    ))
})

describe("L37, L38: a request's context", () => {
  test("L37 has one record for each request, and what is counted adds up", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("GET", "/counted/ok", answer),
            HttpRouter.add("GET", "/counted/fails", Effect.fail("broken")),
            HttpRouter.add("GET", "/counted/late", never)
          ),
          { routes: { "GET /counted/late": { deadline: "1 millis" } } }
        )
        for (const path of ["ok", "fails", "late", "ok"]) yield* fetched(server.port, `/counted/${path}?q=1`)
        const records = yield* server.recorded(4)
        expect(records.map(({ id, path, status }) => [id, path, status])).toEqual([
          ["http-1", "/counted/ok", 200],
          ["http-2", "/counted/fails", 500],
          ["http-3", "/counted/late", 504],
          ["http-4", "/counted/ok", 200]
        ])
        const of = (route: string, attributes: Record<string, string> = {}) => ({
          route,
          transport: "http1",
          ...attributes
        })
        expect(yield* counted(EdgeMetrics.started, of("GET /counted/ok"))).toBe(2)
        expect(
          yield* counted(EdgeMetrics.ended, of("GET /counted/ok", { outcome: "answered", status: "200" }))
        ).toBe(2)
        expect(
          yield* counted(EdgeMetrics.ended, of("GET /counted/fails", { outcome: "failed", status: "500" }))
        ).toBe(1)
        expect(
          yield* counted(EdgeMetrics.ended, of("GET /counted/late", { outcome: "cancelled", status: "504" }))
        ).toBe(1)
        expect(yield* counted(EdgeMetrics.cancelled, of("GET /counted/late", { reason: "Deadline" }))).toBe(1)
        const inFlight = Metric.withAttributes(EdgeMetrics.inFlight, of("GET /counted/ok"))
        expect((yield* Metric.value(inFlight)).value).toBe(0)
      })
    ))

  test("L37 L38 is kept by work that outlives the answer: the record names it and comes after it, and it is counted", () =>
    run(
      Effect.gen(function* () {
        const go = Deferred.makeUnsafe<void>()
        // What its answer went out without: a shielded handler that still cleans up when its deadline has passed.
        const handler = Effect.onInterrupt(never, () => Deferred.await(go))
        const server = yield* serving(HttpRouter.add("POST", "/outlived", handler), { deadline: "1 millis" })
        expect((yield* fetched(server.port, "/outlived", { method: "POST" })).status).toBe(504)
        expect(server.records).toEqual([])
        yield* Deferred.succeed(go, undefined)
        expect(yield* server.recorded(1)).toMatchObject([{ status: 504, outlived: ["POST /outlived"] }])
        expect(yield* counted(EdgeMetrics.outlived, { route: "POST /outlived" })).toBe(1)
      })
    ))

  test("L38 is not that of background work, which has none", () =>
    run(
      Effect.gen(function* () {
        const seen = Deferred.makeUnsafe<boolean>()
        const job = Effect.flatMap(RequestContext.current, (it) => Deferred.succeed(seen, Option.isSome(it)))
        const handler = Effect.as(background("mail", job), text("queued"))
        const server = yield* serving(HttpRouter.add("POST", "/mail", handler as never))
        expect((yield* fetched(server.port, "/mail", { method: "POST" })).status).toBe(200)
        expect(yield* Deferred.await(seen)).toBe(false)
        expect(yield* server.recorded(1)).toMatchObject([{ outlived: [] }])
      })
    ))

  test("L37 used after its end is a defect in tests, and is counted in production", () =>
    run(
      Effect.gen(function* () {
        for (const afterEnd of ["die", "count"] as const) {
          let kept: Option.Option<RequestContext.RequestContext> = Option.none()
          const handler = Effect.map(RequestContext.current, (it) => {
            kept = it
            return text("answer")
          })
          const server = yield* serving(HttpRouter.add("GET", `/kept/${afterEnd}`, handler), { afterEnd })
          yield* fetched(server.port, `/kept/${afterEnd}`)
          yield* server.recorded(1)
          const late = Effect.scoped(Option.getOrThrow(kept).lease)
          const exit = yield* Effect.exit(late)
          expect(String(exit)).toContain(afterEnd === "die" ? "Die" : "Fail")
          const name = { name: `GET /kept/${afterEnd}` }
          expect(yield* counted(RequestContext.usedAfterEnd, name)).toBe(afterEnd === "count" ? 1 : 0)
        }
      })
    ))

  test("is told when it starts, whatever the program makes of that", () =>
    run(
      Effect.gen(function* () {
        const started: Array<unknown> = []
        const onStart = (request: EdgeRequest) =>
          Effect.andThen(
            Effect.sync(() => started.push(request)),
            Effect.die("no")
          )
        const server = yield* serving(HttpRouter.add("GET", "/told/:id", answer), { onStart })
        yield* fetched(server.port, "/told/7?q=1")
        const request = {
          id: "http-1",
          method: "GET",
          route: "GET /told/:id",
          url: "/told/7?q=1",
          path: "/told/7",
          transport: "http1"
        }
        expect(started).toEqual([request])
        expect(yield* server.recorded(1)).toMatchObject([{ ...request, status: 200, outcome: "answered" }])
        expect(server.logged.map(({ message }) => message)).toEqual([
          "onStart failed. Catch what it may fail with."
        ])
      })
    ))

  test("is one line in the log, in place of that of Effect's logger, unless the edge is to write none", () =>
    run(
      Effect.gen(function* () {
        for (const accessLog of [true, false]) {
          const server = yield* serving(HttpRouter.add("GET", "/line", answer), { accessLog, doubled: true })
          yield* fetched(server.port, "/line")
          yield* server.recorded(1)
          expect(server.logged.map(({ message }) => message.replace(/ in .*/, ""))).toEqual([
            accessLog ? "GET /line 200" : "Sent HTTP response"
          ])
        }
      })
    ))

  test("labels log lines and spans with the request; its span ends with it", () =>
    run(
      Effect.gen(function* () {
        const spans: Array<string> = []
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            const end = span.end.bind(span)
            span.end = (at, exit) => {
              end(at, exit)
              spans.push(
                `${span.name} ${span.attributes.get("curfew.request.id") ?? "-"} ${span.attributes.get("http.route") ?? "-"}`
              )
            }
            return span
          }
        })
        const handler = Effect.as(Effect.withSpan(Effect.log("at work"), "inner"), text("answer"))
        const server = yield* serving(HttpRouter.add("GET", "/traced", handler), {
          accessLog: true,
          requestId: (request) => request.headers["x-request-id"] ?? "none",
          services: Layer.succeed(Tracer.Tracer)(tracer)
        })
        yield* fetched(server.port, "/traced", { headers: { "x-request-id": "abc" } })
        yield* server.recorded(1)
        expect(spans).toEqual(["inner - -", "GET abc /traced"])
        expect(server.logged.map(({ level }) => level)).toEqual(["Info", "Info"])
        expect(server.logged[1]?.message).toMatch(/^GET \/traced 200 in [\d.]+ ms$/)
        expect(server.annotations.map(({ request }) => request)).toEqual(["abc", "abc"])
      })
    ))
})

describe("L36: background work that outlives its request", () => {
  test("L36 L38 is linked to its span, and that to its own; its span ends when it does, and the record does not wait", () =>
    run(
      Effect.gen(function* () {
        const go = Deferred.makeUnsafe<void>()
        const spans = new Map<string, Tracer.Span>()
        const mailed = Deferred.makeUnsafe<void>()
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.set(span.name, span)
            const end = span.end.bind(span)
            span.end = (at, exit) => {
              end(at, exit)
              if (span.name === "mail") Deferred.doneUnsafe(mailed, Effect.void)
            }
            return span
          }
        })
        const handler = Effect.as(background("mail", Deferred.await(go)), text("queued"))
        const server = yield* serving(HttpRouter.add("POST", "/mail", handler as never), {
          services: Layer.succeed(Tracer.Tracer)(tracer)
        })
        expect((yield* fetched(server.port, "/mail", { method: "POST" })).status).toBe(200)
        expect(yield* server.recorded(1)).toMatchObject([{ status: 200, outlived: [] }])
        const request = spans.get("POST") as Tracer.Span
        const mail = spans.get("mail") as Tracer.Span
        expect(request.status._tag).toBe("Ended")
        expect(mail.status._tag).toBe("Started")
        const linked = ({ links }: Tracer.Span) =>
          links.map(({ attributes, span }) => [attributes, span.spanId])
        expect(linked(mail)).toEqual([[{ link: "caller" }, request.spanId]])
        expect(linked(request)).toEqual([[{ link: "background" }, mail.spanId]])
        // It is no part of the request: a trace of its own.
        expect(Option.isNone(mail.parent)).toBe(true)
        expect(request.attributes.get("curfew.request.id")).toBe("http-1")
        expect(mail.attributes.get("curfew.request.id")).toBe(undefined)
        yield* Deferred.succeed(go, undefined)
        yield* Deferred.await(mailed)
        expect(mail.status).toMatchObject({ _tag: "Ended", exit: { _tag: "Success" } })
      })
    ))
})

describe("a loop that holds the thread", () => {
  test("notices at its next checkpoint that its client has left, while others are answered", () =>
    run(
      Effect.gen(function* () {
        const begun = Deferred.makeUnsafe<void>()
        let rounds = 0
        let roundsWhenLeft = 0
        const loop = Effect.gen(function* () {
          yield* Deferred.succeed(begun, undefined)
          while (true) {
            // Some work, of far less than a time slice.
            for (let i = 0; i < 10_000; i++) rounds += i % 2 === 0 ? 0.5 : -0.5
            rounds = Math.round(rounds) + 1
            yield* checkpoint
          }
        }) as Handler
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("GET", "/loop", cancellable(loop)),
            HttpRouter.add("GET", "/ping", answer)
          )
        )
        const client = yield* wire(server.port, ask("/loop"))
        yield* Deferred.await(begun)
        for (let i = 0; i < 5; i++) expect((yield* fetched(server.port, "/ping")).status).toBe(200)
        expect(rounds).toBeGreaterThan(0)
        const heard = Effect.callback<void>((resume) => {
          server.sockets()[0]?.once("close", () => {
            roundsWhenLeft = rounds
            resume(Effect.void)
          })
          client.socket.resetAndDestroy()
        })
        yield* heard
        const records = yield* server.recorded(6)
        expect(records.at(-1)).toMatchObject({ route: "GET /loop", status: 499 })
        // It was between two rounds when the event came, and has begun none since.
        expect(rounds).toBe(roundsWhenLeft)
      })
    ))
})

describe("a call to another server", () => {
  /** A server that never answers, and says when its client has gone. */
  const upstream = Effect.acquireRelease(
    Effect.callback<{
      readonly url: string
      readonly reached: Effect.Effect<void>
      readonly aborted: Effect.Effect<void>
      readonly close: () => void
    }>((resume) => {
      const reached = Deferred.makeUnsafe<void>()
      const aborted = Deferred.makeUnsafe<void>()
      const server = createServer((_, response) => {
        Deferred.doneUnsafe(reached, Effect.void)
        response.on("close", () => {
          if (!response.writableEnded) Deferred.doneUnsafe(aborted, Effect.void)
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        resume(
          Effect.succeed({
            url: `http://127.0.0.1:${port}/`,
            reached: Deferred.await(reached),
            aborted: Deferred.await(aborted),
            close: () => {
              server.close()
              server.closeAllConnections()
            }
          })
        )
      })
    }),
    ({ close }) => Effect.sync(close)
  )

  test.each([
    ["Effect's client over fetch", FetchHttpClient.layer],
    ["Effect's client over undici", NodeHttpClient.layerUndici],
    ["Effect's client over node:http", NodeHttpClient.layerNodeHttp]
  ])("by %s is cancelled with its handler", (_, layer) =>
    run(
      Effect.gen(function* () {
        const there = yield* upstream
        const handler = Effect.as(Effect.orDie(HttpClient.get(there.url)), text("answer")).pipe(
          Effect.provide(layer as Layer.Layer<HttpClient.HttpClient>)
        )
        const server = yield* serving(HttpRouter.add("GET", "/", cancellable(handler)))
        const client = yield* wire(server.port, ask("/"))
        yield* there.reached
        client.socket.resetAndDestroy()
        yield* there.aborted
        expect(yield* server.recorded(1)).toMatchObject([{ status: 499 }])
      })
    )
  )

  test("by fetch itself is cancelled with its handler, with the reason", () =>
    run(
      Effect.gen(function* () {
        const there = yield* upstream
        const reasons: Array<unknown> = []
        const handler = Effect.gen(function* () {
          const signal = yield* currentSignal
          signal.addEventListener("abort", () => reasons.push(signal.reason))
          yield* Effect.tryPromise(() => fetch(there.url, { signal }))
          return text("answer")
        }).pipe(Effect.orDie, Effect.scoped)
        const server = yield* serving(HttpRouter.add("GET", "/", cancellable(handler)))
        const client = yield* wire(server.port, ask("/"))
        yield* there.reached
        client.socket.resetAndDestroy()
        yield* there.aborted
        yield* server.recorded(1)
        expect(reasons.map((reason) => fromAbort(reason)._tag)).toEqual(["ClientGone"])
      })
    ))
})
