import { describe, expect, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { Deadlines, type Due } from "../src/internal/deadlines.ts"

const adding = (deadlines: Deadlines, at: number, fire: () => void): Due => {
  const due = { at, fire, index: -1 }
  deadlines.add(due)
  return due
}

/** Runs deadlines on the test's clock. */
const running = (deadlines: Deadlines) =>
  Effect.flatMap(Clock.Clock, (clock) =>
    Effect.forkChild(deadlines.run(() => clock.currentTimeMillisUnsafe()))
  )

describe("the deadlines of a tunnel", () => {
  it.effect("fire in their order, never early, and not once they were removed", () =>
    Effect.gen(function* () {
      const deadlines = new Deadlines()
      const fired: Array<number> = []
      const fiber = yield* running(deadlines)
      const entries = [50, 10, 30, 20, 40].map((at) => adding(deadlines, at, () => fired.push(at)))
      deadlines.remove(entries[2] as Due)
      yield* TestClock.adjust("9 millis")
      expect(fired).toEqual([])
      yield* TestClock.adjust("1 millis")
      expect(fired).toEqual([10])
      yield* TestClock.adjust("1 seconds")
      expect(fired).toEqual([10, 20, 40, 50])
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("are shortened by an earlier one that comes while the timer sleeps", () =>
    Effect.gen(function* () {
      const deadlines = new Deadlines()
      const fired: Array<string> = []
      const fiber = yield* running(deadlines)
      adding(deadlines, 1000, () => fired.push("late"))
      yield* TestClock.adjust("1 millis")
      adding(deadlines, 5, () => fired.push("early"))
      yield* TestClock.adjust("10 millis")
      expect(fired).toEqual(["early"])
      yield* Fiber.interrupt(fiber)
    })
  )

  it("occupy nothing once they are removed, in whatever order", () => {
    const action = fc.oneof(fc.record({ add: fc.nat(1000) }), fc.record({ remove: fc.nat(1000) }))
    fc.assert(
      fc.property(fc.array(action, { maxLength: 100 }), (actions) => {
        const deadlines = new Deadlines()
        const live: Array<Due> = []
        for (const step of actions) {
          if ("add" in step) live.push(adding(deadlines, step.add, () => undefined))
          else if (live.length > 0) {
            const [entry] = live.splice(step.remove % live.length, 1)
            deadlines.remove(entry as Due)
            deadlines.remove(entry as Due)
          }
          expect(deadlines.size).toBe(live.length)
          const earliest = live.find((entry) => entry.index === 0)
          expect(earliest?.at).toBe(
            live.length === 0 ? undefined : Math.min(...live.map((entry) => entry.at))
          )
        }
      })
    )
  })
})
