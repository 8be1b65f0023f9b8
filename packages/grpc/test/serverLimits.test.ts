import { type CancelReason, describe as describeReason } from "@curfew/reason"
import { onDisconnect } from "@curfew/request"
import { Instant, Owner } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { GrpcServer, Server, ServerCalls, ServerMetrics } from "../src/index.ts"
import {
  type Call,
  Code,
  call,
  definition,
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
            expect([second.code, second.details]).toEqual([
              Code.RESOURCE_EXHAUSTED,
              `Too many ${limit}: 1 may run at a time`
            ])
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
    ["requests", { requests: 2 }, "The client sent more than 2 requests"],
    ["requestBytes", { requestBytes: 5 }, "The client sent more than 5 bytes of requests"]
  ] as const)("L48 too many of %s end the call", (_limit, limits, details) =>
    run(
      Effect.gen(function* () {
        const { idle, stub } = yield* serving(transport, echo, { limits })
        for (const kind of ["ClientStream", "Bidi"] as const) {
          const started = call(stub, kind, { request: "aa" })
          for (const more of ["bb", "cc", "dd"]) started.call.write?.(more)
          started.call.end?.()
          const answer = yield* started.answer
          expect([kind, answer.code, answer.details]).toEqual([kind, Code.RESOURCE_EXHAUSTED, details])
        }
        yield* idle
      })
    )
  )

  test.each([
    ["responses", { responses: 3 }, 3, "The handler gave more than 3 responses"],
    ["responseBytes", { responseBytes: 20 }, 2, "The handler gave more than 20 bytes of responses"]
  ] as const)("L48 too many of %s end the call, and interrupt its handler", (limit, limits, sent, details) =>
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
        expect([answer.code, answer.details]).toEqual([Code.RESOURCE_EXHAUSTED, details])
        expect(answer.messages).toHaveLength(sent)
        yield* idle
        expect(book.seen).toEqual(["Failure"])
        if (limit === "responseBytes") {
          const single = yield* call(stub, "Unary").answer
          expect([single.code, single.details]).toEqual([Code.RESOURCE_EXHAUSTED, details])
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
            "The call took longer than 30ms"
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
        const told: Array<CancelReason> = []
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
            callsOptions: { onCancelled: ({ reason }) => told.push(reason) },
            methodLimits: { Unary: { work: 1_000 }, Bidi: { work: 500 } },
            limitStatus: (limit) => (limit === "work" ? Code.OUT_OF_RANGE : Code.RESOURCE_EXHAUSTED)
          }
        )
        const found = yield* call(stub, "Unary", { metadata: metadata() }).answer
        expect([found.code, found.details, tried]).toEqual([
          Code.OUT_OF_RANGE,
          "The call spent its 1000 units of work",
          1_000
        ])
        tried = 0
        expect((yield* call(stub, "Bidi").answer).code).toBe(Code.OUT_OF_RANGE)
        expect(tried).toBe(500)
        yield* idle
        expect(yield* calls.inFlight).toBe(0)
        expect(told.map((reason) => [reason, describeReason(reason)])).toMatchObject([
          [{ limit: "work" }, "the call spent its 1000 units of work"],
          [{ limit: "work" }, "the call spent its 500 units of work"]
        ])
      })
    ))

  test.each(kinds)("%s: takes what is left of a budget of work, down to the last unit, and no more", (kind) =>
    run(
      Effect.gen(function* () {
        const granted: Array<number> = []
        const { idle, stub } = yield* serving(
          transport,
          inAllKinds(({ budget }) =>
            Effect.gen(function* () {
              expect(yield* Effect.exit(budget.take(Number.NaN))).toMatchObject({ _tag: "Failure" })
              expect(yield* Effect.exit(budget.take(0))).toMatchObject({ _tag: "Failure" })
              yield* budget.spend(50)
              for (;;) granted.push(yield* budget.take(400))
            })
          ),
          { limits: { work: 1_000 } }
        )
        expect((yield* call(stub, kind).answer).code).toBe(Code.RESOURCE_EXHAUSTED)
        yield* idle
        expect(granted).toEqual([400, 400, 150])
      })
    )
  )

  test("a handler that masks ends with its interrupt, too, when it takes of a budget that was spent", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { idle, stub } = yield* serving(
          transport,
          inAllKinds(({ budget }) =>
            Effect.uninterruptible(
              Effect.onInterrupt(
                Effect.map(Effect.andThen(budget.take(10), budget.take(1)), (units) => {
                  book.note(`granted ${units}`)
                  return "ok"
                }),
                () => book.noting("interrupted")
              )
            )
          ),
          { limits: { work: 10 } }
        )
        expect((yield* call(stub, "Unary").answer).code).toBe(Code.RESOURCE_EXHAUSTED)
        yield* idle
        expect(book.seen).toEqual(["interrupted"])
      })
    ))

  test.each(kinds)("%s: clean-up can ask when the call was cancelled, and is told the first time", (kind) =>
    run(
      Effect.gen(function* () {
        const instants: Array<number> = []
        const asked: Array<Option.Option<number>> = []
        const ask = (given: Call) => Effect.map(given.cancelledAt, (at) => asked.push(at))
        const { idle, stub } = yield* serving(
          transport,
          inAllKinds((given) =>
            Effect.gen(function* () {
              yield* ask(given)
              instants.push(yield* Instant.now)
              return yield* Effect.onInterrupt(
                Effect.andThen(given.cancel({ code: Code.ABORTED, details: "enough" }), Effect.never),
                () =>
                  Effect.gen(function* () {
                    instants.push(yield* Instant.now)
                    yield* ask(given)
                    yield* given.cancel({ code: Code.ABORTED, details: "more than enough" })
                    yield* ask(given)
                  })
              )
            })
          )
        )
        expect((yield* call(stub, kind).answer).details).toBe("enough")
        yield* idle
        const [before, first, again] = asked
        expect([before, again]).toEqual([Option.none(), first])
        const [began, cleaned] = instants as [number, number]
        const at = Option.getOrThrow(first as Option.Option<number>)
        expect(at).toBeGreaterThanOrEqual(began)
        expect(at).toBeLessThanOrEqual(cleaned)
      })
    )
  )
})

describe("a limit that means nothing is refused before anything is served", () => {
  const refused = (it: Effect.Effect<unknown, unknown, never>) =>
    Effect.map(Effect.exit(it), (exit) =>
      exit._tag === "Failure" ? exit.cause.reasons.map((reason) => `${reason}`).join() : "taken"
    )

  test.each([
    { requests: Number.NaN },
    { requestBytes: 1.5 },
    { responses: -1 },
    { responseBytes: Number.NaN },
    { time: Number.NaN },
    { time: {} as never },
    { work: Number.NaN }
  ])("of a call: %o", (limits) =>
    run(
      Effect.gen(function* () {
        const make = (options: object) =>
          refused(Server.make(definition, echo, options).pipe(Effect.provide(Owner.layer())))
        expect(yield* make({ limits })).toContain("IllegalArgument")
        expect(yield* make({ methodLimits: { Unary: limits } })).toContain("IllegalArgument")
      })
    )
  )

  test.each([
    { limits: { calls: Number.NaN } },
    { limits: { perMethod: -1 } },
    { limits: { perPeer: 0.5 } },
    { eventBuffer: Number.NaN }
  ])("of a server's calls: %o", (options) =>
    run(
      Effect.gen(function* () {
        expect(yield* refused(ServerCalls.make(options))).toContain("IllegalArgument")
      })
    )
  )

  test.each([{ lameDuck: Number.NaN }, { drain: {} as never }])("of a server's end: %o", (options) =>
    run(
      Effect.gen(function* () {
        const made = Effect.scoped(GrpcServer.make({ services: [], address: "127.0.0.1:0", ...options }))
        expect(yield* refused(Effect.provide(made, Owner.layer()))).toContain("IllegalArgument")
      })
    )
  )

  test("and one that is not known before the call lets none in", () =>
    run(
      Effect.gen(function* () {
        const { stub } = yield* serving("grpc", echo, {
          callsOptions: { limits: { perPeer: () => Number.NaN } }
        })
        expect((yield* call(stub, "Unary").answer).code).toBe(Code.RESOURCE_EXHAUSTED)
      })
    ))
})
