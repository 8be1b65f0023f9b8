import { currentReason, fromCause } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import { type Caller, CurrentCaller } from "@curfew/scope/Caller"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import { fiberCount } from "../../../test/support/recorder.ts"
import { delayCancellation } from "../src/index.ts"
import {
  cancellable,
  cancellingItself,
  causeOf,
  forked,
  hows,
  isPureInterrupt,
  reasonOf,
  requested
} from "./support/cancelling.ts"
import { hearing } from "./support/unhandled.ts"

describe.each(hows)("delayCancellation under a %s cancel", (how) => {
  it.effect(
    "L11: the waiter returns only after the work settled, with a pure interrupt; onLate got the exit",
    () =>
      Effect.gen(function* () {
        for (const end of [
          Effect.succeed("value"),
          Effect.fail("failure"),
          Effect.die("defect"),
          Effect.interrupt
        ]) {
          const gate = yield* Deferred.make<void>()
          const log: Array<unknown> = []
          const running = yield* cancellable(
            how,
            Effect.onExit(
              delayCancellation(Effect.andThen(Deferred.await(gate), end), {
                onLate: (exit) =>
                  Effect.andThen(
                    Effect.yieldNow,
                    Effect.sync(() => log.push(exit))
                  )
              }),
              () => Effect.sync(() => log.push("returned"))
            )
          )
          yield* running.cancel
          yield* Effect.yieldNow
          expect(running.ended()).toBe(false)
          yield* Deferred.succeed(gate, undefined)
          expect(isPureInterrupt(yield* running.exit)).toBe(true)
          const real = log[0] as Exit.Exit<string, string>
          if (end === Effect.interrupt) expect(isPureInterrupt(real)).toBe(true)
          else expect(real).toEqual(yield* Effect.exit(end))
          expect(log.slice(1)).toEqual(["returned"])
        }
      })
  )

  it.effect("L11: a second cancel changes nothing, not even while onLate runs", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<string>()
      const receiving = yield* Deferred.make<void>()
      let received = 0
      const running = yield* cancellable(
        how,
        delayCancellation(Deferred.await(gate), {
          onLate: () =>
            Effect.andThen(
              Deferred.await(receiving),
              Effect.sync(() => {
                received++
              })
            )
        })
      )
      yield* running.cancel
      yield* running.cancel
      yield* Deferred.succeed(gate, "value")
      yield* running.cancel
      yield* Effect.yieldNow
      expect(running.ended()).toBe(false)
      yield* Deferred.succeed(receiving, undefined)
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(received).toBe(1)
    })
  )

  it.effect("L11: without onLate, a late failure does not make the exit less of a pure interrupt", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<never, string>()
      const running = yield* cancellable(
        how,
        Effect.catch(delayCancellation(Deferred.await(gate)), Effect.succeed)
      )
      yield* running.cancel
      yield* Deferred.fail(gate, "failure")
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
    })
  )

  it.effect("L11: after the grace the work itself is cancelled, with the same reason", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(0)
      const reasons: Array<unknown> = []
      const late: Array<Exit.Exit<unknown>> = []
      const work = Effect.onInterrupt(Effect.never, () =>
        Effect.flatMap(currentReason, (reason) => Effect.sync(() => reasons.push(reason)))
      )
      const running = yield* cancellable(
        how,
        delayCancellation(work, { grace: "5 seconds", onLate: (exit) => Effect.sync(() => late.push(exit)) })
      )
      // Before the cancel no time counts.
      yield* TestClock.adjust("1 minute")
      yield* running.cancel
      yield* TestClock.adjust("3 seconds")
      // A second cancel does not start the grace anew.
      yield* running.cancel
      yield* TestClock.adjust("1999 millis")
      expect([running.ended(), reasons]).toEqual([false, []])
      yield* TestClock.adjust("1 millis")
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(reasons).toEqual([Option.some(reasonOf(how))])
      expect(late).toHaveLength(1)
      expect(fromCause(causeOf(late[0] as Exit.Exit<unknown>))).toEqual(Option.some(reasonOf(how)))
    })
  )

  it.effect("L11: the waiter also waits for the clean-up of work that the grace has cancelled", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(0)
      const cleaned = yield* Deferred.make<void>()
      const work = Effect.ensuring(Effect.never, Deferred.await(cleaned))
      const running = yield* cancellable(how, delayCancellation(work, { grace: "1 second" }))
      yield* running.cancel
      yield* TestClock.adjust("1 hour")
      expect(running.ended()).toBe(false)
      yield* Deferred.succeed(cleaned, undefined)
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
    })
  )

  it.effect("L11: work that settles within the grace is not cancelled, and no timer is left", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(0)
      const gate = yield* Deferred.make<string>()
      const late: Array<Exit.Exit<string>> = []
      let interrupted = false
      const work = Effect.onInterrupt(Deferred.await(gate), () =>
        Effect.sync(() => {
          interrupted = true
        })
      )
      const running = yield* cancellable(
        how,
        delayCancellation(work, { grace: "5 seconds", onLate: (exit) => Effect.sync(() => late.push(exit)) })
      )
      yield* running.cancel
      yield* TestClock.adjust("4 seconds")
      yield* Deferred.succeed(gate, "value")
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      yield* TestClock.adjust("1 hour")
      expect(late).toEqual([Exit.succeed("value")])
      expect(interrupted).toBe(false)
    })
  )

  it.effect("L11: a grace of zero cancels the work at once, an infinite one never", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(0)
      const none = yield* cancellable(how, delayCancellation(Effect.never, { grace: 0 }))
      yield* none.cancel
      yield* TestClock.adjust(0)
      expect(isPureInterrupt(yield* none.exit)).toBe(true)
      const gate = yield* Deferred.make<void>()
      const infinite = yield* cancellable(how, delayCancellation(Deferred.await(gate), { grace: "Infinity" }))
      yield* infinite.cancel
      yield* TestClock.adjust("1000 days")
      expect(infinite.ended()).toBe(false)
      yield* Deferred.succeed(gate, undefined)
      expect(isPureInterrupt(yield* infinite.exit)).toBe(true)
    })
  )

  it.effect("L11: a scope inside hears the cancel that comes after the grace", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(0)
      const outcomes: Array<unknown> = []
      const inner = Effect.onExit(
        CancelScope.run((scope) =>
          Effect.onExit(Effect.never, () =>
            Effect.sync(() => outcomes.push(scope.signal.aborted, scope.signal.reason))
          )
        ),
        (exit) => Effect.sync(() => outcomes.push(exit._tag))
      )
      const running = yield* cancellable(how, delayCancellation(inner, { grace: "1 second" }))
      yield* running.cancel
      yield* TestClock.adjust("1 second")
      yield* running.exit
      // For the inner scope that is an outer cancel: it does not take it for its own.
      expect(outcomes).toEqual([true, reasonOf(how), "Failure"])
    })
  )

  it.effect("L11b: inside a mask the grace does not run", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(0)
      const gate = yield* Deferred.make<string>()
      const seen: Array<string> = []
      const running = yield* cancellable(
        how,
        Effect.uninterruptible(
          Effect.tap(delayCancellation(Deferred.await(gate), { grace: "1 second" }), (value) =>
            Effect.sync(() => seen.push(value))
          )
        )
      )
      yield* running.cancel
      yield* TestClock.adjust("1 hour")
      yield* Deferred.succeed(gate, "value")
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(seen).toEqual(["value"])
    })
  )

  it.effect("L15: an onLate that never ends is left behind after the clean-up budget", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(0)
      const running = yield* cancellingItself(how, (cancel) =>
        delayCancellation(Effect.as(cancel, 1), { onLate: () => Effect.never })
      )
      yield* TestClock.adjust("9 seconds")
      expect(running.ended()).toBe(false)
      yield* TestClock.adjust("1 second")
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
    })
  )
})

describe("delayCancellation", () => {
  it.effect("L11: in a traced function as well", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<string>()
      const late: Array<Exit.Exit<string>> = []
      const traced = Effect.fn("traced")(function* () {
        return yield* delayCancellation(Deferred.await(gate), {
          onLate: (exit) => Effect.sync(() => late.push(exit))
        })
      })
      const running = yield* cancellable("native", Effect.withSpan(traced(), "span"))
      yield* running.cancel
      yield* Deferred.succeed(gate, "value")
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(late).toEqual([Exit.succeed("value")])
    })
  )

  it.effect("L11: a waiter in a native child of the cancelled scope waits, too", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<string>()
      const late: Array<Exit.Exit<string>> = []
      const fiber = yield* forked(
        CancelScope.run((scope) =>
          Effect.gen(function* () {
            const child = yield* forked(
              delayCancellation(Deferred.await(gate), {
                onLate: (exit) => Effect.sync(() => late.push(exit))
              })
            )
            yield* scope.cancel(requested)
            return yield* Fiber.join(child)
          })
        )
      )
      yield* Effect.yieldNow
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, "value")
      expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason: requested })
      expect(late).toEqual([Exit.succeed("value")])
    })
  )

  it.effect("L11, L21: a late failure that nobody wants to receive is reported once", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const gate = yield* Deferred.make<never, string>()
      const running = yield* cancellable("scope", heard.by(delayCancellation(Deferred.await(gate))))
      yield* running.cancel
      yield* Deferred.fail(gate, "failure")
      yield* running.exit
      expect(heard.causes()).toEqual(["failure"])
    })
  )
})

describe("a grace", () => {
  it.effect("L8: that never ends starts no timer, and no other outlives the work", () =>
    Effect.gen(function* () {
      const { around, count } = fiberCount()
      for (const grace of ["Infinity", "1 minute"] as const) {
        const gate = yield* Deferred.make<void>()
        const fiber = yield* forked(around(delayCancellation(Deferred.await(gate), { grace })))
        const before = count.started
        fiber.interruptUnsafe()
        const timers = count.started - before
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.await(fiber)
        expect(timers > 0).toBe(grace !== "Infinity")
        expect(count.live).toBe(0)
      }
    })
  )
})

describe("a caller", () => {
  it.effect("is held until the work has ended, also work that the grace cancels before it has begun", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const caller: Caller = {
        hold: (name) => {
          log.push(`held by ${name}`)
          return Effect.sync(() => log.push("let go"))
        },
        strip: (context) => context
      }
      const held: Array<Fiber.Fiber<unknown, unknown>> = []
      const work = delayCancellation(
        Effect.sync(() => log.push("worked")),
        { name: "mail", grace: 0 }
      )
      const waiter = yield* forked(
        Effect.withFiber((waiting) => {
          // Holds up what the waiter starts, before its first operation.
          const scheduler = new Scheduler.MixedScheduler()
          scheduler.shouldYield = (fiber) => {
            if (fiber === waiting || held.length > 0) return false
            held.push(fiber)
            return true
          }
          return Effect.provideService(work, Scheduler.Scheduler, scheduler)
        }).pipe(Effect.provideService(CurrentCaller, caller))
      )
      expect([held.length, log]).toEqual([1, ["held by mail"]])
      waiter.interruptUnsafe()
      const exit = yield* Fiber.await(waiter)
      expect(log).toEqual(["held by mail", "let go"])
      expect(isPureInterrupt(exit)).toBe(true)
    })
  )
})
