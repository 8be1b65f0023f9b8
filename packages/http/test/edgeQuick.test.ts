/**
 * Requests of Effect's server that nobody is given the record of: no finalizer, no listeners where they end at once. Each
 * way to leave that, at each point of a request, and that it is counted all the same.
 */
import { currentReason } from "@curfew/reason"
import {
  awaitPeerGone,
  cancellable,
  completed,
  isActive,
  onDisconnect,
  RequestContext
} from "@curfew/request"
import { inspect } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { EdgeMetrics } from "../src/index.ts"
import {
  ask,
  counted,
  fetched,
  run,
  type ServingOptions,
  serving,
  text,
  wire
} from "./support/effectServer.ts"

type Response = HttpServerResponse.HttpServerResponse
type Handler = Effect.Effect<Response, unknown, HttpServerRequest.HttpServerRequest>

const never = Effect.never as Effect.Effect<Response>
const tag = Effect.map(
  currentReason,
  Option.match({ onNone: () => "none", onSome: ({ _tag }) => _tag as string })
)

let routes = 0

/** One handler on a route of its own, whose series are its alone. */
const alone = (
  make: (route: string) => Handler,
  options: ServingOptions & { readonly method?: "GET" | "POST" } = {},
  beside: Layer.Layer<never> = Layer.empty
) => {
  const { method = "GET", ...rest } = options
  routes++
  const path = `/quick-${routes}` as const
  const route = `${method} ${path}`
  const attributes = { route, transport: "http1" }
  return Effect.map(
    serving(Layer.merge(HttpRouter.add(method, path, make(route) as never), beside), {
      ...rest,
      unrecorded: true
    }),
    (server) => ({
      ...server,
      route,
      path,
      started: counted(EdgeMetrics.started, attributes),
      inFlight: Effect.map(
        Metric.value(Metric.withAttributes(EdgeMetrics.inFlight, attributes)),
        ({ value }) => value
      ),
      /** Waits until one has ended so. */
      ended: (outcome: string, status: number) =>
        Effect.gen(function* () {
          const one = counted(EdgeMetrics.ended, { ...attributes, outcome, status: String(status) })
          while ((yield* one) === 0) yield* Effect.yieldNow
          expect(yield* one).toBe(1)
          const { value } = yield* Metric.value(Metric.withAttributes(EdgeMetrics.inFlight, attributes))
          expect(value).toBe(0)
          const { roots } = yield* inspect
          const left = roots.find(({ name }) => name === "server")
          expect(left?.children ?? []).toEqual([])
        })
    })
  )
}

const staged = { drain: "1 minute" } as const
const servers: ReadonlyArray<readonly [string, ServingOptions]> = [
  ["Effect's own server", {}],
  ["a server that stops in stages", { staged }]
]

describe.each(servers)("a request that nobody is given the record of, on %s", (_, kind) => {
  test("L37 is counted when its answer is out, at once or later, and leaves nothing", () =>
    run(
      Effect.gen(function* () {
        const go = yield* Deferred.make<void>()
        for (const [handler, outlives] of [
          [Effect.succeed(text("answer")), false],
          [Effect.as(Effect.yieldNow, text("answer")), false],
          [Effect.as(Deferred.await(go), text("answer")), true]
        ] as const) {
          const server = yield* alone(() => handler, kind)
          const asked = yield* Effect.forkChild(fetched(server.port, server.path))
          if (outlives) {
            // It is shown as under way before it ends.
            while ((yield* server.inFlight) === 0) yield* Effect.yieldNow
            yield* Deferred.succeed(go, undefined)
          }
          expect(yield* Fiber.join(asked)).toMatchObject({ status: 200, body: "answer" })
          yield* server.ended("answered", 200)
          expect(yield* server.started).toBe(1)
        }
      })
    ))

  test("L8: one that its owner does not take leaves no limit behind", () =>
    run(
      Effect.gen(function* () {
        const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length
        const server = yield* alone(() => Effect.as(Effect.yieldNow, text("answer")), {
          ...kind,
          deadline: "1 hour"
        })
        const quiet = timers()
        yield* fetched(server.port, server.path)
        yield* server.ended("answered", 200)
        while (timers() > quiet) yield* Effect.yieldNow
        yield* server.owner.close
        yield* fetched(server.port, server.path)
        while ((yield* server.started) < 2) yield* Effect.yieldNow
        // One that stayed would be armed for an hour.
        while (timers() > quiet) yield* Effect.yieldNow
      })
    ))

  test("tells what fails in the handler's scope once the answer is out", () =>
    run(
      Effect.gen(function* () {
        const late = new Error("late")
        const handler = Effect.as(
          Effect.addFinalizer(() => Effect.die(late)),
          text("answer")
        ) as unknown as Handler
        const server = yield* alone(() => handler, kind)
        expect(yield* fetched(server.port, server.path)).toMatchObject({ status: 200, body: "answer" })
        while (server.unhandled.length === 0) yield* Effect.yieldNow
        expect(server.unhandled).toMatchObject([{ origin: "cleanup", cause: Cause.die(late) }])
      })
    ))

  test("reads its body, in one part or in many", () =>
    run(
      Effect.gen(function* () {
        const server = yield* alone(
          () =>
            Effect.map(
              Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => request.text),
              (body) => text(String(body.length))
            ),
          { ...kind, method: "POST" }
        )
        const body = "x".repeat(200_000)
        expect(yield* fetched(server.port, server.path, { method: "POST", body })).toMatchObject({
          body: "200000"
        })
        yield* server.ended("answered", 200)
      })
    ))

  test.each(["cancel", "shield", "detach", { grace: "1 milli" }] as const)(
    "L39 its client leaves under %j: the handler has what the policy says, and it is 499",
    (policy) =>
      run(
        Effect.gen(function* () {
          const started = yield* Deferred.make<void>()
          const on = yield* Deferred.make<void>()
          const log: Array<string> = []
          const waits = Effect.gen(function* () {
            yield* Deferred.succeed(started, undefined)
            const reason = yield* awaitPeerGone
            log.push(`${reason._tag}, ${yield* isActive}`)
            yield* Deferred.await(on)
            log.push("went on")
            return text("late")
          })
          const server = yield* alone(
            () =>
              onDisconnect(policy)(Effect.onInterrupt(waits, () => Effect.map(tag, (it) => log.push(it)))),
            kind
          )
          const client = yield* wire(server.port, ask(server.path))
          yield* Deferred.await(started)
          client.socket.resetAndDestroy()
          const interrupted = policy === "cancel" || typeof policy === "object"
          // What the policy lets run, runs until it is told to go on; what it interrupts, waits for that in vain.
          while (policy !== "cancel" && log.length === 0) yield* Effect.yieldNow
          if (!interrupted) yield* Deferred.succeed(on, undefined)
          yield* server.ended("gone", 499)
          while (log.length < (policy === "cancel" ? 1 : 2)) yield* Effect.yieldNow
          expect(log.at(-1)).toBe(interrupted ? "ClientGone" : "went on")
        })
      )
  )

  test("L48 its time is over, in its first turn or later: 504", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const noted = Effect.onInterrupt(never, () => Effect.map(tag, (it) => log.push(it)))
        for (const handler of [cancellable(noted), noted, onDisconnect("detach")(noted)]) {
          const server = yield* alone(() => handler, { ...kind, deadline: "10 millis" })
          const { body, status } = yield* fetched(server.port, server.path)
          expect([status, body.trim()]).toEqual([504, `the deadline of ${server.route} has passed`])
          yield* server.ended("cancelled", 504)
        }
        while (log.length < 3) yield* Effect.yieldNow
        expect(log).toEqual(["Deadline", "Deadline", "Deadline"])
      })
    ))

  test("L48 has no time at all, by its route or by its client: 504, and no handler", () =>
    run(
      Effect.gen(function* () {
        let calls = 0
        const handler = Effect.sync(() => {
          calls++
          return text("answer")
        })
        const none = yield* alone(() => handler, { ...kind, deadline: 0 })
        expect((yield* fetched(none.port, none.path)).status).toBe(504)
        yield* none.ended("cancelled", 504)
        const clientDeadline = { header: "x-time", max: "1 minute" } as const
        const asked = yield* alone(() => handler, { ...kind, clientDeadline })
        const client = yield* wire(asked.port, ask(asked.path, "GET", "x-time: 0\r\n"))
        yield* client.until("HTTP/1.1 504")
        yield* asked.ended("cancelled", 504)
        expect(calls).toBe(0)
      })
    ))

  test("is counted where its edge was made, whatever its middleware says of other metrics", () =>
    run(
      Effect.gen(function* () {
        const tenant = HttpRouter.middleware(
          Effect.succeed((app: Effect.Effect<Response, never, never>) =>
            Effect.provideService(app, Metric.CurrentMetricAttributes, { tenant: "one" })
          ) as never,
          { global: true }
        )
        for (const outlives of [false, true]) {
          const go = yield* Deferred.make<void>()
          const handler = Effect.as(outlives ? Deferred.await(go) : Effect.void, text("answer"))
          const server = yield* alone(() => handler, kind, tenant as never)
          const asked = yield* Effect.forkChild(fetched(server.port, server.path))
          if (outlives) while ((yield* server.inFlight) === 0) yield* Effect.yieldNow
          yield* Deferred.succeed(go, undefined)
          expect((yield* Fiber.join(asked)).status).toBe(200)
          yield* server.ended("answered", 200)
          expect(yield* server.started).toBe(1)
        }
      })
    ))

  test("L48 fails or dies: 500, and it is logged once", () =>
    run(
      Effect.gen(function* () {
        for (const handler of [
          Effect.fail(new Error("broken")),
          Effect.andThen(Effect.yieldNow, Effect.die(new Error("broken"))),
          Effect.sync((): Response => {
            throw new Error("broken")
          })
        ]) {
          const server = yield* alone(() => handler, kind)
          expect((yield* fetched(server.port, server.path)).status).toBe(500)
          yield* server.ended("failed", 500)
          expect(server.logged.filter(({ level }) => level === "Error").length).toBe(1)
        }
      })
    ))

  test("L48 and is over the limit of its body, as it is counted: 413", () =>
    run(
      Effect.gen(function* () {
        const server = yield* alone(() => never, { ...kind, method: "POST", bodyBytes: 10 })
        const client = yield* wire(server.port, ask(server.path, "POST", "transfer-encoding: chunked\r\n"))
        client.socket.write("14\r\nxxxxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n")
        yield* client.until("HTTP/1.1 413")
        yield* server.ended("cancelled", 413)
      })
    ))

  test("what its handler acquires is released when the answer is out", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const server = yield* alone(
          (route) =>
            Effect.gen(function* () {
              const request = yield* HttpServerRequest.HttpServerRequest
              const { response } = request as unknown as { response: { writableEnded: boolean } }
              yield* Effect.addFinalizer(() =>
                Effect.sync(() => log.push(`${route} ${response.writableEnded}`))
              )
              return text("answer")
            }) as never,
          kind
        )
        expect((yield* fetched(server.port, server.path)).body).toBe("answer")
        yield* server.ended("answered", 200)
        expect(log).toEqual([`${server.route} true`])
      })
    ))

  test("L38 work that outlives its answer holds it: it is in flight until that has ended", () =>
    run(
      Effect.gen(function* () {
        const go = yield* Deferred.make<void>()
        const seen = yield* Deferred.make<string>()
        const server = yield* alone(
          () =>
            Effect.gen(function* () {
              const request = Option.getOrThrow(yield* RequestContext.current)
              const work = Effect.scoped(
                Effect.gen(function* () {
                  yield* request.lease
                  yield* completed
                  yield* Deferred.succeed(seen, String(yield* isActive))
                  yield* Deferred.await(go)
                })
              )
              yield* Effect.forkDetach(Effect.orDie(work), { startImmediately: true })
              return text("answer")
            }) as never,
          kind
        )
        expect((yield* fetched(server.port, server.path)).body).toBe("answer")
        expect(yield* Deferred.await(seen)).toBe("false")
        const attributes = { route: server.route, transport: "http1" }
        const inFlight = Metric.value(Metric.withAttributes(EdgeMetrics.inFlight, attributes))
        expect((yield* inFlight).value).toBe(1)
        yield* Deferred.succeed(go, undefined)
        yield* server.ended("answered", 200)
        expect(yield* counted(EdgeMetrics.outlived, { route: server.route })).toBe(1)
      })
    ))

  test("L39 its stream ends with its client, at each point, and is 499; whole, it is answered", () =>
    run(
      Effect.gen(function* () {
        const log: Array<string> = []
        const parts = Stream.ensuring(
          Stream.concat(Stream.make("first "), Stream.fromEffect(Effect.as(never, "never"))),
          Effect.sync(() => log.push("finalized"))
        )
        const server = yield* alone(
          () => Effect.succeed(HttpServerResponse.stream(Stream.encodeText(parts))),
          kind
        )
        const client = yield* wire(server.port, ask(server.path))
        yield* client.until("first ")
        client.socket.resetAndDestroy()
        yield* server.ended("gone", 499)
        expect(log).toEqual(["finalized"])
        const whole = yield* alone(
          () =>
            Effect.as(Effect.yieldNow, HttpServerResponse.stream(Stream.encodeText(Stream.make("a", "b")))),
          kind
        )
        expect((yield* fetched(whole.port, whole.path)).body).toBe("ab")
        yield* whole.ended("answered", 200)
      })
    ))

  test("L43 the end of its server cancels it with Shutdown, whatever its policy", () =>
    run(
      Effect.gen(function* () {
        for (const policy of ["cancel", "shield"] as const) {
          const log: Array<string> = []
          const started = yield* Deferred.make<void>()
          const handler = Effect.andThen(
            Deferred.succeed(started, undefined),
            Effect.onInterrupt(never, () => Effect.map(tag, (it) => log.push(it)))
          )
          const server = yield* alone(() => onDisconnect(policy)(handler), {
            ...kind,
            drain: "1 milli",
            ...(kind.staged && { staged: { drain: "1 milli" } })
          })
          yield* wire(server.port, ask(server.path))
          yield* Deferred.await(started)
          yield* server.stop
          expect(log).toEqual(["Shutdown"])
          expect(yield* server.started).toBe(1)
        }
      })
    ))

  test("L46 runs attached to its request where the owner takes nothing", () =>
    run(
      Effect.gen(function* () {
        const server = yield* alone(() => Effect.as(Effect.yieldNow, text("answer")), kind)
        yield* server.owner.close
        expect((yield* fetched(server.port, server.path)).body).toBe("answer")
        yield* server.ended("answered", 200)
      })
    ))

  test("pipelined requests end in their order, each with its answer", () =>
    run(
      Effect.gen(function* () {
        const first = yield* Deferred.make<void>()
        let calls = 0
        const server = yield* alone(
          () =>
            Effect.suspend(() => {
              calls++
              const call = calls
              return call === 1
                ? Effect.as(Deferred.await(first), text("one"))
                : Effect.sync(() => {
                    Deferred.doneUnsafe(first, Effect.void)
                    return text("two")
                  })
            }),
          kind
        )
        const client = yield* wire(server.port, ask(server.path) + ask(server.path))
        yield* client.until("two")
        expect(client.received().indexOf("one")).toBeLessThan(client.received().indexOf("two"))
        const answered = counted(EdgeMetrics.ended, {
          route: server.route,
          transport: "http1",
          outcome: "answered",
          status: "200"
        })
        while ((yield* answered) < 2) yield* Effect.yieldNow
      })
    ))
})

test("L43 a server that stops in stages does not wait for requests that were over in their turn", () =>
  run(
    Effect.gen(function* () {
      const server = yield* alone(() => Effect.succeed(text("answer")), { staged })
      for (let i = 0; i < 3; i++) yield* fetched(server.port, server.path)
      yield* server.stop
      expect(server.logged.map(({ message }) => message)).toContainEqual(
        expect.stringContaining("has stopped: 0 drained, 0 cancelled, 0 abandoned")
      )
    })
  ))
