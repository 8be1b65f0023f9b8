import { CancelScope } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { exitOf, started } from "../../../test/support/recorder.ts"
import { CancelReason, ownCancellation } from "../src/index.ts"

const reason = CancelReason.Requested({ message: "the tab was closed" })
const some = Option.some(reason)

/** Runs a body until its first suspension, cancels its scope, and waits for the end. */
const cancelled = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const given = yield* Deferred.make<CancelScope.CancelScope>()
    const fiber = yield* started(
      CancelScope.run((scope) => Effect.andThen(Deferred.succeed(given, scope), body))
    )
    yield* (yield* Deferred.await(given)).cancel(reason)
    return yield* Fiber.await(fiber)
  })

describe("ownCancellation", () => {
  it.effect("tells an own cancel from a foreign interrupt, a failure, a defect and a success", () =>
    Effect.gen(function* () {
      const own = <A, E>(work: Effect.Effect<A, E>) => {
        const seen: Array<Option.Option<CancelReason>> = []
        const watched = Effect.onExit(work, (exit) =>
          Effect.map(ownCancellation(exit), (mine) => {
            seen.push(mine)
          })
        )
        return { seen, watched }
      }
      const stopped = yield* started(Effect.never)
      yield* Fiber.interrupt(stopped)
      for (const work of [
        Fiber.join(stopped),
        Effect.fail("no"),
        Effect.die("no"),
        Effect.void,
        Effect.interrupt
      ]) {
        const { seen, watched } = own(work as Effect.Effect<unknown, unknown>)
        yield* exitOf(CancelScope.run(() => watched))
        expect(seen).toEqual([Option.none()])
      }
      const { seen, watched } = own(Effect.never)
      yield* cancelled(watched)
      expect(seen).toEqual([some])
      const native = own(Effect.never)
      yield* Fiber.interrupt(yield* started(native.watched))
      expect(native.seen).toEqual([Option.some(CancelReason.Unknown())])
    })
  )

  it.effect("holds in a finalizer that a parallel Scope runs in a fiber of its own", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const body = Effect.onExit(Effect.never, (exit) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make("parallel")
          const see = (e: Exit.Exit<unknown, unknown>) =>
            Effect.map(ownCancellation(e), (own) => void seen.push(own))
          yield* Scope.addFinalizerExit(scope, see)
          yield* Scope.addFinalizerExit(scope, see)
          yield* Scope.close(scope, exit)
        })
      )
      yield* cancelled(body)
      expect(seen).toEqual([some, some])
    })
  )
})
