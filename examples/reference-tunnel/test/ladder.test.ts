import { CancelReason } from "@curfew/reason"
import { TaskScope } from "@curfew/scope"
import { describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { expect } from "vitest"
import { closingReason, shutDown } from "../src/process/ladder.ts"
import { Meter } from "../src/process/Meter.ts"
import { Process } from "../src/process/Process.ts"
import { Stop } from "../src/process/Stop.ts"

/** Runs a shutdown in a process that says nothing, with the presses of Ctrl-C at hand. */
const shuttingDown = (calls: TaskScope.TaskScope, done: Array<string>) => {
  const stop = new Stop()
  const work = shutDown({
    calls,
    refuse: Effect.sync(() => done.push("refuse")),
    force: Effect.sync(() => done.push("force"))
  }).pipe(
    Effect.provideService(Process, {
      meter: new Meter(),
      stop,
      supervised: false,
      say: () => undefined,
      now: () => 0,
      signal: () => undefined,
      awaitSignal: () => Effect.never,
      ready: () => Effect.void,
      stopped: () => Effect.void
    })
  )
  return Effect.map(Effect.forkChild(work, { startImmediately: true }), (fiber) => ({
    stop,
    report: Fiber.join(fiber)
  }))
}

describe("a shutdown in stages", () => {
  it.effect("needs only the first two when every call ends by itself", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const done: Array<string> = []
        const answer = yield* Deferred.make<void>()
        const calls = yield* TaskScope.make()
        yield* calls.spawn(Deferred.await(answer))
        const { report } = yield* shuttingDown(calls, done)
        yield* Deferred.succeed(answer, undefined)
        expect(yield* report).toMatchObject({ drained: 1, cancelled: 0, abandoned: 0 })
        expect(done).toEqual(["refuse"])
      })
    )
  )

  it.effect("cuts nothing when cancelling was enough, so that the last answers leave", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const done: Array<string> = []
        const calls = yield* TaskScope.make()
        yield* calls.spawn(Effect.never)
        const { report } = yield* shuttingDown(calls, done)
        yield* TestClock.adjust("5 seconds")
        const told = yield* report
        expect(told).toMatchObject({ drained: 0, cancelled: 1, abandoned: 0 })
        expect(done).toEqual(["refuse"])
        expect(closingReason(told)).toEqual(CancelReason.Shutdown({ phase: "drain" }))
        expect(closingReason({ ...told, abandoned: 1 })).toEqual(CancelReason.Shutdown({ phase: "force" }))
      })
    )
  )

  it.effect("cancels what has not ended in time, and leaves to force what does not end even then", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const done: Array<string> = []
        const release = yield* Deferred.make<void>()
        const calls = yield* TaskScope.make()
        yield* calls.spawn(Effect.never)
        yield* calls.spawn(Effect.uninterruptible(Deferred.await(release)))
        const { report } = yield* shuttingDown(calls, done)
        yield* TestClock.adjust("5 seconds")
        yield* TestClock.adjust("3 seconds")
        expect(yield* report).toMatchObject({ drained: 0, cancelled: 1, abandoned: 1 })
        expect(done).toEqual(["refuse", "force"])
        yield* Deferred.succeed(release, undefined)
      })
    )
  )

  it.effect("goes on to the next stage at each further Ctrl-C", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const done: Array<string> = []
        const release = yield* Deferred.make<void>()
        const calls = yield* TaskScope.make()
        yield* calls.spawn(Effect.uninterruptible(Deferred.await(release)))
        const { report, stop } = yield* shuttingDown(calls, done)
        stop.press()
        yield* Effect.yieldNow
        yield* Effect.yieldNow
        stop.press()
        // What was skipped goes on, within its budget; it belongs to the fiber that shuts down.
        yield* TestClock.adjust("2 seconds")
        const { stages } = yield* report
        expect(stages.map(({ name, outcome }) => `${name}: ${outcome}`)).toEqual([
          "stop accepting: done",
          "drain: skipped by a second Ctrl-C",
          "cancel: skipped by a second Ctrl-C",
          "force: done"
        ])
        yield* Deferred.succeed(release, undefined)
      })
    )
  )
})
