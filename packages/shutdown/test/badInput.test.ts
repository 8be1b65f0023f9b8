import { background, inspect, OnUnhandled, stuck, type Unhandled } from "@curfew/scope"
import { Report, Shutdown, type Signals } from "@curfew/shutdown"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import {
  broken,
  complaintOf,
  defectOf,
  endlessDurations,
  noDurations,
  overDurations,
  throwing,
  thrown
} from "../../../test/support/badInput.ts"
import { runs } from "../../../test/support/seed.ts"
import { testSignals } from "./support/signals.ts"

const forked = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

describe("a time of the shutdown", () => {
  for (const [what, duration] of noDurations) {
    // Null is the default of nothing here, but no duration either.
    for (const option of ["drain", "force", "signalWindow"] as const) {
      it.effect(`${option}: ${what} is an IllegalArgument, and the program does not start`, () =>
        Effect.gen(function* () {
          let started = 0
          const before = (yield* inspect).roots.length
          const signals = testSignals()
          const run = Shutdown.run(
            Effect.sync(() => ++started),
            { [option]: duration, signals }
          )
          expect(complaintOf(yield* Effect.exit(run))).toContain(`The ${option} of the shutdown is `)
          expect(started).toBe(0)
          expect(signals.count()).toBe(0)
          expect((yield* inspect).roots.length).toBe(before)
        })
      )
    }
  }

  for (const [what, over] of overDurations) {
    it.effect(
      `of ${what} is over at once: what hangs is abandoned in the same instant, each signal counts`,
      () =>
        Effect.gen(function* () {
          const gate = yield* Deferred.make<void>()
          const signals = testSignals()
          const main = Effect.uninterruptible(Deferred.await(gate))
          const fiber = yield* forked(
            Shutdown.run(main, { drain: over, force: over, signalWindow: over, signals })
          )
          signals.send()
          yield* TestClock.adjust(0)
          const { report } = yield* Fiber.join(fiber)
          expect(Duration.toMillis(report.took)).toBe(0)
          expect(report.items.map(({ fate, name }) => `${name}: ${fate}`)).toEqual(["main: abandoned"])
          yield* Deferred.succeed(gate, undefined)
          yield* Effect.yieldNow
          expect(yield* stuck).toEqual([])
        })
    )
  }

  for (const [what, endless] of endlessDurations) {
    it.effect(`of ${what} waits until a signal moves on`, () =>
      Effect.gen(function* () {
        const signals = testSignals()
        const main = Effect.andThen(background("slow", Effect.never), Effect.never)
        const fiber = yield* forked(Shutdown.run(main, { drain: endless, force: endless, signals }))
        signals.send()
        yield* TestClock.adjust("1000 days")
        expect(fiber.pollUnsafe()).toBeUndefined()
        signals.send()
        const { report } = yield* Fiber.join(fiber)
        expect(report.phases.map(({ endedBy }) => endedBy)).toEqual(["done", "signal", "done"])
      })
    )
  }
})

describe("callbacks that throw", () => {
  it.effect("subscribe: a defect; the program does not start and nothing is left in the tree", () =>
    Effect.gen(function* () {
      const before = (yield* inspect).roots.length
      let started = 0
      const exit = yield* Effect.exit(
        Shutdown.run(
          Effect.sync(() => ++started),
          { signals: { subscribe: throwing } }
        )
      )
      expect(defectOf(exit)).toBe(thrown)
      expect(started).toBe(0)
      expect((yield* inspect).roots.length).toBe(before)
    })
  )

  it.effect(
    "onReport, the removal of the signals, a hook: told once each; the report is given all the same",
    () =>
      Effect.gen(function* () {
        const heard: Array<Unhandled> = []
        const signals: Signals = { subscribe: () => throwing }
        const main = Effect.scoped(
          Effect.gen(function* () {
            yield* Shutdown.onStop("hook", Effect.sync(throwing))
            yield* Shutdown.begin
            return yield* Effect.never
          })
        )
        const { report } = yield* Shutdown.run(main, { signals, onReport: throwing }).pipe(
          Effect.provideService(OnUnhandled, (unhandled) => Effect.sync(() => heard.push(unhandled)))
        )
        expect(report.items.map(({ failed, name }) => [name, failed])).toContainEqual(["hook", true])
        expect(heard.map(({ cause, name }) => [name, Cause.squash(cause)])).toEqual([
          ["hook", thrown],
          ["the removal of the signals", thrown],
          ["onReport", thrown]
        ])
        const trouble: Array<string> = []
        const unsubscribed: Signals = { subscribe: () => () => trouble.push("removed") }
        yield* Shutdown.run(Effect.void, { signals: unsubscribed })
        expect(trouble).toEqual(["removed"])
      })
  )

  it.effect("the program itself: its exit says so, and the shutdown goes through its stages", () =>
    Effect.gen(function* () {
      const { exit, report } = yield* Shutdown.run(Effect.suspend(broken))
      expect(exit._tag === "Some" && defectOf(exit.value)).toBe(thrown)
      expect(report.trigger._tag).toBe("MainEnded")
    })
  )
})

describe("signals", () => {
  const run = (options?: Shutdown.ShutdownOptions) =>
    Effect.gen(function* () {
      const signals = testSignals()
      const main = Effect.andThen(background("slow", Effect.never), Effect.never)
      const fiber = yield* forked(
        Shutdown.run(main, { drain: "10 seconds", force: "4 seconds", signals, ...options })
      )
      return { fiber, signals }
    })

  it.effect("L43: of one name within the window are one, delivered twice, and do not move on", () =>
    Effect.gen(function* () {
      const { fiber, signals } = yield* run()
      signals.send("SIGINT")
      signals.send("SIGINT")
      yield* TestClock.adjust("99 millis")
      signals.send("SIGINT")
      yield* TestClock.adjust("1 seconds")
      expect(fiber.pollUnsafe()).toBeUndefined()
      signals.send("SIGINT")
      const { report } = yield* Fiber.join(fiber)
      expect(
        report.phases.map(({ endedBy, phase, took }) => `${phase} ${Duration.toMillis(took)} ${endedBy}`)
      ).toEqual(["stop 0 done", "drain 1099 signal", "force 0 done"])
    })
  )

  it.effect("L43: a key that is held down moves on once a window, because the window does not slide", () =>
    Effect.gen(function* () {
      const { fiber, signals } = yield* run()
      let at = 0
      while (fiber.pollUnsafe() === undefined && at < 1_000) {
        signals.send("SIGINT")
        yield* TestClock.adjust("30 millis")
        at += 30
      }
      // At 0 it begins; 30, 60 and 90 are the same signal; the one at 120 moves on, and then all has ended.
      expect(at).toBe(150)
    })
  )

  it.effect("L43: of two names, or with a window of zero, each counts", () =>
    Effect.gen(function* () {
      for (const [names, options] of [
        [["SIGINT", "SIGTERM"], {}],
        [["SIGINT", "SIGINT"], { signalWindow: 0 }]
      ] as const) {
        const { fiber, signals } = yield* run(options)
        for (const name of names) signals.send(name)
        const { report } = yield* Fiber.join(fiber)
        expect(report.phases.map(({ endedBy }) => endedBy)).toContain("signal")
      }
    })
  )

  it("L43: how many moved on is what the model says, whenever which signals come", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 250 }), fc.constantFrom("SIGINT", "SIGTERM")), {
          minLength: 1,
          maxLength: 8
        }),
        fc.constantFrom(0, 50, 100),
        (steps, signalWindow) =>
          Effect.runPromise(
            Effect.gen(function* () {
              const gate = yield* Deferred.make<void>()
              const signals = testSignals()
              const hang = Effect.uninterruptible(Deferred.await(gate))
              const main = Effect.scoped(Effect.andThen(Shutdown.onStop("hook", hang), hang))
              const fiber = yield* forked(
                Shutdown.run(main, { drain: "1 hour", force: "1 hour", signalWindow, signals })
              )
              // The model: a signal counts unless one of its name counted less than a window ago.
              const last = new Map<string, number>()
              let now = 0
              let counted = 0
              for (const [after, name] of steps) {
                yield* TestClock.adjust(after)
                now += after
                const before = last.get(name)
                if (before === undefined || now - before >= signalWindow) {
                  last.set(name, now)
                  counted++
                }
                signals.send(name)
              }
              yield* TestClock.adjust(0)
              // The first begins; the next two move on, from the hook that hangs and from the force.
              expect(fiber.pollUnsafe() !== undefined).toBe(counted >= 3)
              yield* Deferred.succeed(gate, undefined)
              yield* TestClock.adjust("1 hour")
              yield* TestClock.adjust("1 hour")
              const { report } = yield* Fiber.join(fiber)
              expect(report.phases.filter(({ endedBy }) => endedBy === "signal")).toHaveLength(
                Math.min(2, counted - 1)
              )
            }).pipe(Effect.provide(TestClock.layer()), Effect.scoped)
          )
      ),
      runs(100)
    ))
})

describe("tasks that begin during the drain", () => {
  it.effect(
    "L43: stand in the report: those that ended by themselves by name and number, the others one by one",
    () =>
      Effect.gen(function* () {
        const signals = testSignals()
        const health = background("GET /health", Effect.sleep("100 millis"))
        const main = Effect.gen(function* () {
          yield* background(
            "POST /orders",
            Effect.gen(function* () {
              for (let i = 0; i < 3; i++) {
                yield* Effect.sleep("1 second")
                yield* health
              }
              yield* background("at once", Effect.void)
              yield* Effect.ignoreCause(
                Effect.flatMap(background("broken", Effect.fail("no")), (task) => task.join)
              )
              yield* background("GET /feed", Effect.never)
            })
          )
          return yield* Effect.never
        })
        const fiber = yield* forked(
          Shutdown.run(main, { drain: "10 seconds", force: "4 seconds", signals }).pipe(
            Effect.provideService(OnUnhandled, () => Effect.void)
          )
        )
        signals.send()
        yield* TestClock.adjust("10 seconds")
        yield* TestClock.adjust("4 seconds")
        const { report } = yield* Fiber.join(fiber)
        expect(
          report.items.map(
            ({ count, failed, fate, name, took }) =>
              `${name} ×${count}: ${fate}${failed ? ", failed" : ""} ${Duration.toMillis(took)}`
          )
        ).toEqual([
          "main ×1: cancelled 10000",
          "GET /feed ×1: cancelled 7000",
          "POST /orders ×1: drained 3000",
          "GET /health ×3: drained 100",
          "at once ×1: drained 0",
          "broken ×1: drained, failed 0"
        ])
        expect(Report.toText(report).split("\n")[0]).toBe(
          "Shutdown after SIGTERM in 10.0 s: 6 drained, 2 cancelled, 0 abandoned"
        )
        expect(Report.toText(report)).toContain("  drained     0.1 s  GET /health ×3  task\n")
      })
  )
})

describe("a report", () => {
  const item = (name: string): Report.ReportItem => ({
    name,
    kind: "task",
    fate: "drained",
    took: Duration.millis(5),
    failed: false,
    count: 1
  })

  it("is as many lines as it has entries, whatever is in the names", () =>
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.string({ unit: "binary" }),
            fc.constantFrom("", "a\nb", "\u2028", "12 s", "x".repeat(5_000))
          ),
          { minLength: 1, maxLength: 6 }
        ),
        fc.string({ unit: "binary", maxLength: 20 }),
        (names, signal) => {
          const text = Report.toText({
            trigger: { _tag: "Signal", signal },
            startedAt: 0,
            took: Duration.zero,
            phases: [],
            items: names.map(item)
          })
          const lines = text.split(/[\r\n\u0085\u2028\u2029]/)
          expect(lines.length).toBe(names.length + 2)
          expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(400)
        }
      )
    ))

  it("of two hundred thousand items is made in time that grows with their number", () => {
    const items = Array.from({ length: 200_000 }, (_, i) => item(`task ${i}`))
    const text = Report.toText({
      trigger: { _tag: "Requested" },
      startedAt: 0,
      took: Duration.zero,
      phases: [],
      items
    })
    expect(text.split("\n")).toHaveLength(200_002)
  })
})

describe("a shutdown inside what is over", () => {
  it.effect("of a program that interrupts itself ends with its exit", () =>
    Effect.gen(function* () {
      const { exit } = yield* Shutdown.run(Effect.interrupt)
      expect(exit._tag === "Some" && Exit.hasInterrupts(exit.value)).toBe(true)
    })
  )
})
