/** How long what belongs to a run lives: its timers, its turn, its place in the live tree. */
import { CancelReason } from "@curfew/reason"
import { CleanupBudget, inspect, OnUnhandled, stuck } from "@curfew/scope"
import { Shared, SharedCancelled } from "@curfew/singleflight"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import { fiberCount } from "../../../test/support/recorder.ts"
import { hearing } from "../../shield/test/support/unhandled.ts"
import { exitOf, Lab, observing, owner, primeTestClock, sharedIn } from "./support/lab.ts"

const bye = CancelReason.Requested({ message: "bye" })

const shared = Effect.map(inspect, ({ roots, stuck }) => ({
  // Without the clean-up of the test's own and the owner it hangs under.
  states: roots
    .flatMap((node) => [node, ...node.children])
    .filter(({ kind }) => kind === "shared")
    .map(({ state }) => state),
  stuck: stuck.length
}))

describe("the linger", () => {
  it.effect("L31: begins anew when the next observer leaves, whatever was left of the last one", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab, { whenUnobserved: { linger: "10 seconds" } })
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* TestClock.adjust("9 seconds")
      expect(lab.run(0).reason).toBeUndefined()
      yield* TestClock.adjust("1 second")
      expect(lab.run(0).reason).toEqual(CancelReason.Unobserved({ lingered: Duration.seconds(10) }))
    })
  )

  it.effect("L8: under keep there is none, and the timer of another ends with a cancelled start", () => {
    const { around, count } = fiberCount()
    return around(
      Effect.gen(function* () {
        yield* primeTestClock
        const lab = new Lab()
        const { shared } = yield* sharedIn(lab, { whenUnobserved: "keep" })
        const first = yield* observing(shared.get)
        const before = count.started
        yield* Fiber.interrupt(first)
        expect(count.started).toBe(before)
        lab.run(0).end(Effect.succeed("done"))

        // The second generation waits for the clean-up of the first, loses its observer, and is cancelled.
        const slow = new Lab(Effect.sleep("1 minute"))
        const { shared: lingering } = yield* sharedIn(slow, { whenUnobserved: { linger: "1 hour" } })
        const live = count.live
        yield* observing(lingering.get)
        yield* lingering.cancel(bye)
        yield* Fiber.interrupt(yield* observing(lingering.get))
        yield* lingering.cancel(bye)
        yield* TestClock.adjust("1 minute")
        expect(slow.run(0).ended).toBe(true)
        expect(count.live).toBe(live)
      })
    )
  })
})

describe("the turn", () => {
  it.effect("L32: of a start that was cancelled is taken by whoever comes next", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared } = yield* sharedIn(lab)
      yield* observing(shared.get)
      yield* shared.cancel(bye)
      const waiting = yield* observing(shared.get)
      expect(yield* shared.cancel(bye)).toBe(true)
      expect(exitOf(waiting)).toEqual(Exit.fail(new SharedCancelled({ name: "shared", reason: bye })))
      const next = yield* observing(shared.get)
      expect(lab.runs).toHaveLength(1)
      yield* TestClock.adjust("1 second")
      lab.run(1).end(Effect.succeed("done"))
      expect(exitOf(next)).toEqual(Exit.succeed("done"))
    })
  )

  it.effect("L32, L46: of one that nobody waits for when its owner has closed is given up", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { shared, tasks } = yield* sharedIn(lab, { whenUnobserved: "keep" })
      yield* observing(shared.get)
      yield* shared.cancel(bye)
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* tasks.close
      yield* TestClock.adjust("1 second")
      expect(lab.runs).toHaveLength(1)
      const next = yield* observing(shared.get)
      lab.run(1).end(Effect.succeed("done"))
      expect(exitOf(next)).toEqual(Exit.succeed("done"))
    })
  )
})

describe("an exit that is known", () => {
  it.effect("L33: is held although its last observer left while the run's children were still ending", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      let runs = 0
      const child = Effect.onExit(Effect.never, () => Deferred.await(gate))
      const work = Effect.suspend(() => {
        runs++
        return Effect.as(Effect.forkChild(child, { startImmediately: true }), "value")
      })
      const shared = yield* Shared.make(work, { owner: yield* owner, retain: () => "1 minute" })
      const observer = yield* observing(shared.get)
      expect(exitOf(observer)).toBeUndefined()
      yield* Fiber.interrupt(observer)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* shared.get).toBe("value")
      expect(runs).toBe(1)
    })
  )

  it.effect("L29: is given to an observer that looked before it was known and joins after", () =>
    Effect.gen(function* () {
      const cases = [3, 4, 5].flatMap((operations) =>
        Array.from({ length: 8 }, (_, turns) => ({ operations, turns }))
      )
      for (const { operations, turns } of cases) {
        const lab = new Lab()
        const { shared } = yield* sharedIn(lab, { retain: () => "1 minute" })
        const first = yield* observing(shared.get)
        // It yields after every few operations, so in one of the cases the exit comes between the two.
        const second = yield* observing(
          Effect.provideService(shared.get, Scheduler.MaxOpsBeforeYield, operations)
        )
        for (let i = 0; i < turns; i++) yield* Effect.yieldNow
        lab.run(0).end(Effect.succeed("value"))
        expect([yield* Fiber.join(first), yield* Fiber.join(second)]).toEqual(["value", "value"])
        expect(lab.runs).toHaveLength(1)
      }
    })
  )
})

describe("the live tree", () => {
  it.effect("L47: holds a run that is attached to its observer until it has ended", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared: work, tasks } = yield* sharedIn(lab)
      yield* tasks.close
      const observer = yield* observing(work.get)
      expect((yield* shared).states).toEqual(["running"])
      lab.run(0).end(Effect.succeed("done"))
      expect(exitOf(observer)).toEqual(Exit.succeed("done"))
      expect((yield* shared).states).toEqual([])
    })
  )

  it.effect(
    "L17, L47: shows an attached run as stuck once its clean-up has overrun, until it has ended",
    () =>
      Effect.gen(function* () {
        yield* primeTestClock
        const lab = new Lab(Effect.sleep("1 hour"))
        const { shared: work, tasks } = yield* sharedIn(lab).pipe(
          Effect.provideService(CleanupBudget, Duration.seconds(1)),
          Effect.provideService(OnUnhandled, () => Effect.void)
        )
        yield* tasks.close
        const host = yield* observing(work.get)
        host.interruptUnsafe()
        yield* TestClock.adjust("1 second")
        expect(yield* shared).toEqual({ states: ["stuck"], stuck: 1 })
        yield* TestClock.adjust("1 hour")
        expect(yield* shared).toEqual({ states: [], stuck: 0 })
      })
  )
})

describe("a clean-up that the owner ordered", () => {
  it.effect("L17: is the owner's to report, also when somebody cancels the run again or waits for it", () => {
    const heard = hearing()
    return heard.by(
      Effect.gen(function* () {
        yield* primeTestClock
        const lab = new Lab(Effect.sleep("1 hour"))
        const { shared, tasks } = yield* sharedIn(lab).pipe(
          Effect.provideService(CleanupBudget, Duration.seconds(1))
        )
        yield* observing(shared.get)
        const ending = yield* Effect.forkChild(
          Effect.provideService(tasks.cancel(bye), CleanupBudget, Duration.seconds(1)),
          { startImmediately: true }
        )
        expect(lab.run(0).reason).toEqual(bye)
        expect(yield* shared.cancel(bye)).toBe(false)
        const next = yield* observing(shared.get)
        yield* TestClock.adjust("1 second")
        // Its turn has come, and with a closed owner it is attached to its observer.
        lab.run(1).end(Effect.succeed("done"))
        expect(exitOf(next)).toEqual(Exit.succeed("done"))
        yield* Fiber.join(ending)
        expect(yield* stuck).toHaveLength(1)
        expect(heard.causes()).toEqual([])
        yield* TestClock.adjust("1 hour")
        expect(yield* stuck).toEqual([])
      })
    )
  })
})
