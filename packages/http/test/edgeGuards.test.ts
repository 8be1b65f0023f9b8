/** Guards of handlers behind an edge: they stand in the Scope that the handler was given. */
import { guard } from "@curfew/guard"
import { cancellable } from "@curfew/request"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import { describe, expect, test } from "vitest"
import { ask, run, serving, text, wire } from "./support/effectServer.ts"

const guarded = (work: Effect.Effect<unknown>) => {
  const log: Array<string> = []
  const started = Deferred.makeUnsafe<void>()
  const handler = Effect.gen(function* () {
    yield* Effect.addFinalizer(() => Effect.sync(() => log.push("released")))
    yield* guard((reason) => Effect.sync(() => log.push(`guard: ${reason._tag}`)))
    yield* Deferred.succeed(started, undefined)
    yield* work
    return text("answer")
  })
  return { log, handler, started: Deferred.await(started) }
}

describe("L14: a guard in a handler's own Scope", () => {
  test("L14 runs when the client of a cancellable handler leaves, before what was acquired earlier is released", () =>
    run(
      Effect.gen(function* () {
        const { handler, log, started } = guarded(Effect.never)
        const server = yield* serving(HttpRouter.add("GET", "/search", cancellable(handler)))
        const client = yield* wire(server.port, ask("/search"))
        yield* started
        client.socket.resetAndDestroy()
        yield* server.recorded(1)
        expect(log).toEqual(["guard: ClientGone", "released"])
      })
    ))

  test("L14 runs at a deadline", () =>
    run(
      Effect.gen(function* () {
        const { handler, log } = guarded(Effect.never)
        const server = yield* serving(HttpRouter.add("GET", "/search", cancellable(handler)), {
          deadline: "5 millis"
        })
        yield* wire(server.port, ask("/search"))
        const [record] = yield* server.recorded(1)
        expect(record?.status).toBe(504)
        expect(log).toEqual(["guard: Deadline", "released"])
      })
    ))

  test("L14 does not run when the handler answers", () =>
    run(
      Effect.gen(function* () {
        const { handler, log } = guarded(Effect.void)
        const server = yield* serving(HttpRouter.add("GET", "/search", cancellable(handler)))
        yield* wire(server.port, ask("/search"))
        const [record] = yield* server.recorded(1)
        expect(record?.status).toBe(200)
        expect(log).toEqual(["released"])
      })
    ))
})
