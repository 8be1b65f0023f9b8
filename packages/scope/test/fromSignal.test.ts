import { getEventListeners } from "node:events"
import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { fiberCount, started } from "../../../test/support/recorder.ts"
import { CancelScope, Instant } from "../src/index.ts"

const reason = CancelReason.Superseded()
const many = 10_000

describe("fromSignal: the quartet", () => {
  it.effect("aborted before: the scope is cancelled with the signal's reason, whatever it is", () =>
    Effect.gen(function* () {
      for (const [aborted, expected] of [
        [reason, reason],
        [new Error("closed"), CancelReason.Requested({ message: "closed" })],
        ["closed", CancelReason.Requested({ message: "closed" })],
        [undefined, CancelReason.Unknown()],
        [42, CancelReason.Unknown()],
        [null, CancelReason.Unknown()]
      ]) {
        const signal = AbortSignal.abort(aborted)
        const scope = yield* CancelScope.fromSignal(signal)
        expect(yield* scope.awaitCancelled).toEqual(expected)
        expect(scope.signal.reason).toEqual(expected)
        expect(yield* scope.cancel()).toBe(false)
        expect(getEventListeners(signal, "abort")).toHaveLength(0)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("aborted during: who waits for the cancel hears the reason, and the own signal carries it", () =>
    Effect.gen(function* () {
      const controller = new AbortController()
      const scope = yield* CancelScope.fromSignal(controller.signal)
      const { signal } = scope
      const waiting = yield* started(scope.awaitCancelled)
      controller.abort(reason)
      expect(yield* Fiber.join(waiting)).toBe(reason)
      expect(signal.reason).toBe(reason)
    }).pipe(Effect.scoped)
  )

  it.effect("aborted after the Scope has closed: nothing hears it, and no deadline is armed", () =>
    Effect.gen(function* () {
      const controller = new AbortController()
      const around = yield* Scope.make()
      // A timer stands in the context in which the scope was made.
      const { around: counted, count } = fiberCount()
      const scope = yield* Scope.provide(counted(CancelScope.fromSignal(controller.signal)), around)
      expect(getEventListeners(controller.signal, "abort")).toHaveLength(1)
      const inAnHour = yield* Instant.after("1 hour")
      yield* scope.setDeadline(inAnHour)
      expect(count.live).toBeGreaterThan(0)
      yield* Scope.close(around, Exit.void)
      expect(count.live).toBe(0)
      expect(getEventListeners(controller.signal, "abort")).toHaveLength(0)
      controller.abort(reason)
      expect(scope.signal.aborted).toBe(false)
      yield* scope.setDeadline(inAnHour)
      expect(count.live).toBe(0)
    })
  )

  it.effect("aborted and cancelled: the first reason stays", () =>
    Effect.gen(function* () {
      const controller = new AbortController()
      const scope = yield* CancelScope.fromSignal(controller.signal)
      expect(yield* scope.cancel(reason)).toBe(true)
      controller.abort("later")
      expect(yield* scope.awaitCancelled).toBe(reason)
    }).pipe(Effect.scoped)
  )

  it.effect("below a running scope it is cancelled with it", () =>
    Effect.gen(function* () {
      const heard = yield* Deferred.make<unknown>()
      yield* CancelScope.run((outer) =>
        Effect.scoped(
          Effect.gen(function* () {
            const scope = yield* CancelScope.fromSignal(new AbortController().signal)
            yield* outer
              .cancel(reason)
              .pipe(
                Effect.andThen(Effect.flatMap(scope.awaitCancelled, (why) => Deferred.succeed(heard, why))),
                Effect.uninterruptible
              )
          })
        )
      )
      expect(yield* Deferred.await(heard)).toBe(reason)
    })
  )
})

describe("run with a signal", () => {
  it.effect("an abort with anything cancels the body with what fromAbort makes of it", () =>
    Effect.gen(function* () {
      for (const [aborted, expected] of [
        [reason, reason],
        [{ odd: true }, CancelReason.Unknown()],
        [new Error("no"), CancelReason.Requested({ message: "no" })]
      ]) {
        const controller = new AbortController()
        const fiber = yield* started(CancelScope.run(() => Effect.never, { signal: controller.signal }))
        controller.abort(aborted)
        expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason: expected })
      }
    })
  )

  it.effect("L8: ten thousand runs leave no listener on a long-lived signal, however they end", () =>
    Effect.gen(function* () {
      const { signal } = new AbortController()
      const stopped = yield* started(Effect.never)
      yield* Fiber.interrupt(stopped)
      const ways: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        CancelScope.run(() => Effect.void, { signal }),
        CancelScope.run(() => Effect.fail("no"), { signal }),
        CancelScope.run(() => Effect.die("no"), { signal }),
        CancelScope.run((scope) => Effect.andThen(scope.cancel(), Effect.never), { signal }),
        CancelScope.run(() => Fiber.join(stopped), { signal }),
        Effect.scoped(CancelScope.fromSignal(signal)),
        Effect.flatMap(started(CancelScope.run(() => Effect.never, { signal })), Fiber.interrupt)
      ]
      for (let i = 0; i < many; i++)
        yield* Effect.exit(ways[i % ways.length] as Effect.Effect<unknown>).pipe((run) =>
          i % ways.length === 4 ? Effect.flatMap(started(run), Fiber.await) : run
        )
      expect(getEventListeners(signal, "abort")).toHaveLength(0)
    })
  )
})
