import { CancelReason, currentReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import { TestClock } from "effect/testing"
import { fiberCount, held, receiver, recorder, started } from "../../../test/support/recorder.ts"
import { CancelScope, DeadlineExceeded, failAfter, moveOnAfter, stuck } from "../src/index.ts"

const reason = CancelReason.Superseded()

/** Both limits over the same work, told in the same words: "in time", "late", or the work's own error. */
const limits = {
  failAfter: <A, E>(
    duration: Duration.Input,
    work: Effect.Effect<A, E>,
    options?: Parameters<typeof failAfter<A, E>>[1]
  ) =>
    Effect.catch(
      Effect.map(failAfter<A, E>(duration, options)(work), (value) => `in time: ${value}`),
      (error) => Effect.succeed(error instanceof DeadlineExceeded ? "late" : `failed: ${error}`)
    ),
  moveOnAfter: <A, E>(
    duration: Duration.Input,
    work: Effect.Effect<A, E>,
    options?: Parameters<typeof moveOnAfter<A, E>>[1]
  ) =>
    Effect.catch(
      Effect.map(moveOnAfter<A, E>(duration, options)(work), (value) =>
        Option.isSome(value) ? `in time: ${value.value}` : "late"
      ),
      (error) => Effect.succeed(`failed: ${error}`)
    )
}

for (const [name, limit] of Object.entries(limits)) {
  describe(`${name}`, () => {
    it.effect("gives the work's value, failure and defect in time, and the time-out after it", () =>
      Effect.gen(function* () {
        expect(yield* limit("1 second", Effect.succeed(1))).toBe("in time: 1")
        expect(yield* limit("1 second", Effect.fail("no"))).toBe("failed: no")
        expect(
          Cause.squash((yield* Effect.flip(Effect.sandbox(limit("1 second", Effect.die("broken"))))) as never)
        ).toBe("broken")
        const slow = yield* started(limit("1 second", Effect.never))
        yield* TestClock.adjust("999 millis")
        expect(slow.pollUnsafe()).toBeUndefined()
        yield* TestClock.adjust("1 millis")
        expect(yield* Fiber.join(slow)).toBe("late")
      })
    )

    it.effect("L5: a duration of zero or less does not start the work", () =>
      Effect.gen(function* () {
        const { add, events } = recorder()
        for (const duration of [0, -1, "-1 hour" as const, Duration.negativeInfinity])
          expect(yield* limit(duration, add("ran"))).toBe("late")
        expect(events).toEqual([])
      })
    )

    it.effect("L42: infinity costs no fiber and no timer, a finite limit two", () =>
      Effect.gen(function* () {
        const { around, count } = fiberCount()
        yield* around(limit(Duration.infinity, Effect.yieldNow))
        expect(count.started).toBe(0)
        yield* around(limit("1 hour", Effect.yieldNow))
        expect(count.started).toBeGreaterThanOrEqual(2)
        expect(count.live).toBe(0)
      })
    )

    it.effect("L8: no timer is left when the work ends first, fails or is cancelled", () =>
      Effect.gen(function* () {
        const { around, count } = fiberCount()
        yield* around(limit("1 hour", Effect.void))
        yield* around(limit("1 hour", Effect.fail("no")))
        const fiber = yield* started(around(limit("1 hour", Effect.never)))
        expect(count.live).toBeGreaterThan(0)
        yield* Fiber.interrupt(fiber)
        expect(count.live).toBe(0)
      })
    )

    it.effect("L42: a late success, failure or defect goes to onLate, once, before the caller goes on", () =>
      Effect.gen(function* () {
        for (const exit of [Exit.succeed("value"), Exit.fail("no"), Exit.die("broken")]) {
          const { add, events } = recorder()
          const late: Array<unknown> = []
          const gate = yield* Deferred.make<string, string>()
          const fiber = yield* started(
            Effect.tap(
              limit("1 second", Effect.uninterruptible(Deferred.await(gate)), {
                onLate: (given) =>
                  Effect.andThen(
                    Effect.sync(() => late.push(given)),
                    add("received")
                  )
              }),
              add
            )
          )
          yield* TestClock.adjust("2 seconds")
          expect(fiber.pollUnsafe()).toBeUndefined()
          yield* Deferred.done(gate, exit)
          expect(yield* Fiber.join(fiber)).toBe("late")
          expect(late).toEqual([exit])
          expect(events).toEqual(["received", "late"])
        }
      })
    )

    it.effect("L42: a failing clean-up after the deadline is a late result too", () =>
      Effect.gen(function* () {
        const late: Array<unknown> = []
        const work = Effect.onExit(Effect.never, () => Effect.fail("clean-up"))
        const fiber = yield* started(
          limit("1 second", work, { onLate: (exit) => Effect.sync(() => late.push(exit)) })
        )
        yield* TestClock.adjust("1 second")
        expect(yield* Fiber.join(fiber)).toBe("late")
        expect(late).toEqual([Exit.fail("clean-up")])
        const told = yield* started(limit("1 second", work))
        yield* TestClock.adjust("1 second")
        expect(yield* Fiber.join(told)).toBe("failed: clean-up")
      })
    )

    it.effect("L42: work that only ends by its deadline leaves nothing to receive", () =>
      Effect.gen(function* () {
        const late: Array<unknown> = []
        const onLate = (exit: unknown) => Effect.sync(() => late.push(exit))
        const fiber = yield* started(limit("1 second", Effect.never, { onLate }))
        yield* TestClock.adjust("1 second")
        expect(yield* Fiber.join(fiber)).toBe("late")
        expect(yield* limit("1 second", Effect.succeed(1), { onLate })).toBe("in time: 1")
        expect(late).toEqual([])
      })
    )

    it.effect(
      "L42: a caller that is interrupted after its deadline still hands the late result over, once",
      () =>
        Effect.gen(function* () {
          const late: Array<unknown> = []
          const gate = yield* Deferred.make<string>()
          const fiber = yield* started(
            limit("1 second", Effect.uninterruptible(Deferred.await(gate)), {
              onLate: (exit) => Effect.sync(() => late.push(exit))
            })
          )
          yield* TestClock.adjust("2 seconds")
          fiber.interruptUnsafe()
          yield* Deferred.succeed(gate, "value")
          const exit = yield* Fiber.await(fiber)
          expect(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
          expect(late).toEqual([Exit.succeed("value")])
        })
    )

    it.effect("L42: a caller that is cancelled before its deadline has no late result", () =>
      Effect.gen(function* () {
        const late: Array<unknown> = []
        const gate = yield* Deferred.make<string>()
        const fiber = yield* started(
          limit("1 second", Effect.uninterruptible(Deferred.await(gate)), {
            onLate: (exit) => Effect.sync(() => late.push(exit))
          })
        )
        fiber.interruptUnsafe()
        yield* TestClock.adjust("2 seconds")
        yield* Deferred.succeed(gate, "value")
        expect((yield* Fiber.await(fiber))._tag).toBe("Failure")
        expect(late).toEqual([])
      })
    )

    it.effect("L42: a foreign interrupt that comes in after the deadline is a late result", () =>
      Effect.gen(function* () {
        const late: Array<Exit.Exit<unknown, unknown>> = []
        const elsewhere = yield* started(Effect.never)
        const fiber = yield* started(
          limit("1 second", Effect.uninterruptible(Fiber.join(elsewhere)), {
            onLate: (exit) => Effect.sync(() => late.push(exit))
          })
        )
        yield* TestClock.adjust("1 second")
        yield* Fiber.interrupt(elsewhere)
        expect(yield* Fiber.join(fiber)).toBe("late")
        expect(late.map((exit) => Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))).toEqual([
          true
        ])
      })
    )

    it.effect("L42: after the mask of late work nothing else of it runs", () =>
      Effect.gen(function* () {
        const { add, events } = recorder()
        const late: Array<unknown> = []
        const gate = yield* Deferred.make<string>()
        const work = Effect.andThen(Effect.uninterruptible(Deferred.await(gate)), add("ran on"))
        const fiber = yield* started(
          limit("1 second", work, { onLate: (exit) => Effect.sync(() => late.push(exit)) })
        )
        yield* TestClock.adjust("1 second")
        yield* Deferred.succeed(gate, "value")
        expect(yield* Fiber.join(fiber)).toBe("late")
        expect(events).toEqual([])
        expect(late).toEqual([])
      })
    )

    it.effect("L42: late work is interrupted once, after its mask", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        let interrupts = 0
        const work = Effect.onExit(
          Effect.andThen(Effect.uninterruptible(Deferred.await(gate)), Effect.never),
          (exit) =>
            Effect.sync(() => {
              if (Exit.isFailure(exit)) interrupts += exit.cause.reasons.length
            })
        )
        const fiber = yield* started(limit("1 second", work, { onLate: () => Effect.void }))
        yield* TestClock.adjust("1 second")
        yield* Deferred.succeed(gate, undefined)
        expect(yield* Fiber.join(fiber)).toBe("late")
        expect(interrupts).toBe(1)
      })
    )

    it.effect("L42: late work ends after its mask also where no scheduler is asked", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const work = Effect.andThen(Effect.uninterruptible(Deferred.await(gate)), Effect.never)
        const fiber = yield* started(
          Effect.provideService(
            limit("1 second", work, { onLate: () => Effect.void }),
            Scheduler.PreventSchedulerYield,
            true
          )
        )
        yield* TestClock.adjust("1 second")
        yield* Deferred.succeed(gate, undefined)
        yield* Effect.yieldNow
        expect(fiber.pollUnsafe()).toEqual(Exit.succeed("late"))
      })
    )

    it.effect("L42: a receiver that fails is reported, and the caller gets its time-out", () =>
      Effect.gen(function* () {
        const { around, seen } = receiver()
        const gate = yield* Deferred.make<string>()
        const fiber = yield* started(
          around(
            limit("1 second", Effect.uninterruptible(Deferred.await(gate)), {
              name: "lookup",
              onLate: () => Effect.die("broken")
            })
          )
        )
        yield* TestClock.adjust("1 second")
        yield* Deferred.succeed(gate, "value")
        expect(yield* Fiber.join(fiber)).toBe("late")
        expect(seen).toMatchObject([{ origin: "late result", name: "lookup" }])
      })
    )

    it.effect(
      "L42: a late failure that was received is not the caller's as well when that is cancelled",
      () =>
        Effect.gen(function* () {
          const late = yield* Deferred.make<string, string>()
          const { gate, work } = held()
          const seen: Array<unknown> = []
          const fiber = yield* started(
            limit("1 second", Effect.uninterruptible(Deferred.await(late)), {
              onLate: (exit) =>
                Effect.andThen(
                  work,
                  Effect.sync(() => seen.push(exit))
                )
            })
          )
          yield* TestClock.adjust("1 second")
          yield* Deferred.fail(late, "no")
          fiber.interruptUnsafe()
          yield* Deferred.succeed(gate, undefined)
          const exit = yield* Fiber.await(fiber)
          expect(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
          expect(seen).toMatchObject([Exit.fail("no")])
        })
    )

    it.effect("L42: the failure of a receiver is reported, too, when the caller is cancelled meanwhile", () =>
      Effect.gen(function* () {
        const { around, seen } = receiver()
        const value = yield* Deferred.make<string>()
        const gate = yield* Deferred.make<void>()
        const fiber = yield* started(
          around(
            limit("1 second", Effect.uninterruptible(Deferred.await(value)), {
              onLate: () => Effect.andThen(Deferred.await(gate), Effect.die("broken"))
            })
          )
        )
        yield* TestClock.adjust("1 second")
        yield* Deferred.succeed(value, "value")
        fiber.interruptUnsafe()
        yield* Deferred.succeed(gate, undefined)
        expect(Exit.hasInterrupts(yield* Fiber.await(fiber))).toBe(true)
        expect(seen).toMatchObject([{ origin: "late result", cause: Cause.die("broken") }])
      })
    )

    it.effect(
      "L4, L42: what came in time is the caller's and not late, although children still clean up at the deadline",
      () =>
        Effect.gen(function* () {
          for (const [end, told] of [
            [Effect.succeed("value"), "in time: value"],
            [Effect.fail("no"), "failed: no"]
          ] as const) {
            const late: Array<unknown> = []
            const { gate, work } = held()
            const fiber = yield* started(
              limit("1 second", Effect.andThen(started(Effect.ensuring(Effect.never, work)), end), {
                onLate: (exit) => Effect.sync(() => late.push(exit))
              })
            )
            yield* TestClock.adjust("2 seconds")
            yield* Deferred.succeed(gate, undefined)
            expect(yield* Fiber.join(fiber)).toBe(told)
            expect(late).toEqual([])
          }
        })
    )

    it.effect("L42: a caller that is interrupted after a value that came in time has no late result", () =>
      Effect.gen(function* () {
        const late: Array<unknown> = []
        const { gate, work } = held()
        const fiber = yield* started(
          limit("1 second", Effect.as(started(Effect.ensuring(Effect.never, work)), "value"), {
            onLate: (exit) => Effect.sync(() => late.push(exit))
          })
        )
        yield* TestClock.adjust("2 seconds")
        fiber.interruptUnsafe()
        yield* Deferred.succeed(gate, undefined)
        expect((yield* Fiber.await(fiber))._tag).toBe("Failure")
        expect(late).toEqual([])
      })
    )

    it.effect("L17: a receiver that gets stuck is recorded with the line that gave it", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<string>()
        const never = held()
        const fiber = yield* started(
          limit("1 second", Effect.uninterruptible(Deferred.await(gate)), { onLate: () => never.work })
        )
        yield* TestClock.adjust("2 seconds")
        yield* Deferred.succeed(gate, "value")
        yield* TestClock.adjust("10 seconds")
        expect(yield* Fiber.join(fiber)).toBe("late")
        expect(
          (yield* stuck).map(({ name, source }) => [name, source?.includes("timeLimit.test.ts")])
        ).toEqual([["onLate", true]])
        yield* Deferred.succeed(never.gate, undefined)
        expect(yield* stuck).toEqual([])
      })
    )

    it.effect("an outer cancel passes through and the work reads its reason", () =>
      Effect.gen(function* () {
        const seen: Array<unknown> = []
        const given = yield* Deferred.make<CancelScope.CancelScope>()
        const fiber = yield* started(
          CancelScope.run((scope) =>
            Effect.andThen(
              Deferred.succeed(given, scope),
              limit(
                "1 hour",
                Effect.onExit(Effect.never, () => Effect.map(currentReason, (why) => seen.push(why)))
              )
            )
          )
        )
        const scope = yield* Deferred.await(given)
        yield* scope.cancel(reason)
        yield* scope.cancel(reason)
        expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason })
        expect(seen).toEqual([Option.some(reason)])
      })
    )
  })
}

describe("DeadlineExceeded", () => {
  it.effect("says its name and date, and has a sentence for an instant without a date", () =>
    Effect.gen(function* () {
      const named = yield* Effect.flip(failAfter(0, { name: "lookup" })(Effect.void))
      expect(named.message).toBe("The deadline of lookup has passed (1970-01-01T00:00:00.000Z).")
      const infinite = yield* Effect.flip(failAfter(Duration.negativeInfinity)(Effect.void))
      expect(infinite.message).toBe("The deadline has passed.")
    })
  )
})
