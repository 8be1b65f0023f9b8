import { cancellable, onDisconnect, RequestContext } from "@curfew/request"
import type { RequestRecord } from "@curfew/request/RequestContext"
import { CleanupBudget } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { GrpcError, ServerCall, ServerCalls, ServerMetrics } from "../src/index.ts"
import {
  Code,
  call,
  echo,
  inAllKinds,
  kinds,
  metadata,
  notebook,
  run,
  serving,
  transports
} from "./support/serving.ts"

const path = (kind: string): string => `/curfew.test.Words/${kind}`

describe.each(transports)("over %s", (transport) => {
  test.each(kinds)("%s: a span of the server's kind, below the client's, with the status", (kind) =>
    run(
      Effect.gen(function* () {
        const { idle, spans, stub } = yield* serving(
          transport,
          inAllKinds(() =>
            Effect.withSpan(Effect.fail(new GrpcError({ code: Code.INTERNAL, details: "x" })), "inside")
          )
        )
        const traceId = "0af7651916cd43dd8448eb211c80319c"
        const traceparent = `00-${traceId}-b7ad6b7169203331-01`
        const started = call(stub, kind, { metadata: metadata({ traceparent }) })
        started.call.end?.()
        yield* started.answer
        yield* idle
        const [span, inside] = spans
        expect([span?.name, span?.kind, span?.traceId]).toEqual([
          `curfew.test.Words/${kind}`,
          "server",
          traceId
        ])
        expect(Option.getOrUndefined(span?.parent ?? Option.none())?.spanId).toBe("b7ad6b7169203331")
        expect(inside?.name).toBe("inside")
        expect(Option.getOrUndefined(inside?.parent ?? Option.none())?.spanId).toBe(span?.spanId)
        expect(Object.fromEntries(span?.attributes ?? [])).toMatchObject({
          "rpc.system": "grpc",
          "rpc.service": "curfew.test.Words",
          "rpc.method": kind,
          "rpc.grpc.status_code": Code.INTERNAL,
          "curfew.transport": transport
        })
        expect(span?.status).toMatchObject({ _tag: "Ended", exit: { _tag: "Failure" } })
      })
    )
  )

  test("a traceparent that is none is a span of its own; a status that is the client's fault is no error", () =>
    run(
      Effect.gen(function* () {
        const { idle, spans, stub } = yield* serving(
          transport,
          inAllKinds(() => Effect.fail(new GrpcError({ code: Code.NOT_FOUND, details: "x" })))
        )
        yield* call(stub, "Unary", { metadata: metadata({ traceparent: "nonsense" }) }).answer
        yield* idle
        expect(spans.map((span) => Option.isNone(span.parent))).toEqual([true])
        expect(spans[0]?.status).toMatchObject({ _tag: "Ended", exit: { _tag: "Success" } })
      })
    ))

  test.each(kinds)("%s: started is completed or cancelled, and nothing is in flight at the end", (kind) =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { idle, metric, stub } = yield* serving(
          transport,
          inAllKinds(
            (given) =>
              given.metadata.get("wait").length === 0
                ? Effect.succeed("ok")
                : Effect.andThen(book.noting("started"), Effect.never),
            cancellable
          )
        )
        const answered = call(stub, kind)
        answered.call.end?.()
        yield* answered.answer
        const left = call(stub, kind, { metadata: metadata({ wait: "yes" }) })
        yield* book.awaits("started")
        const attributes = { method: path(kind), transport }
        left.call.cancel()
        yield* idle
        expect([
          metric(ServerMetrics.started, attributes),
          metric(ServerMetrics.completed, { ...attributes, code: "0" }),
          metric(ServerMetrics.cancelled, { ...attributes, reason: "ClientGone" }),
          metric(ServerMetrics.abandoned, attributes)
        ]).toEqual([2, 1, 1, 0])
      })
    )
  )

  test("clean-up that overruns its budget is counted as abandoned", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { metric, stub } = yield* serving(
          transport,
          {
            ...echo,
            Unary: cancellable(() =>
              Effect.onInterrupt(Effect.andThen(book.noting("started"), Effect.never), () =>
                book.awaits("go")
              )
            )
          },
          { provide: Context.make(CleanupBudget, Duration.millis(20)) }
        )
        const left = call(stub, "Unary")
        yield* book.awaits("started")
        left.call.cancel()
        const attributes = { method: path("Unary"), transport }
        yield* Effect.repeat(Effect.yieldNow, {
          until: () => metric(ServerMetrics.abandoned, attributes) === 1
        })
        book.note("go")
      })
    ))

  test("cancellations come as a stream and to an observer, with method, reason and phase", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const observed: Array<ServerCalls.CallCancelled> = []
        const calls = yield* ServerCalls.make({ onCancelled: (event) => observed.push(event) })
        const { idle, stub } = yield* serving(
          transport,
          {
            ...inAllKinds((given) =>
              given.kind === "bidi" || given.kind === "serverStream"
                ? Effect.andThen(
                    given.sendHeaders({ a: "b" }),
                    Effect.andThen(book.noting("started"), Effect.never)
                  )
                : Effect.andThen(book.noting("started"), Effect.never)
            ),
            ClientStream: onDisconnect("detach")(() =>
              Effect.andThen(book.noting("started"), book.awaits("go") as never)
            )
          },
          { calls }
        )
        const streamed = yield* Effect.forkChild(Stream.runCollect(Stream.take(calls.cancellations, 2)), {
          startImmediately: true
        })
        for (const kind of ["ClientStream", "Bidi"] as const) {
          const left = call(stub, kind)
          yield* book.awaits("started", kind === "Bidi" ? 2 : 1)
          left.call.cancel()
          yield* Effect.repeat(Effect.yieldNow, {
            until: () => observed.length === (kind === "Bidi" ? 2 : 1)
          })
        }
        book.note("go")
        yield* idle
        const events = yield* Fiber.join(streamed)
        expect(events).toEqual(observed)
        expect(events.map(({ method, phase, reason }) => [method, phase, reason._tag])).toEqual([
          [path("ClientStream"), "running", "ClientGone"],
          [path("Bidi"), "responding", "ClientGone"]
        ])
        expect(new Set(events.map(({ id }) => id)).size).toBe(2)
      })
    ))

  test("L37 each call is a request, whose record comes at the end of its last user", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const records: Array<RequestRecord> = []
        const { idle, stub } = yield* serving(
          transport,
          {
            ...echo,
            Unary: onDisconnect("detach")(() =>
              Effect.gen(function* () {
                const request = yield* RequestContext.current
                const current = yield* ServerCall.current
                const same = Option.getOrThrow(request).id === Option.getOrThrow(current).id
                yield* book.noting(`started ${same}`)
                yield* book.awaits("go")
                return "late"
              })
            )
          },
          { onRequestEnd: (record) => Effect.sync(() => records.push(record)) }
        )
        const left = call(stub, "Unary")
        yield* book.awaits("started true")
        left.call.cancel()
        yield* left.answer
        yield* Effect.repeat(Effect.yieldNow, { times: 50 })
        expect(records).toEqual([])
        book.note("go")
        yield* idle
        expect(records.map(({ name, outlived }) => [name, outlived])).toEqual([
          [path("Unary"), [path("Unary")]]
        ])
        expect(Option.isNone(yield* ServerCall.current)).toBe(true)
      })
    ))
})

test("a reader that is too slow loses events, and they are counted", () =>
  run(
    Effect.gen(function* () {
      const book = notebook()
      const { calls, idle, metric, stub } = yield* serving(
        "grpc",
        inAllKinds(() => Effect.andThen(book.noting("started"), Effect.never)),
        { callsOptions: { eventBuffer: 1 } }
      )
      const slow = yield* Effect.forkChild(
        Stream.runForEach(calls.cancellations, () => book.awaits("never")),
        { startImmediately: true }
      )
      for (let i = 1; i <= 4; i++) {
        const left = call(stub, "Bidi")
        yield* book.awaits("started", i)
        left.call.cancel()
        yield* idle
      }
      expect(metric(ServerMetrics.eventsLost)).toBeGreaterThan(0)
      yield* Fiber.interrupt(slow)
    })
  ))
