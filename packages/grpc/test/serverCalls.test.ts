import { cancellable, onDisconnect } from "@curfew/request"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { GrpcError, ServerCall, ServerMetrics } from "../src/index.ts"
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

const requestStreams = (kind: string): boolean => kind === "ClientStream" || kind === "Bidi"

describe.each(transports)("a service over %s", (transport) => {
  test("answers all four kinds", () =>
    run(
      Effect.gen(function* () {
        const { idle, stub } = yield* serving(transport, echo)
        for (const kind of kinds) {
          const started = call(stub, kind, { request: "abc" })
          started.call.end?.()
          const answer = yield* started.answer
          expect([kind, answer.code, answer.messages.join("")]).toEqual([kind, Code.OK, "abc"])
        }
        yield* idle
      })
    ))

  test.each(kinds)("%s: a failure that says its status is that status, with details and trailers", (kind) =>
    run(
      Effect.gen(function* () {
        const failure = new GrpcError({
          code: Code.FAILED_PRECONDITION,
          details: "not now – später",
          metadata: metadata({ "retry-hint": "7" })
        })
        const { logs, stub } = yield* serving(
          transport,
          inAllKinds(() => Effect.fail(failure))
        )
        const started = call(stub, kind)
        started.call.end?.()
        const answer = yield* started.answer
        expect([answer.code, answer.details]).toEqual([Code.FAILED_PRECONDITION, "not now – später"])
        expect(answer.trailers.get("retry-hint")).toEqual(["7"])
        expect(logs.filter((line) => line.startsWith("Error"))).toEqual([])
      })
    )
  )

  test.each(kinds)("%s: a handler sees its call: metadata, peer, deadline, transport", (kind) =>
    run(
      Effect.gen(function* () {
        const seen: Array<unknown> = []
        const handlers = inAllKinds(
          (given) =>
            Effect.gen(function* () {
              const current = yield* ServerCall.current
              seen.push(
                Option.getOrUndefined(current) === given,
                given.method,
                given.transport,
                given.metadata.get("tenant"),
                given.peer.includes("127.0.0.1"),
                Option.isSome(given.deadline),
                yield* given.isActive,
                Option.isNone(yield* given.reason)
              )
              yield* given.sendHeaders({ served: "by test" })
              yield* given.setTrailers({ cost: "3" })
              return "ok"
            }) as Effect.Effect<string>
        )
        const { stub } = yield* serving(transport, handlers)
        const started = call(stub, kind, {
          metadata: metadata({ tenant: "t1" }),
          call: { deadline: Date.now() + 60_000 }
        })
        started.call.end?.()
        const answer = yield* started.answer
        const path = `/curfew.test.Words/${kind}`
        expect(seen).toEqual([true, path, transport, ["t1"], true, true, true, true])
        expect([answer.code, answer.messages]).toEqual([Code.OK, ["ok"]])
        expect(answer.headers?.get("served")).toEqual(["by test"])
        expect(answer.trailers.get("cost")).toEqual(["3"])
      })
    )
  )

  describe.each(kinds)("%s, cancelled by its client", (kind) => {
    test("L39 before the start, during, after, and twice: the marked handler is interrupted once, and only during", () =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const handlers = inAllKinds(
            () =>
              Effect.onExit(Effect.andThen(book.noting("started"), Effect.never), (exit) =>
                book.noting(exit._tag === "Failure" ? "interrupted" : "done")
              ),
            cancellable
          )
          const { calls, idle, metric, stub } = yield* serving(transport, handlers)
          const before = call(stub, kind)
          before.call.cancel()
          expect((yield* before.answer).code).toBe(Code.CANCELLED)
          const during = call(stub, kind)
          yield* book.awaits("started")
          during.call.cancel()
          during.call.cancel()
          yield* book.awaits("interrupted")
          expect((yield* during.answer).code).toBe(Code.CANCELLED)
          yield* idle
          expect(book.seen.filter((it) => it === "started").length).toBe(
            book.seen.filter((it) => it === "interrupted").length
          )
          expect(yield* calls.inFlight).toBe(0)
          const attributes = { method: `/curfew.test.Words/${kind}`, transport, reason: "ClientGone" }
          expect(metric(ServerMetrics.cancelled, attributes)).toBeGreaterThan(0)
        })
      ))

    test("L40 after an answer nothing is interrupted and nothing is told, although grpc-js says cancelled", () =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const handlers = inAllKinds(
            (given) =>
              Effect.gen(function* () {
                ;(given.raw as NodeJS.EventEmitter).on("cancelled", () => book.note("raw cancelled"))
                yield* given.onPeerGone(() => book.noting("peer gone"))
                return "answer"
              }),
            cancellable
          )
          const events: Array<unknown> = []
          const { idle, metric, stub } = yield* serving(transport, handlers, {
            callsOptions: { onCancelled: (event) => events.push(event) }
          })
          const started = call(stub, kind)
          started.call.end?.()
          const answer = yield* started.answer
          started.call.cancel()
          yield* idle
          // Pinned: grpc-js emits it after every answer; the tunnel does not.
          if (transport === "grpc") yield* book.awaits("raw cancelled")
          expect([answer.code, events]).toEqual([Code.OK, []])
          expect(book.seen).toEqual(transport === "grpc" ? ["raw cancelled"] : [])
          const attributes = { method: `/curfew.test.Words/${kind}`, transport, code: "0" }
          expect(metric(ServerMetrics.completed, attributes)).toBe(1)
        })
      ))

    test("L39 an unmarked request handler runs to its end, an unmarked stream does not", () =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const handlers = inAllKinds((given) =>
            Effect.gen(function* () {
              yield* book.noting("started")
              yield* given.awaitPeerGone
              yield* book.noting(`active ${yield* given.isActive}`)
              return "late"
            }).pipe(Effect.onInterrupt(() => book.noting("interrupted")))
          )
          const { idle, stub } = yield* serving(transport, handlers)
          const started = call(stub, kind)
          yield* book.awaits("started")
          started.call.cancel()
          yield* started.answer
          yield* idle
          const shielded = kind === "Unary" || kind === "ClientStream"
          expect(book.seen).toEqual(["started", shielded ? "active false" : "interrupted"])
        })
      ))
  })

  describe.each(kinds)("%s, whose client leaves", (kind) => {
    const policies = {
      cancel: "cancel",
      shield: "shield",
      grace: { grace: "20 millis" },
      detach: "detach"
    } as const

    test.each(Object.keys(policies) as Array<keyof typeof policies>)(
      "L39 under %s: the policy says what happens",
      (name) =>
        run(
          Effect.gen(function* () {
            const book = notebook()
            const { calls, idle, stub } = yield* serving(
              transport,
              inAllKinds(
                (given) =>
                  Effect.gen(function* () {
                    yield* given.onPeerGone((reason) => book.noting(`told ${reason._tag}`))
                    yield* book.noting("started")
                    yield* name === "grace" ? Effect.never : book.awaits("go")
                    yield* book.noting("done")
                    return "late"
                  }).pipe(Effect.onInterrupt(() => book.noting("interrupted"))),
                onDisconnect(policies[name])
              )
            )
            const left = call(stub, kind)
            yield* book.awaits("started")
            left.call.cancel()
            expect((yield* left.answer).code).toBe(Code.CANCELLED)
            yield* book.awaits("told ClientGone")
            if (name === "shield" || name === "detach") {
              expect(yield* calls.inFlight).toBe(1)
              book.note("go")
            }
            yield* idle
            const ran = name === "shield" || name === "detach"
            expect(book.seen.filter((it) => it === "done" || it === "interrupted")).toEqual([
              ran ? "done" : "interrupted"
            ])
          })
        )
    )
  })

  test.each(kinds)("%s: a deadline interrupts every handler, with an origin that says remote", (kind) =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const handlers = inAllKinds((given) =>
          Effect.onInterrupt(Effect.never, () =>
            Effect.flatMap(given.reason, (reason) => {
              const why = Option.getOrUndefined(reason)
              return book.noting(why?._tag === "Deadline" ? `deadline ${why.origin}` : String(why?._tag))
            })
          )
        )
        const { idle, stub } = yield* serving(transport, handlers)
        const started = call(stub, kind, { call: { deadline: Date.now() + 60 } })
        expect((yield* started.answer).code).toBe(Code.DEADLINE_EXCEEDED)
        yield* idle
        // A client whose own timer fires first cancels, and that is all the wire says; the scope's deadline comes after.
        expect(["deadline remote", "ClientGone"]).toContain(book.seen[0])
        expect(book.seen).toHaveLength(1)
      })
    )
  )

  test.each(kinds)("%s: cancel(status) ends the call from the server's side with that status", (kind) =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const handlers = inAllKinds((given) =>
          Effect.andThen(
            given.cancel({ code: Code.ABORTED, details: "superseded by another" }),
            Effect.never
          ).pipe(Effect.onInterrupt(() => book.noting("interrupted")))
        )
        const { idle, stub } = yield* serving(transport, handlers)
        const answer = yield* call(stub, kind).answer
        expect([answer.code, answer.details]).toEqual([Code.ABORTED, "superseded by another"])
        yield* idle
        expect(book.seen).toEqual(["interrupted"])
      })
    )
  )

  test.each(["refuses", "has a closed owner"])(
    "a server that %s answers UNAVAILABLE, and nothing of the call runs",
    (how) =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const { calls, owner, stub } = yield* serving(
            transport,
            inAllKinds(() => Effect.as(book.noting("started"), "ok"))
          )
          yield* how === "refuses" ? calls.refuse : owner.close
          for (const kind of kinds) {
            const answer = yield* call(stub, kind).answer
            expect([kind, answer.code, answer.details]).toEqual([
              kind,
              Code.UNAVAILABLE,
              "The server is shutting down"
            ])
          }
          expect([book.seen, yield* calls.inFlight]).toEqual([[], 0])
        })
      )
  )

  test("completed is told with the answer, to work that outlives the handler", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const handlers = {
          ...echo,
          Unary: (_request: string, given: ServerCall.ServerCall) =>
            Effect.as(Effect.forkDetach(Effect.andThen(given.completed, book.noting("completed"))), "ok")
        }
        const { stub } = yield* serving(transport, handlers)
        expect((yield* call(stub, "Unary").answer).code).toBe(Code.OK)
        yield* book.awaits("completed")
        const started = call(stub, "Unary")
        started.call.cancel()
        yield* started.answer
        expect(book.seen).toEqual(["completed"])
      })
    ))

  test.each(kinds.filter(requestStreams))("%s: messages come one by one, and the end last", (kind) =>
    run(
      Effect.gen(function* () {
        const seen: Array<string> = []
        const handlers = inAllKinds((_call, requests) =>
          Effect.gen(function* () {
            if (requests === undefined) return ""
            seen.push(yield* requests.completeness)
            yield* Stream.runForEach(requests, (text) => Effect.sync(() => seen.push(text)))
            seen.push(yield* requests.completeness)
            return "done"
          })
        )
        const { stub } = yield* serving(transport, handlers)
        const started = call(stub, kind, { request: "1" })
        started.call.write?.("2")
        started.call.write?.("3")
        started.call.end?.()
        expect((yield* started.answer).messages).toEqual(["done"])
        expect(seen).toEqual(["open", "1", "2", "3", transport === "tunnel" ? "half-closed" : "unknown"])
      })
    )
  )
})
