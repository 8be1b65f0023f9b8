import { CancelScope } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { started } from "../../../test/support/recorder.ts"
import { CancelCell, CurrentCell } from "../src/CancelCell.ts"
import { awaitCancellation, CancelReason } from "../src/index.ts"

const reason = CancelReason.Superseded()

/** The running scope, its cell and the fiber of the whole. */
const within = <A, E>(body: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const given = yield* Deferred.make<CancelScope.CancelScope>()
    const fiber = yield* started(
      CancelScope.run((scope) => Effect.andThen(Deferred.succeed(given, scope), body))
    )
    return { fiber, scope: yield* Deferred.await(given) }
  })

describe("awaitCancellation", () => {
  it.effect("resumes in a mask, with the reason", () =>
    Effect.gen(function* () {
      let heard: unknown
      const { fiber, scope } = yield* within(
        Effect.uninterruptible(
          Effect.map(awaitCancellation, (why) => {
            heard = why
          })
        )
      )
      yield* scope.cancel(reason)
      yield* Fiber.await(fiber)
      expect(heard).toEqual(reason)
    })
  )

  it.effect("resumes in a mask inside a scope inside a mask", () =>
    Effect.gen(function* () {
      let heard: unknown
      const { fiber, scope } = yield* within(
        Effect.uninterruptible(
          CancelScope.run(() =>
            Effect.uninterruptible(
              Effect.map(awaitCancellation, (why) => {
                heard = why
              })
            )
          )
        )
      )
      yield* scope.cancel(reason)
      yield* Fiber.await(fiber)
      expect(heard).toEqual(reason)
    })
  )

  it.effect("resumes in an ordinary region of a scope that a mask protects", () =>
    Effect.gen(function* () {
      let heard: unknown
      const { fiber, scope } = yield* within(
        Effect.uninterruptible(
          CancelScope.run(() =>
            Effect.map(awaitCancellation, (why) => {
              heard = why
            })
          )
        )
      )
      yield* scope.cancel(reason)
      yield* Fiber.await(fiber)
      expect(heard).toEqual(reason)
    })
  )

  it.effect("resumes in a child that is not itself cancelled yet", () =>
    Effect.gen(function* () {
      let heard: unknown
      const { fiber, scope } = yield* within(
        Effect.andThen(
          Effect.forkChild(
            Effect.map(awaitCancellation, (why) => {
              heard = why
            }),
            { startImmediately: true }
          ),
          Effect.never
        )
      )
      yield* scope.cancel(reason)
      yield* Fiber.await(fiber)
      expect(heard).toEqual(reason)
    })
  )

  it.effect("hears a native interrupt in a mask as Unknown, with and without a scope around", () =>
    Effect.gen(function* () {
      for (const around of [
        (e: Effect.Effect<void>) => e,
        (e: Effect.Effect<void>) => CancelScope.run(() => e)
      ]) {
        let heard: unknown
        const fiber = yield* started(
          around(
            Effect.uninterruptible(
              Effect.map(awaitCancellation, (why) => {
                heard = why
              })
            )
          ) as Effect.Effect<unknown>
        )
        yield* Fiber.interrupt(fiber)
        expect(heard).toEqual(CancelReason.Unknown())
      }
    })
  )

  it.effect("answers at once where the cancel has come already", () =>
    Effect.gen(function* () {
      let heard: unknown
      const { fiber, scope } = yield* within(
        Effect.onExit(Effect.never, () =>
          Effect.map(awaitCancellation, (why) => {
            heard = why
          })
        )
      )
      yield* scope.cancel(reason)
      yield* Fiber.await(fiber)
      expect(heard).toEqual(reason)
    })
  )

  it.effect("ends with the cancel in an ordinary region", () =>
    Effect.gen(function* () {
      let heard: unknown
      const { fiber, scope } = yield* within(
        Effect.map(awaitCancellation, (why) => {
          heard = why
        })
      )
      yield* scope.cancel(reason)
      expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason })
      expect(heard).toBeUndefined()
    })
  )

  it.effect("leaves no listener behind, whether it is interrupted or answered", () =>
    Effect.gen(function* () {
      yield* CancelScope.run(() =>
        Effect.gen(function* () {
          const cell = (yield* CurrentCell) as CancelCell
          const protectedScope = Effect.uninterruptible(
            CancelScope.run(() => Effect.asVoid(awaitCancellation))
          )
          const fiber = yield* started(Effect.asVoid(awaitCancellation))
          expect(cell.listenerCount).toBe(1)
          yield* Fiber.interrupt(fiber)
          expect(cell.listenerCount).toBe(0)
          const inner = yield* started(protectedScope)
          expect(cell.listenerCount).toBe(1)
          cell.cancel(reason)
          yield* Effect.void
          return inner
        })
      )
      const gone = yield* CancelScope.run((scope) =>
        Effect.uninterruptible(
          Effect.gen(function* () {
            const cell = (yield* CurrentCell) as CancelCell
            const waiting = yield* started(Effect.uninterruptible(awaitCancellation))
            expect(cell.listenerCount).toBe(1)
            yield* scope.cancel(reason)
            yield* Fiber.await(waiting)
            return cell.listenerCount
          })
        )
      )
      expect(gone).toMatchObject({ _tag: "Cancelled" })
    })
  )

  it.effect("answers at once where what stands outside is cancelled already", () =>
    Effect.gen(function* () {
      const outside = new CancelCell("scope", {})
      outside.cancel(reason)
      const inside = new CancelCell("shield", { outer: outside })
      const fiber = yield* started(Effect.provideService(awaitCancellation, CurrentCell, inside))
      expect(fiber.pollUnsafe()).toEqual(Exit.succeed(reason))
      inside.unlink()
      outside.unlink()
    })
  )
})
