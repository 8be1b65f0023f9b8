import type { CancelReason } from "@curfew/reason"
import { OnUnhandled } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { describe, expect, test } from "vitest"
import { type Swept, sweep, sweepAll } from "../../../test/support/sweep.ts"
import { checkpoint, guard, onCancel, TimeSlice } from "../src/index.ts"

const pauses = Effect.andThen(Effect.yieldNow, Effect.yieldNow)

/** Counts the clean-ups of one run against the exit of what they guard. */
const counting = () => {
  let cleanups = 0
  let entered = false
  let completed = false
  let guarded: Exit.Exit<unknown, unknown> | undefined
  return {
    reset: () => {
      cleanups = 0
      entered = completed = false
      guarded = undefined
    },
    /** The work; it is entered with its first operation and complete with its last. */
    work: Effect.acquireUseRelease(
      Effect.sync(() => {
        entered = true
      }),
      () => Effect.as(pauses, "done"),
      (_, exit) =>
        Effect.sync(() => {
          completed = Exit.isSuccess(exit)
        })
    ),
    cleanup: (_reason: CancelReason) =>
      Effect.andThen(
        Effect.yieldNow,
        Effect.sync(() => {
          cleanups++
        })
      ),
    observe: <A, E, R>(self: Effect.Effect<A, E, R>) =>
      Effect.onExit(self, (exit) =>
        Effect.sync(() => {
          guarded = exit
        })
      ),
    get seen() {
      return { cleanups, completed, entered, guarded }
    }
  }
}

const program = (
  guardedBy: (count: ReturnType<typeof counting>) => Effect.Effect<string>
): (() => Swept<string, never>) => {
  return () => {
    const count = counting()
    return {
      program: Effect.suspend(() => {
        count.reset()
        return count.observe(guardedBy(count))
      }),
      after: () => {
        const { cleanups, entered, guarded } = count.seen
        expect(cleanups, "clean-ups").toBeLessThanOrEqual(1)
        if (guarded === undefined) return
        if (Exit.isFailure(guarded)) expect(Cause.hasInterruptsOnly(guarded.cause)).toBe(true)
        // It ran iff the cancel kept the work from completing; a work that was never entered had no guard.
        if (Exit.isSuccess(guarded)) expect(cleanups, "clean-ups after a success").toBe(0)
        else if (entered)
          expect(cleanups + (count.seen.completed ? 1 : 0), "clean-ups").toBeGreaterThanOrEqual(1)
      }
    }
  }
}

describe("L14: cancelled at every step", { timeout: 60_000 }, () => {
  test("onCancel runs iff the cancel prevented the completion", async () => {
    const steps = await sweepAll(program((count) => onCancel(count.work, count.cleanup)))
    expect(Math.min(...steps)).toBeGreaterThan(10)
  })

  test.each(["sequential", "parallel"] as const)("guard in a %s Scope does, too", async (strategy) => {
    const steps = await sweepAll(
      program((count) =>
        Effect.suspend(() => {
          const scope = Scope.makeUnsafe(strategy)
          return Effect.onExit(
            Scope.provide(Effect.andThen(Effect.uninterruptible(guard(count.cleanup)), count.work), scope),
            (exit) => Scope.close(scope, exit)
          )
        })
      )
    )
    expect(Math.min(...steps)).toBeGreaterThan(10)
  })

  test("a guard that is disarmed by the completion runs at most once, and never after that", async () => {
    let disarmed = false
    let ranAfter = false
    const steps = await sweepAll(() => ({
      program: Effect.suspend(() => {
        disarmed = ranAfter = false
        return Effect.scoped(
          Effect.gen(function* () {
            const { disarm } = yield* guard(() =>
              Effect.sync(() => {
                ranAfter = disarmed
              })
            )
            yield* pauses
            yield* Effect.uninterruptible(
              Effect.map(disarm, (was) => {
                disarmed = was
              })
            )
            yield* pauses
            return disarmed
          })
        )
      }),
      answer: true,
      after: () => expect(ranAfter, "clean-up after disarm").toBe(false)
    }))
    expect(Math.min(...steps)).toBeGreaterThan(10)
  })

  test("L15: with a clean-up that dies the exit stays a pure interrupt and the defect is reported once", async () => {
    const swept = () => {
      let died = 0
      let reported = 0
      let exit: Exit.Exit<unknown> | undefined
      return {
        program: Effect.suspend(() => {
          died = reported = 0
          exit = undefined
          return onCancel(Effect.as(pauses, "done"), () =>
            Effect.suspend(() => {
              died++
              return Effect.die("broken")
            })
          ).pipe(
            Effect.onExit((seen) =>
              Effect.sync(() => {
                exit = seen
              })
            ),
            Effect.provideService(OnUnhandled, () =>
              Effect.sync(() => {
                reported++
              })
            )
          )
        }),
        after: () => {
          expect(reported, "reports").toBe(died)
          if (exit !== undefined && Exit.isFailure(exit))
            expect(Cause.hasInterruptsOnly(exit.cause), "pure interrupt").toBe(true)
        }
      }
    }
    const steps = await sweepAll(swept)
    expect(Math.min(...steps)).toBeGreaterThan(10)
  })

  test("a loop with checkpoints ends", async () => {
    for (const cancel of ["native", "scope", "any"] as const) {
      const loop = Effect.gen(function* () {
        for (let i = 0; i < 5; i++) yield* checkpoint
        return "done"
      })
      const steps = await sweep(
        () => ({ program: Effect.provideService(loop, TimeSlice, 0), answer: "done" }),
        {
          cancel
        }
      )
      expect(steps).toBeGreaterThan(10)
    }
  })
})
