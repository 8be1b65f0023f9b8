/** Where a route's policy comes from, and what stands inside of its handler. */
import { cancellable, DefaultOnDisconnect, onDisconnect } from "@curfew/request"
import { Owner } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { HttpEdge } from "../src/index.ts"
import { ask, fetched, run, serving, text, wire } from "./support/effectServer.ts"

const found = Effect.succeed(text("found"))

const routesOf = <A, E>(app: Layer.Layer<A, E, HttpRouter.HttpRouter | Owner>) =>
  Effect.runPromise(
    Effect.scoped(
      Effect.map(Effect.provide(HttpEdge.routesOf(app), Owner.layer()), (routes) =>
        routes.map(({ cancellable: can, name, onDisconnect: policy, streams }) => [
          name,
          policy,
          streams,
          can
        ])
      )
    )
  )

describe("L39: the policy of a route", () => {
  test("L39 is the route's by name, its mark, its method's, its edge's, in this order", async () => {
    const app = HttpEdge.edge({
      default: "detach",
      methods: { GET: { grace: "1 second" }, PUT: "shield" },
      routes: { "GET /named": "shield", "GET /limited": { deadline: "1 second" } }
    })(
      Layer.mergeAll(
        HttpRouter.add("GET", "/named", cancellable(found)),
        HttpRouter.add("GET", "/limited", cancellable(found)),
        HttpRouter.add(
          "GET",
          "/marked",
          cancellable(() => found)
        ),
        HttpRouter.add("GET", "/plain", found),
        HttpRouter.add("PUT", "/plain", found),
        HttpRouter.add("DELETE", "/plain", found)
      )
    )
    expect((await routesOf(app)).sort()).toEqual([
      ["DELETE /plain", "detach", "default", false],
      ["GET /limited", "cancel", "cancel", true],
      ["GET /marked", "cancel", "cancel", true],
      ["GET /named", "shield", "shield", false],
      ["GET /plain", { grace: "1 second" }, "default", true],
      ["PUT /plain", "shield", "default", false]
    ])
  })

  test("L39 is that of the innermost edge around it; what that does not say, the outer one does", async () => {
    const inner = HttpEdge.edge({ default: "cancel", streams: "shield" })(
      HttpRouter.add("GET", "/inner", found)
    )
    const outer = HttpEdge.edge({ default: "detach", methods: { GET: "shield", POST: "shield" } })(
      Layer.mergeAll(inner, HttpRouter.add("GET", "/outer", found), HttpRouter.add("POST", "/outer", found))
    )
    expect((await routesOf(outer)).sort()).toEqual([
      ["GET /inner", "cancel", "shield", true],
      ["GET /outer", "shield", "default", false],
      ["POST /outer", "shield", "default", false]
    ])
  })

  test("L39 has the route's whole name, with all prefixes, and is kept by effects in HttpRouter.route", async () => {
    const app = HttpEdge.edge({ routes: { "GET /api/v1/things/:id": "detach" } })(
      Layer.mergeAll(
        HttpRouter.addAll([HttpRouter.route("GET", "/things/:id", found)], { prefix: "/api/v1" }),
        HttpRouter.addAll([HttpRouter.route("GET", "/marked", cancellable(found))]),
        HttpRouter.use((router) =>
          router.prefixed("/api").prefixed("/v2").add("GET", "/", cancellable(found))
        )
      )
    )
    expect((await routesOf(app)).map(([name, policy]) => [name, policy]).sort()).toEqual([
      ["GET /api/v1/things/:id", "detach"],
      ["GET /api/v2", "cancel"],
      ["GET /marked", "cancel"]
    ])
  })

  test("that is none is refused when the edge or the route is made, and so is a time that is none", () => {
    const bad = "later" as never
    expect(() => HttpEdge.edge({ default: bad })).toThrow("The policy of the edge")
    expect(() => HttpEdge.edge({ methods: { GET: bad } })).toThrow("The policy of GET")
    expect(() => HttpEdge.edge({ routes: { "GET /": { deadline: bad } } })).toThrow("The deadline of GET /")
    expect(() => HttpEdge.edge({ clientDeadline: { header: "", max: "1 second" } })).toThrow("The header")
    expect(() => HttpEdge.edge({ clientDeadline: { header: "x", max: bad } })).toThrow("The max")
  })

  test("that interrupts something else than a GET is allowed, and warned about once", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("POST", "/orders", cancellable(found)),
            HttpRouter.add("POST", "/kept", onDisconnect("shield")(found)),
            HttpRouter.add("GET", "/search", cancellable(found))
          )
        )
        for (let i = 0; i < 3; i++)
          expect((yield* fetched(server.port, "/orders", { method: "POST" })).status).toBe(200)
        expect(server.logged).toEqual([
          {
            level: "Warn",
            message:
              "POST /orders is interrupted when its client leaves, and it is no GET: make sure that it may stop halfway."
          }
        ])
      })
    ))
})

describe("a route behind an edge", () => {
  class User extends Context.Service<User, string>()("test/User") {}

  test("has its middleware, its parameters and its view of the URL as without", () =>
    run(
      Effect.gen(function* () {
        const order: Array<string> = []
        const auth = HttpRouter.middleware<{ provides: User }>()((handler) =>
          Effect.gen(function* () {
            order.push("in")
            const response = yield* Effect.provideService(handler, User, "ada")
            order.push("out")
            return response
          })
        ).layer
        const handler = Effect.gen(function* () {
          const { id } = yield* HttpRouter.params
          const request = yield* HttpServerRequest.HttpServerRequest
          return text(`${yield* User} ${id} ${request.url}`)
        })
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.addAll([HttpRouter.route("GET", "/things/:id", handler)], { prefix: "/api" }),
            HttpRouter.add("*", "/files/*", found)
          ).pipe(Layer.provide(auth))
        )
        expect((yield* fetched(server.port, "/api/things/7?a=b")).body).toBe("ada 7 /things/7?a=b")
        expect(order).toEqual(["in", "out"])
        expect((yield* fetched(server.port, "/files/a/b", { method: "PUT" })).status).toBe(200)
        expect((yield* fetched(server.port, "/files")).status).toBe(200)
        expect((yield* fetched(server.port, "/api/things/7", { method: "HEAD" })).status).toBe(200)
        expect((yield* fetched(server.port, "/elsewhere")).status).toBe(404)
        const records = yield* server.recorded(4)
        expect(records.map(({ method, path, route, status }) => [method, path, route, status])).toEqual([
          ["GET", "/api/things/7", "GET /api/things/:id", 200],
          ["PUT", "/files/a/b", "* /files/*", 200],
          ["GET", "/files", "* /files/*", 200],
          ["HEAD", "/api/things/7", "GET /api/things/:id", 200]
        ])
      })
    ))

  test("answers what its handler fails with as without", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(
          Layer.mergeAll(
            HttpRouter.add("GET", "/fails", Effect.fail("broken")),
            HttpRouter.add("GET", "/dies", Effect.die("broken")),
            HttpRouter.add("GET", "/answers", Effect.die(text("teapot", { status: 418 }))),
            HttpRouter.add(
              "GET",
              "/interrupts",
              Effect.interrupt as Effect.Effect<HttpServerResponse.HttpServerResponse>
            )
          )
        )
        const statuses: Array<number> = []
        for (const path of ["/fails", "/dies", "/answers", "/interrupts"])
          statuses.push((yield* fetched(server.port, path)).status)
        expect(statuses).toEqual([500, 500, 418, 500])
        expect(server.logged.map(({ level, message }) => `${level} ${message}`)).toEqual([
          "Error GET /fails was answered 500.",
          "Error GET /dies was answered 500.",
          "Error GET /interrupts was interrupted by somebody else."
        ])
        const records = yield* server.recorded(4)
        expect(records.map(({ outcome, status }) => [status, outcome])).toEqual([
          [500, "failed"],
          [500, "failed"],
          [418, "failed"],
          [500, "failed"]
        ])
      })
    ))

  test("asks DefaultOnDisconnect where nobody says anything", () =>
    run(
      Effect.gen(function* () {
        const asked: Array<string> = []
        const server = yield* serving(HttpRouter.add("GET", "/", found), {
          services: Layer.succeed(DefaultOnDisconnect)(({ kind, method, transport }) => {
            asked.push(`${method} ${kind} ${transport}`)
            return "cancel"
          })
        })
        yield* fetched(server.port, "/")
        expect(asked).toEqual(["GET / request http1"])
      })
    ))

  test("goes on although what the program gave the edge throws", () =>
    run(
      Effect.gen(function* () {
        const server = yield* serving(HttpRouter.add("GET", "/", found), {
          requestId: () => {
            throw new Error("no name")
          }
        })
        expect((yield* fetched(server.port, "/")).body).toBe("found")
        expect(yield* server.recorded(1)).toMatchObject([{ id: "http-1", status: 200 }])
        expect(server.logged).toEqual([
          { level: "Error", message: "requestId threw. Catch what it may throw." }
        ])
      })
    ))

  test("logs what a response stream fails with, once, and breaks it off", () =>
    run(
      Effect.gen(function* () {
        const broken = Stream.concat(Stream.encodeText(Stream.make("part")), Stream.fail("broken"))
        const server = yield* serving(
          HttpRouter.add("GET", "/", Effect.succeed(HttpServerResponse.stream(broken)))
        )
        const client = yield* wire(server.port, ask("/"))
        const got = yield* client.closed
        expect(got).toContain("part")
        expect(got.endsWith("0\r\n\r\n")).toBe(false)
        expect(yield* server.recorded(1)).toMatchObject([
          { outcome: "failed", sent: { parts: 1, whole: false } }
        ])
        expect(server.logged).toEqual([{ level: "Error", message: "The response stream of GET / failed." }])
      })
    ))
})
