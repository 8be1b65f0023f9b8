import { onDisconnect } from "@curfew/request"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { ServerMetrics } from "../src/index.ts"
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

describe.each(transports)("over %s", (transport) => {
  describe("one call more than may run at a time is refused before anything of it runs", () => {
    test.each([
      ["on the server", { calls: 1 }, "concurrent calls"],
      ["of the method", { perMethod: 1 }, "concurrent calls of the method"],
      ["of the peer", { perPeer: () => 1 }, "concurrent calls of the peer"]
    ] as const)("%s", (_name, limits, limit) =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const { idle, metric, stub } = yield* serving(
            transport,
            inAllKinds(() => Effect.andThen(book.noting("started"), Effect.never)),
            { callsOptions: { limits } }
          )
          for (const kind of ["ServerStream", "Bidi"] as const) {
            const first = call(stub, kind)
            yield* book.awaits("started")
            const second = yield* call(stub, kind).answer
            expect([second.code, second.details]).toEqual([Code.RESOURCE_EXHAUSTED, `Too many ${limit}`])
            first.call.cancel()
            yield* idle
            expect(book.seen.splice(0)).toEqual(["started"])
          }
          const attributes = { method: "/curfew.test.Words/Bidi", transport, limit }
          expect(metric(ServerMetrics.refused, attributes)).toBe(1)
        })
      )
    )

    test("a client that leaves makes no room while its handler still runs", () =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const { calls, idle, stub } = yield* serving(
            transport,
            {
              ...echo,
              Unary: onDisconnect("detach")((request) =>
                request === "slow"
                  ? Effect.as(Effect.andThen(book.noting("started"), book.awaits("go")), "late")
                  : Effect.succeed(request)
              )
            },
            { callsOptions: { limits: { calls: 1 } } }
          )
          const first = call(stub, "Unary", { request: "slow" })
          yield* book.awaits("started")
          first.call.cancel()
          yield* first.answer
          expect((yield* call(stub, "Unary").answer).code).toBe(Code.RESOURCE_EXHAUSTED)
          expect(yield* calls.inFlight).toBe(1)
          book.note("go")
          yield* idle
          expect((yield* call(stub, "Unary").answer).code).toBe(Code.OK)
        })
      ))
  })

  test.each([
    ["requests", { requests: 2 }],
    ["requestBytes", { requestBytes: 5 }]
  ] as const)("L48 too many of %s end the call", (limit, limits) =>
    run(
      Effect.gen(function* () {
        const { idle, stub } = yield* serving(transport, echo, { limits })
        for (const kind of ["ClientStream", "Bidi"] as const) {
          const started = call(stub, kind, { request: "aa" })
          for (const more of ["bb", "cc", "dd"]) started.call.write?.(more)
          started.call.end?.()
          const answer = yield* started.answer
          expect([kind, answer.code, answer.details]).toEqual([
            kind,
            Code.RESOURCE_EXHAUSTED,
            `The limit of ${limit} was passed`
          ])
        }
        yield* idle
      })
    )
  )

  test.each([
    ["responses", { responses: 3 }, 3],
    ["responseBytes", { responseBytes: 20 }, 2]
  ] as const)("L48 too many of %s end the call, and interrupt its handler", (limit, limits, sent) =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { idle, stub } = yield* serving(
          transport,
          {
            ...echo,
            ServerStream: () =>
              Stream.onExit(Stream.forever(Stream.make("0123456789")), (exit) => book.noting(exit._tag)),
            Unary: () => Effect.succeed("x".repeat(21))
          },
          { limits }
        )
        const answer = yield* call(stub, "ServerStream").answer
        expect([answer.code, answer.details]).toEqual([
          Code.RESOURCE_EXHAUSTED,
          `The limit of ${limit} was passed`
        ])
        expect(answer.messages).toHaveLength(sent)
        yield* idle
        expect(book.seen).toEqual(["Failure"])
        if (limit === "responseBytes") {
          expect((yield* call(stub, "Unary").answer).code).toBe(Code.RESOURCE_EXHAUSTED)
        }
      })
    )
  )

  test.each(kinds)(
    "L39 %s: a limit of time interrupts every handler, whatever the client's deadline",
    (kind) =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const { idle, stub } = yield* serving(
            transport,
            inAllKinds(() => Effect.onInterrupt(Effect.never, () => book.noting("interrupted"))),
            { limits: { time: "30 millis" } }
          )
          const answer = yield* call(stub, kind, { call: { deadline: Date.now() + 60_000 } }).answer
          expect([answer.code, answer.details]).toEqual([
            Code.RESOURCE_EXHAUSTED,
            "The limit of time was passed"
          ])
          yield* idle
          expect(book.seen).toEqual(["interrupted"])
        })
      )
  )

  test("a budget of work stops a search that goes on for ever, with the status of choice", () =>
    run(
      Effect.gen(function* () {
        let tried = 0
        const { calls, idle, stub } = yield* serving(
          transport,
          inAllKinds((given) =>
            Effect.forever(
              Effect.andThen(
                given.budget.spend(100),
                Effect.sync(() => {
                  tried += 100
                })
              )
            )
          ),
          {
            methodLimits: { Unary: { work: 1_000 }, Bidi: { work: 500 } },
            limitStatus: (limit) => (limit === "work" ? Code.OUT_OF_RANGE : Code.RESOURCE_EXHAUSTED)
          }
        )
        const found = yield* call(stub, "Unary", { metadata: metadata() }).answer
        expect([found.code, found.details, tried]).toEqual([
          Code.OUT_OF_RANGE,
          "The limit of work was passed",
          1_000
        ])
        tried = 0
        expect((yield* call(stub, "Bidi").answer).code).toBe(Code.OUT_OF_RANGE)
        expect(tried).toBe(500)
        yield* idle
        expect(yield* calls.inFlight).toBe(0)
      })
    ))
})
