import { checkpoint, guard, onCancel, TimeSlice } from "@curfew/guard"
import { CancelScope, OnUnhandled, type Unhandled } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { complaintOf } from "../../../test/support/badInput.ts"

const thrown = new Error("thrown")
const broken = (): Effect.Effect<never> => {
  throw thrown
}

describe("a time slice", () => {
  it.effect("that is NaN is an IllegalArgument at the first checkpoint", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Effect.provideService(checkpoint, TimeSlice, Number.NaN))
      expect(complaintOf(exit)).toMatch(/^The TimeSlice of checkpoint is NaN\. Pass milliseconds/)
    })
  )
})

describe("a clean-up that throws", () => {
  it.effect("where an effect was expected: the exit stays the cancel's, and what it threw is told once", () =>
    Effect.gen(function* () {
      const guards = [
        onCancel(Effect.never, broken),
        Effect.scoped(Effect.andThen(guard(broken), Effect.never))
      ]
      for (const guarded of guards) {
        const heard: Array<Unhandled> = []
        const outcome = yield* CancelScope.run((scope) =>
          Effect.andThen(Effect.forkChild(scope.cancel()), guarded)
        ).pipe(Effect.provideService(OnUnhandled, (unhandled) => Effect.sync(() => heard.push(unhandled))))
        expect(outcome._tag).toBe("Cancelled")
        expect(heard.map(({ cause }) => Cause.squash(cause))).toEqual([thrown])
      }
    })
  )
})

describe("a clean-up that cancels", () => {
  it.effect("its own scope again and the one around: each runs once", () =>
    Effect.gen(function* () {
      let ran = 0
      const outer = yield* CancelScope.run((around) =>
        CancelScope.run((scope) =>
          onCancel(Effect.andThen(scope.cancel(), Effect.never), () =>
            Effect.andThen(
              Effect.all([scope.cancel(), around.cancel()]),
              Effect.sync(() => ++ran)
            )
          )
        )
      )
      expect(outer._tag).toBe("Cancelled")
      expect(ran).toBe(1)
    })
  )
})

describe("a guard in a closed Scope", () => {
  it.effect(
    "is not armed for anything: its clean-up does not run, although the Scope was closed by a cancel",
    () =>
      Effect.gen(function* () {
        let ran = 0
        for (const exit of [Exit.void, Exit.interrupt(1), Exit.fail("no")]) {
          const over = yield* Scope.make()
          yield* Scope.close(over, exit)
          yield* Scope.provide(
            guard(() => Effect.sync(() => ++ran)),
            over
          )
        }
        expect(ran).toBe(0)
      })
  )
})
