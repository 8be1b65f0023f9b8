import { Owner } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { describe, expect, test } from "vitest"
import { type Swept, sweep, sweepAll } from "../../../test/support/sweep.ts"
import { delayCancellation, stopCancellation } from "../src/index.ts"

const pauses = Effect.andThen(Effect.yieldNow, Effect.yieldNow)

const works: Record<string, Effect.Effect<string, string>> = {
  "completes at once": Effect.succeed("done"),
  "completes later": Effect.as(pauses, "done"),
  "completes after a sleep": Effect.as(Effect.sleep("1 second"), "done"),
  "opens an interruptible region": Effect.uninterruptible(Effect.interruptible(Effect.as(pauses, "done"))),
  "forks a child": Effect.as(Effect.forkChild(Effect.never, { startImmediately: true }), "done"),
  "fails at once": Effect.fail("failed"),
  "fails later": Effect.andThen(pauses, Effect.fail("failed")),
  "dies later": Effect.andThen(pauses, Effect.die("died"))
}

type Shield = (
  self: Effect.Effect<string, string>,
  late: (exit: Exit.Exit<string, string>) => Effect.Effect<unknown>
) => Effect.Effect<string, string, Owner>

const shields: Record<string, Shield> = {
  stopCancellation: (self, late) => stopCancellation(self, { onAbandoned: late }),
  "stopCancellation with a closed owner": (self, late) =>
    Effect.flatMap(Owner, (owner) =>
      Effect.andThen(owner.close, stopCancellation(self, { onAbandoned: late }))
    ),
  delayCancellation: (self, late) => delayCancellation(self, { onLate: late }),
  "delayCancellation with a grace": (self, late) =>
    delayCancellation(self, { onLate: late, grace: "1 minute" })
}

/** Who got the exit of the work, in a run and in the one after it. */
const program = (
  shield: Shield,
  work: Effect.Effect<string, string>,
  masked: boolean
): Swept<string, never> => {
  let settled: Exit.Exit<string, string> | undefined
  let waiter: Exit.Exit<string, string> | undefined
  let late: Array<Exit.Exit<string, string>> = []
  const observed = Effect.onExit(work, (exit) =>
    Effect.sync(() => {
      settled = exit
    })
  )
  const shielded = Effect.onExit(
    shield(observed, (exit) =>
      Effect.andThen(
        Effect.yieldNow,
        Effect.sync(() => {
          late.push(exit)
        })
      )
    ),
    (exit) =>
      Effect.sync(() => {
        waiter = exit
      })
  )
  return {
    program: Effect.suspend(() => {
      settled = waiter = undefined
      late = []
      return Effect.provide(
        Effect.catchCause(masked ? Effect.uninterruptible(shielded) : shielded, (cause) =>
          Effect.succeed(String(Cause.squash(cause)))
        ),
        Owner.layer()
      )
    }),
    after: () => {
      const given = waiter !== undefined && (Exit.isSuccess(waiter) || !Cause.hasInterruptsOnly(waiter.cause))
      if (settled === undefined) {
        expect(given, "an exit of work that has not run").toBe(false)
        return
      }
      expect((given ? 1 : 0) + late.length, "receivers of the exit").toBe(1)
      if (masked) expect(late, "late inside a mask").toEqual([])
      for (const exit of late) expect(exit).toEqual(settled)
      if (given && Exit.isSuccess(waiter as Exit.Exit<string, string>)) expect(waiter).toEqual(settled)
    }
  }
}

describe.each(Object.entries(shields))(
  "L10, L11: %s, cancelled at every step",
  { timeout: 60_000 },
  (_, shield) => {
    test.each(Object.entries(works))("around work that %s has exactly one receiver", async (_, work) => {
      const steps = await sweepAll(() => program(shield, work, false))
      expect(Math.min(...steps)).toBeGreaterThan(10)
    })

    test.each(["completes at once", "completes later", "fails later"])(
      "inside a mask, around work that %s, it gives the exit to its waiter",
      async (name) => {
        const work = works[name] as Effect.Effect<string, string>
        const steps = await sweepAll(() => program(shield, work, true))
        expect(Math.min(...steps)).toBeGreaterThan(10)
      }
    )
  }
)

describe("cancelled at every step, any fiber", { timeout: 60_000 }, () => {
  test.each(Object.entries(shields))("%s leaves no fiber", async (_, shield) => {
    const steps = await sweep(
      () => ({
        program: Effect.provide(
          Effect.gen(function* () {
            const work = Effect.andThen(pauses, Effect.as(Effect.sleep("1 second"), "done"))
            const fiber = yield* Effect.forkChild(shield(work, () => Effect.yieldNow))
            return yield* Effect.catchCause(Fiber.join(fiber), (cause) =>
              Effect.succeed(String(Cause.squash(cause)))
            )
          }),
          Owner.layer()
        ),
        answer: "done"
      }),
      { cancel: "any" }
    )
    expect(steps).toBeGreaterThan(10)
  })
})
