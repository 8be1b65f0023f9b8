import { background } from "@curfew/scope"
import { type Report, Shutdown } from "@curfew/shutdown"
import { expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import { testSignals } from "./support/signals.ts"

const phases = (report: Report.Report): ReadonlyArray<string> =>
  report.phases.map((phase) => `${phase.phase} ${Duration.toMillis(phase.took)} ${phase.endedBy}`)

it.effect("L43: a signal that comes between two phases ends the second one", () =>
  Effect.gen(function* () {
    const release = yield* Deferred.make<void>()
    const hang = background("commit", Effect.uninterruptible(Deferred.await(release)))
    const signals = testSignals()
    let armed = false
    const run = Effect.withFiber((waiting) => {
      // Holds the shutdown up when it goes on after a phase, and sends the signal just then.
      const scheduler = new Scheduler.MixedScheduler()
      scheduler.shouldYield = (fiber) => {
        if (fiber !== waiting || !armed) return false
        armed = false
        signals.send()
        return true
      }
      return Effect.provideService(
        Shutdown.run(Effect.andThen(hang, Effect.never), {
          signals,
          drain: "10 seconds",
          force: "4 seconds"
        }),
        Scheduler.Scheduler,
        scheduler
      )
    })
    const fiber = yield* Effect.forkChild(run, { startImmediately: true })
    signals.send()
    yield* Effect.yieldNow
    armed = true
    yield* TestClock.adjust("10 seconds")
    expect(armed).toBe(false)
    yield* TestClock.adjust("4 seconds")
    const { report } = yield* Fiber.join(fiber)
    expect(phases(report)).toEqual(["stop 0 done", "drain 10000 limit", "force 0 signal"])
    yield* Deferred.succeed(release, undefined)
  })
)
