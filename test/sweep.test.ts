import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Semaphore from "effect/Semaphore"
import { describe, expect, test } from "vitest"
import { type Swept, sweep, sweepAll, sweepReason } from "./support/sweep.ts"

/** A program that opens and closes a resource around some steps, rightly or wrongly. */
const resource = (
  use: (open: Effect.Effect<void>, close: Effect.Effect<void>) => Effect.Effect<string>
): Swept<string, never> => {
  let open = 0
  return {
    program: use(
      Effect.sync(() => {
        open++
      }),
      Effect.sync(() => {
        open--
      })
    ),
    after: () => expect(open, "resources left open").toBe(0)
  }
}

const steps = Effect.andThen(Effect.yieldNow, Effect.as(Effect.yieldNow, "used"))

describe("a sweep goes over every operation and finds nothing in a right program", () => {
  test("acquire and release in pairs", async () => {
    const swept = await sweep(() =>
      resource((open, close) =>
        Effect.acquireUseRelease(
          open,
          () => steps,
          () => close
        )
      )
    )
    expect(swept).toBeGreaterThan(5)
  })

  test("in all kinds of sweep, with children and a limit on a clock that jumps", async () => {
    const counts = await sweepAll(() => ({
      program: Effect.gen(function* () {
        const child = yield* Effect.forkChild(steps)
        const late = yield* Effect.timeoutOption(Effect.never, "1 hour")
        return [yield* Fiber.join(child), late._tag]
      }),
      answer: ["used", "None"]
    }))
    expect(Math.min(...counts)).toBeGreaterThan(10)
  })

  test("tells the check whether, and the program why, it was cancelled", async () => {
    const seen = new Set<string>()
    await sweep(
      () => ({
        program: steps,
        after: (exit: Exit.Exit<string>, run) => {
          if (Exit.isFailure(exit)) {
            expect(run.cancelled).toBe(true)
            expect(Cause.hasInterruptsOnly(exit.cause)).toBe(true)
            expect(String(exit.cause)).not.toBe("")
          }
          seen.add(`${exit._tag} ${run.cancelled}`)
        }
      }),
      { cancel: "scope" }
    )
    expect(seen).toContain("Success false")
    expect(seen).toContain("Failure true")
    expect(sweepReason._tag).toBe("Requested")
  })
})

describe("a sweep finds a planted bug", () => {
  test("a resource that was acquired outside a mask is not released", async () => {
    const wrong = () => resource((open, close) => Effect.andThen(open, Effect.ensuring(steps, close)))
    await expect(sweep(wrong)).rejects.toThrow(/Invariant \(the run\): steps? \d[\s\S]*resources left open/)
    await expect(sweep(wrong, { cancel: "scope" })).rejects.toThrow("resources left open")
  })

  test("a fiber that nobody waits for is left", async () => {
    const wrong = () => ({ program: Effect.as(Effect.forkDetach(Effect.never), "done") })
    await expect(sweep(wrong)).rejects.toThrow("FiberLeft: without any cancel")
    // Only a cancel leaves this one, so only a sweep finds it.
    const onCancel = () => ({
      program: Effect.onInterrupt(steps, () => Effect.asVoid(Effect.forkDetach(Effect.never)))
    })
    await expect(sweep(onCancel)).rejects.toThrow(/FiberLeft: steps? \d[\s\S]*1 fiber is left/)
  })

  test("a permit that is lost makes the next run hang or answer wrongly", async () => {
    const wrong = () => {
      const permits = Semaphore.makeUnsafe(1)
      return {
        program: Effect.gen(function* () {
          yield* permits.take(1)
          const value = yield* steps
          yield* permits.release(1)
          return value
        })
      }
    }
    await expect(sweep(wrong)).rejects.toThrow(
      /NotTerminated: steps? \d[\s\S]*in the run afterwards: the run does not end/
    )
  })

  test("a run that swallows its cancel and waits for ever does not terminate", async () => {
    const wrong = () => {
      const given = Deferred.makeUnsafe<string>()
      return {
        program: Effect.uninterruptibleMask((restore) =>
          Effect.exit(restore(steps)).pipe(
            Effect.flatMap((exit) => (Exit.isSuccess(exit) ? exit : Deferred.await(given)))
          )
        )
      }
    }
    await expect(sweep(wrong)).rejects.toThrow(/NotTerminated: steps? \d[\s\S]*the run does not end/)
  })

  test("state that a cancelled run leaves behind changes the answer of the next one", async () => {
    const counting = () => {
      let begun = 0
      return {
        program: Effect.gen(function* () {
          const mine = begun++
          yield* steps
          begun--
          return mine
        }),
        answer: 0
      }
    }
    await expect(sweep(counting)).rejects.toThrow("wrong answer")
    await expect(sweep(counting, { fresh: false, twice: true })).rejects.toThrow("wrong answer")
  })

  test("an interrupt of any fiber of the tree", async () => {
    const wrong = () => {
      let open = 0
      return {
        program: Effect.gen(function* () {
          const child = yield* Effect.forkChild(
            Effect.gen(function* () {
              open++
              yield* steps
              open--
            }),
            { startImmediately: true }
          )
          yield* Fiber.await(child)
          return 0
        }),
        after: () => expect(open, "left open by the child").toBe(0)
      }
    }
    await expect(sweep(wrong, { cancel: "any" })).rejects.toThrow("left open by the child")
  })
})
