/** A client that leaves at every step of a handler behind an edge, through a real socket. */
import { createServer } from "node:http"
import { type OnDisconnect, onDisconnect } from "@curfew/request"
import { Owner, TaskScope } from "@curfew/scope"
import { Probe } from "@curfew/testing"
import { expectSwept } from "@curfew/testing/expectSwept"
import { type Serve, sweepHttp } from "@curfew/testing/http"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { EdgeServer } from "../src/EdgeServer.ts"
import { type EdgeRecord, HttpEdge } from "../src/index.ts"

const policies: ReadonlyArray<OnDisconnect> = ["cancel", "shield", { grace: "1 second" }, "detach"]

/** What the records say, of all servers of a sweep. */
const told = () => {
  const all: Array<EdgeRecord> = []
  return {
    all,
    /** Each request has one of two ends: 499, or the right answer to the last byte. */
    check: (): void => {
      for (const record of all) {
        const { outcome, sent, status } = record
        const right = status === 200 && outcome === "answered" && sent.whole
        const left = status === 499 && outcome === "gone" && !sent.whole
        if (right === left) throw new Error(`${status} ${outcome} ${JSON.stringify(sent)}`)
      }
      expect(all.filter(({ status }) => status === 499).length).toBeGreaterThan(0)
      expect(all.filter(({ status }) => status === 200).length).toBeGreaterThan(0)
    }
  }
}

type Response = HttpServerResponse.HttpServerResponse

const served =
  (
    policy: OnDisconnect,
    records: Array<EdgeRecord>,
    make: (step: Effect.Effect<void>) => Effect.Effect<Response>
  ): Serve =>
  (watch) =>
    Effect.gen(function* () {
      const rows = yield* Probe.resource("row")
      const owner = yield* TaskScope.make({ name: "server" })
      const server = createServer()
      const step = Effect.scoped(Effect.andThen(rows.scoped, Effect.sleep("1 second")))
      const handler = onDisconnect(policy)(watch(make(step)))
      const app = HttpEdge.edge({
        accessLog: false,
        onRecord: (record) => Effect.sync(() => records.push(record))
      })(HttpRouter.add("GET", "/", handler))
      const live = HttpRouter.serve(app, { disableLogger: true, disableListenLog: true }).pipe(
        Layer.provide(EdgeServer.layer({ port: 0, server: () => server })),
        Layer.provide(Layer.succeed(Owner)(owner)),
        Layer.provide(Logger.layer([]))
      )
      yield* Effect.orDie(Layer.build(live as unknown as Layer.Layer<never>))
      return server
    })

describe("L39: a handler that its client leaves at whichever step", { timeout: 240_000 }, () => {
  test.each(policies)("L39 under %j has one end, 499 or its answer, and leaves nothing", async (policy) => {
    const { all, check } = told()
    const serve = served(policy, all, (step) =>
      Effect.as(Effect.andThen(step, step), HttpServerResponse.text("answer"))
    )
    const name = `GET / under ${JSON.stringify(policy)}`
    const report = await Effect.runPromise(
      sweepHttp(serve, { name, modes: ["reset", "response"], states: ["kept"], settle: "1 minute" })
    )
    expect(report.findings.map(({ message }) => message)).toEqual([])
    expect(report).toMatchObject({ ok: true, complete: true })
    expect(report.steps).toBeGreaterThan(20)
    check()
  })

  test("L39 a response stream has one end, cut off or whole, and leaves nothing", async () => {
    const { all, check } = told()
    const serve = served("cancel", all, (step) =>
      Effect.succeed(
        HttpServerResponse.stream(
          Stream.encodeText(Stream.tap(Stream.make("a", "b", "c"), () => step)) as Stream.Stream<Uint8Array>
        )
      )
    )
    const report = await Effect.runPromise(
      sweepHttp(serve, {
        name: "a stream",
        modes: ["reset", "response"],
        states: ["kept"],
        settle: "1 minute"
      })
    )
    expect(report.findings.map(({ message }) => message)).toEqual([])
    expect(report).toMatchObject({ ok: true, complete: true })
    check()
  })

  test("covers the routes of an app that are marked, by name", async () => {
    const found = Effect.succeed(HttpServerResponse.text("found"))
    const app = HttpEdge.edge({ routes: { [`GET / under "cancel"`]: "cancel" } })(
      HttpRouter.add("POST", "/orders", found)
    )
    const routes = await Effect.runPromise(
      Effect.scoped(Effect.provide(HttpEdge.routesOf(app), Owner.layer()))
    )
    expectSwept(routes)
    const marked = HttpEdge.edge({ default: "cancel" })(HttpRouter.add("GET", "/unswept", found))
    const more = await Effect.runPromise(
      Effect.scoped(Effect.provide(HttpEdge.routesOf(marked), Owner.layer()))
    )
    expect(() => expectSwept(more)).toThrow("GET /unswept")
  })
})
