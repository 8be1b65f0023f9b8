import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { started } from "../../../test/support/recorder.ts"
import { CancelCell, interruptsOfUnsafe } from "../src/CancelCell.ts"
import { CancelReason, fromCause } from "../src/index.ts"

describe("the cause of an interrupt", () => {
  const cancelOf = (fiber: Fiber.Fiber<unknown, unknown>, parent: CancelCell): CancelCell => {
    const cell = new CancelCell("task", { parent })
    cell.fiber = fiber
    return cell
  }

  it.effect("is one for all that a cancel reaches, suspended, masked or running", () =>
    Effect.gen(function* () {
      const top = new CancelCell("scope", {})
      const gate = yield* Deferred.make<void>()
      const two = [yield* started(Effect.never), yield* started(Effect.never)]
      const masked = yield* started(
        Effect.andThen(Effect.uninterruptible(Deferred.await(gate)), Effect.never)
      )
      const running = yield* started(
        Effect.withFiber((own) => {
          for (const fiber of [...two, masked, own]) cancelOf(fiber, top)
          top.cancel(CancelReason.Superseded())
          return Effect.never
        })
      )
      yield* Deferred.succeed(gate, undefined)
      for (const fiber of [...two, masked, running]) {
        const exit = yield* Fiber.await(fiber)
        expect(exit._tag === "Failure" && exit.cause.reasons.length).toBe(1)
        expect(exit._tag === "Failure" && fromCause(exit.cause)).toEqual(
          Option.some(CancelReason.Superseded())
        )
      }
    })
  )

  it.effect("is added where a fiber was interrupted before", () =>
    Effect.gen(function* () {
      const top = new CancelCell("scope", {})
      const gate = yield* Deferred.make<void>()
      const masked = yield* started(Effect.uninterruptible(Deferred.await(gate)))
      cancelOf(masked, top)
      masked.interruptUnsafe(7)
      top.cancel(CancelReason.Superseded())
      const cause = interruptsOfUnsafe(masked)
      expect(cause?.reasons).toHaveLength(2)
      expect(cause && fromCause(cause)).toEqual(Option.some(CancelReason.Superseded()))
      yield* Deferred.succeed(gate, undefined)
    })
  )

  it.effect("does not keep what a sibling failed with, and says each cancel's own reason", () =>
    Effect.gen(function* () {
      const reasons = [
        CancelReason.SiblingFailed({ cause: Cause.fail(1) }),
        CancelReason.Requested({ message: "a" }),
        CancelReason.Requested({ message: "b" }),
        CancelReason.SiblingFailed({ cause: Cause.fail(2) })
      ]
      for (const reason of [...reasons, ...reasons]) {
        const fiber = yield* started(Effect.never)
        cancelOf(fiber, new CancelCell("scope", {})).cancel(reason)
        const exit = yield* Fiber.await(fiber)
        expect(exit._tag === "Failure" && Option.getOrUndefined(fromCause(exit.cause))).toBe(reason)
      }
    })
  )
})
