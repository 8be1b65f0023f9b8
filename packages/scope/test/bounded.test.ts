import { CancelReason, currentReason, isCancelled } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { exitOf, fiberCount, held, receiver, recorder, started } from "../../../test/support/recorder.ts"
import { runs } from "../../../test/support/seed.ts"
import {
  bounded,
  CancelScope,
  CleanupBudget,
  failAfter,
  Instant,
  OnUnhandled,
  stuck,
  TaskScope
} from "../src/index.ts"
import { takePosition } from "../src/internal/source.ts"

const reason = CancelReason.Superseded()

// The clock's own warning would end the first sleep inside an interrupted fiber.
const primed = TestClock.adjust(0)

describe("L16: it returns within the budget", () => {
  it.effect("L16, L18: with the result when the clean-up is shorter, with None when it is longer", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 0, max: 50 }),
          fc.integer({ min: 0, max: 50 }),
          fc.boolean(),
          (takes, within, masked) =>
            Effect.runPromise(
              Effect.gen(function* () {
                const start = yield* Instant.now
                const work = Effect.as(Effect.sleep(Duration.millis(takes)), "done")
                const fiber = yield* started(
                  Effect.all([bounded(masked ? Effect.uninterruptible(work) : work, { within }), Instant.now])
                )
                yield* TestClock.adjust(100)
                const [result, end] = yield* Fiber.join(fiber)
                expect(end - start).toBe(Math.min(takes, within))
                if (takes !== within) expect(Option.isSome(result)).toBe(takes < within)
                expect(yield* stuck).toEqual([])
              }).pipe(Effect.provide(TestClock.layer()))
            )
        ),
        runs(100)
      )
    )
  )

  it.effect("L16: a clean-up that does not end, masked or not, and a budget of nothing", () =>
    Effect.gen(function* () {
      for (const masked of [false, true])
        for (const within of [1000, 0, -1]) {
          const gate = yield* Deferred.make<void>()
          const hang = Deferred.await(gate)
          const fiber = yield* started(bounded(masked ? Effect.uninterruptible(hang) : hang, { within }))
          if (within > 0) {
            yield* TestClock.adjust("999 millis")
            expect(fiber.pollUnsafe()).toBeUndefined()
          }
          yield* TestClock.adjust("1 millis")
          expect(yield* Fiber.join(fiber)).toEqual(Option.none())
          expect(yield* stuck).toHaveLength(1)
          yield* Deferred.succeed(gate, undefined)
          expect(yield* stuck).toEqual([])
        }
    })
  )

  it.effect("L16: without a limit of its own it takes the budget of the place; infinity is no limit", () =>
    Effect.gen(function* () {
      const { gate, work } = held()
      const short = yield* started(
        bounded(work).pipe(Effect.provideService(CleanupBudget, Duration.seconds(3)))
      )
      const endless = yield* started(bounded(work, { within: Duration.infinity }))
      yield* TestClock.adjust("3 seconds")
      expect(yield* Fiber.join(short)).toEqual(Option.none())
      yield* TestClock.adjust("1000 days")
      expect(endless.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.join(endless)).toEqual(Option.some(undefined))
    })
  )
})

describe("L17: an overrun leaves one record", () => {
  it.effect(
    "L17: with name, reason, span, start and source, taken out when the clean-up ends after all",
    () =>
      Effect.gen(function* () {
        const { gate, work } = held()
        const given = yield* Deferred.make<CancelScope.CancelScope>()
        yield* TestClock.adjust("5 seconds")
        const fiber = yield* started(
          CancelScope.run((scope) =>
            Effect.andThen(
              Deferred.succeed(given, scope),
              Effect.onExit(Effect.never, () => Effect.asVoid(bounded(work, { name: "close the pool" })))
            )
          ).pipe(Effect.withSpan("request"))
        )
        yield* (yield* Deferred.await(given)).cancel(reason)
        yield* TestClock.adjust("10 seconds")
        expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason })
        const records = yield* stuck
        expect(records).toMatchObject([
          { kind: "finalizer", name: "close the pool", reason, span: "request", startedAt: 5000 }
        ])
        expect(records[0]?.source).toContain("bounded.test")
        yield* Deferred.succeed(gate, undefined)
        expect(yield* stuck).toEqual([])
      })
  )

  it.effect("L17: stands in the registry until its failure has been told", () =>
    Effect.gen(function* () {
      const { gate, work } = held<void, string>()
      const told = yield* Deferred.make<void>()
      const telling = Effect.provideService(bounded(work, { name: "pool", within: 1 }), OnUnhandled, () =>
        Deferred.await(told)
      )
      const fiber = yield* started(telling)
      yield* TestClock.adjust(1)
      yield* Fiber.join(fiber)
      yield* Deferred.fail(gate, "no")
      expect((yield* stuck).map(({ name }) => name)).toContain("pool")
      yield* Deferred.succeed(told, undefined)
      expect(yield* stuck).toEqual([])
    })
  )

  it.effect("L17: a failure after the budget is told once, a success not", () =>
    Effect.gen(function* () {
      for (const exit of [Exit.void, Exit.fail("no"), Exit.die("broken")]) {
        const { around, seen } = receiver()
        const { gate, work } = held<void, string>()
        const fiber = yield* started(around(bounded(work, { name: "pool", within: 1 })))
        yield* TestClock.adjust(1)
        expect(yield* Fiber.join(fiber)).toEqual(Option.none())
        yield* Deferred.done(gate, exit)
        if (Exit.isSuccess(exit)) expect(seen).toEqual([])
        else expect(seen).toMatchObject([{ origin: "cleanup", name: "pool", cause: exit.cause }])
        expect(yield* stuck).toEqual([])
      }
    })
  )

  it.effect("L17: two overruns leave two records, each taken out with its own end", () =>
    Effect.gen(function* () {
      const one = held()
      const two = held()
      const fiber = yield* started(
        Effect.all(
          [bounded(one.work, { name: "one", within: 1 }), bounded(two.work, { name: "two", within: 1 })],
          {
            concurrency: 2
          }
        )
      )
      yield* TestClock.adjust(1)
      yield* Fiber.join(fiber)
      expect((yield* stuck).map((record) => record.name)).toEqual(["one", "two"])
      yield* Deferred.succeed(one.gate, undefined)
      expect((yield* stuck).map((record) => record.name)).toEqual(["two"])
      yield* Deferred.succeed(two.gate, undefined)
      expect(yield* stuck).toEqual([])
    })
  )
})

describe("L18: within the budget it is the clean-up itself", () => {
  it.effect("L18: value, failure, defect and interrupt, at once or later, and no fiber is left", () =>
    Effect.gen(function* () {
      const { around, count } = fiberCount()
      for (const wait of [Effect.void, Effect.yieldNow]) {
        const ends = <A, E>(end: Effect.Effect<A, E>) => exitOf(around(bounded(Effect.andThen(wait, end))))
        expect(yield* ends(Effect.succeed(1))).toEqual(Exit.succeed(Option.some(1)))
        expect(yield* ends(Effect.fail("no"))).toEqual(Exit.fail("no"))
        expect(yield* ends(Effect.die("broken"))).toEqual(Exit.die("broken"))
        const interrupted = yield* ends(Effect.interrupt)
        expect(Exit.isFailure(interrupted) && Cause.hasInterruptsOnly(interrupted.cause)).toBe(true)
        expect(count.live).toBe(0)
      }
    })
  )

  it.effect("L18: work that throws before it is an effect is a defect", () =>
    Effect.gen(function* () {
      const exit = yield* exitOf(
        bounded(
          Effect.suspend((): Effect.Effect<void> => {
            throw new TypeError("thrown")
          })
        )
      )
      expect(Exit.isFailure(exit) && String(Cause.squash(exit.cause))).toContain("thrown")
    })
  )
})

describe("L19: the other finalizers of the scope run regardless", () => {
  for (const strategy of ["sequential", "parallel"] as const)
    it.effect(`L19: in a ${strategy} Scope`, () =>
      Effect.gen(function* () {
        yield* primed
        const { add, events } = recorder()
        const { gate, work } = held()
        const scope = yield* Scope.make(strategy)
        yield* Scope.addFinalizer(scope, add("first"))
        yield* Scope.addFinalizer(scope, Effect.asVoid(bounded(work, { within: "1 second" })))
        yield* Scope.addFinalizer(scope, add("last"))
        const closing = yield* started(Scope.close(scope, Exit.void))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(closing)
        expect([...events].sort()).toEqual(["first", "last"])
        yield* Deferred.succeed(gate, undefined)
      })
    )
})

describe("the quartet of bounded", () => {
  it.effect("cancelled before, during, after and twice: the clean-up runs to its end", () =>
    Effect.gen(function* () {
      const { add, events } = recorder()
      const { gate, work } = held()
      const fiber = yield* started(
        Effect.onExit(Effect.never, () =>
          Effect.gen(function* () {
            yield* bounded(add("before"))
            yield* bounded(Effect.andThen(Effect.asVoid(work), add("during")))
            yield* bounded(add("after"))
          })
        )
      )
      fiber.interruptUnsafe()
      fiber.interruptUnsafe()
      expect(events).toEqual(["before"])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.await(fiber)
      expect(events).toEqual(["before", "during", "after"])
    })
  )

  it.effect("outside a finalizer too, a clean-up that has begun is awaited", () =>
    Effect.gen(function* () {
      const { add, events } = recorder()
      const { gate, work } = held()
      const fiber = yield* started(bounded(Effect.andThen(work, add("done"))))
      fiber.interruptUnsafe()
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, undefined)
      expect((yield* Fiber.await(fiber))._tag).toBe("Failure")
      expect(events).toEqual(["done"])
    })
  )

  it.effect(
    "from its first operation on it runs, at whichever step its caller is held up and interrupted",
    () =>
      Effect.gen(function* () {
        const real = yield* Scheduler.Scheduler
        // The steps of the fiber that leads to it, and one after the other all of its own.
        for (let step = 2; ; step++) {
          let asked = 0
          const scheduler: Scheduler.Scheduler = {
            executionMode: real.executionMode,
            makeDispatcher: () => real.makeDispatcher(),
            shouldYield: () => ++asked === step
          }
          let ran = false
          const cleanup = Effect.sync(() => {
            ran = true
          })
          const fiber = yield* started(
            Effect.provideService(bounded(cleanup), Scheduler.Scheduler, scheduler)
          )
          if (asked < step) {
            expect(step).toBeGreaterThan(3)
            break
          }
          expect(fiber.pollUnsafe(), `${step}`).toBeUndefined()
          fiber.interruptUnsafe()
          expect(Exit.hasInterrupts(yield* Fiber.await(fiber)), `${step}`).toBe(true)
          expect(ran, `${step}`).toBe(true)
        }
      })
  )

  it.effect("scopes, limits and tasks of its own run inside the clean-up of a cancelled scope", () =>
    Effect.gen(function* () {
      const { add, events } = recorder()
      const work = Effect.gen(function* () {
        yield* CancelScope.run(() => add("scope"))
        yield* TaskScope.use((tasks: TaskScope.TaskScope<never>) => tasks.spawn(add("task")))
        yield* Effect.orDie(failAfter("1 second")(add("limit")))
      })
      yield* CancelScope.run((scope) =>
        Effect.onExit(Effect.andThen(scope.cancel(reason), Effect.never), () => Effect.asVoid(bounded(work)))
      )
      expect(events).toEqual(["scope", "task", "limit"])
    })
  )

  it.effect("the clean-up reads the reason, in a scope and after a native interrupt", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const work = Effect.onExit(Effect.never, () =>
        Effect.asVoid(bounded(Effect.map(Effect.all([currentReason, isCancelled]), (all) => seen.push(all))))
      )
      yield* CancelScope.run((scope) =>
        Effect.andThen(Effect.forkChild(Effect.andThen(Effect.yieldNow, scope.cancel(reason))), work)
      )
      yield* Fiber.interrupt(yield* started(work))
      expect(seen).toEqual([
        [Option.some(reason), true],
        [Option.some(CancelReason.Unknown()), true]
      ])
    })
  )
})

describe("the source position of stuck work", () => {
  const { captureStackTrace, stackTraceLimit } = Error
  const named = () => takePosition(named)

  it("is the caller's line, and costs the engine's limit nothing", () => {
    expect(named()()).toContain("bounded.test.ts")
    expect(Error.stackTraceLimit).toBe(stackTraceLimit)
  })

  it("is undefined on an engine that cannot say", () => {
    try {
      Object.assign(Error, { captureStackTrace: undefined })
      expect(named()()).toBeUndefined()
    } finally {
      Object.assign(Error, { captureStackTrace })
    }
  })
})
