import { CancelScope, OnUnhandled, Owner, TaskScope, type Unhandled } from "@curfew/scope"
import { delayCancellation, stopCancellation } from "@curfew/shield"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
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

const shields = {
  delay: <A, E, R>(self: Effect.Effect<A, E, R>) => delayCancellation(self),
  stop: <A, E, R>(self: Effect.Effect<A, E, R>) => stopCancellation(self)
}

const forked = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

describe("a grace", () => {
  for (const [what, grace] of noDurations) {
    // Null is the default.
    if (grace === null) continue
    it.effect(`of ${what} is an IllegalArgument, and the work does not start`, () =>
      Effect.gen(function* () {
        let started = 0
        const work = Effect.sync(() => ++started)
        const exit = yield* Effect.exit(delayCancellation(work, { grace }))
        expect(complaintOf(exit)).toContain("The grace of delayCancellation is ")
        expect(started).toBe(0)
      })
    )
  }

  for (const [what, grace] of overDurations) {
    it.effect(`of ${what} cancels the work with its waiter, and the waiter waits for its clean-up`, () =>
      Effect.gen(function* () {
        // Before its first adjustment the test clock lets an interrupt into a sleep in a finalizer.
        yield* TestClock.adjust(0)
        const log: Array<string> = []
        const work = Effect.onInterrupt(Effect.never, () =>
          Effect.andThen(
            Effect.sleep("1 second"),
            Effect.sync(() => log.push("cleaned up"))
          )
        )
        const fiber = yield* forked(delayCancellation(work, { grace }))
        const interrupting = yield* forked(Fiber.interrupt(fiber))
        yield* TestClock.adjust(0)
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(interrupting)
        expect(log).toEqual(["cleaned up"])
      })
    )
  }

  for (const [what, grace] of endlessDurations) {
    it.effect(`of ${what} never cancels the work`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const work = Effect.andThen(
          Effect.sleep("1000 days"),
          Effect.sync(() => log.push("done"))
        )
        const fiber = yield* forked(delayCancellation(work, { grace }))
        const interrupting = yield* forked(Fiber.interrupt(fiber))
        yield* TestClock.adjust("1000 days")
        yield* Fiber.join(interrupting)
        expect(log).toEqual(["done"])
      })
    )
  }
})

for (const [name, shield] of Object.entries(shields)) {
  describe(`${name}: bad input`, () => {
    it.effect("work that throws is a defect of the shield", () =>
      Effect.gen(function* () {
        for (const work of [
          Effect.sync(throwing),
          Effect.suspend(broken),
          Effect.andThen(Effect.yieldNow, Effect.sync(throwing))
        ]) {
          expect(defectOf(yield* Effect.exit(shield(work)))).toBe(thrown)
        }
      }).pipe(Effect.provide(Owner.layer()))
    )

    it.effect("below a cancelled scope the waiter ends, and the work, if it began, ends too", () =>
      Effect.gen(function* () {
        let running = 0
        const work = Effect.acquireUseRelease(
          Effect.sync(() => ++running),
          () => Effect.yieldNow,
          () => Effect.sync(() => --running)
        )
        const outcome = yield* CancelScope.run((scope) => Effect.andThen(scope.cancel(), shield(work)))
        expect(outcome._tag).toBe("Cancelled")
        yield* Effect.flatMap(Owner, (owner) => owner.drain())
        expect(running).toBe(0)
      }).pipe(Effect.provide(Owner.layer()))
    )

    it.effect("under a closed owner work is attached, and its exit is the waiter's", () =>
      Effect.gen(function* () {
        const closed = yield* TaskScope.make()
        yield* closed.close
        const exit = yield* Effect.exit(Effect.provideService(shield(Effect.fail("no")), Owner, closed))
        expect(exit).toEqual(Exit.fail("no"))
      })
    )

    it("ten thousand deep, a value, a failure and a cancel come through", async () => {
      const nested = <A, E>(leaf: Effect.Effect<A, E>): Effect.Effect<A, E, Owner> => {
        let work: Effect.Effect<A, E, Owner> = leaf
        for (let depth = 0; depth < 10_000; depth++) {
          const inner = work
          work = shield(Effect.suspend(() => inner))
        }
        return work
      }
      const run = <A, E>(self: Effect.Effect<A, E, Owner>) =>
        Effect.runPromiseExit(Effect.provide(self, Owner.layer()))
      expect(await run(nested(Effect.succeed(1)))).toEqual(Exit.succeed(1))
      expect(await run(nested(Effect.fail("no")))).toEqual(Exit.fail("no"))
      const gate = Deferred.makeUnsafe<void>()
      const cancelled = await run(
        Effect.gen(function* () {
          const fiber = yield* forked(nested(Deferred.await(gate)))
          const interrupting = yield* forked(Fiber.interrupt(fiber))
          yield* Deferred.succeed(gate, undefined)
          yield* Fiber.join(interrupting)
          return yield* Fiber.await(fiber)
        })
      )
      expect(Exit.isSuccess(cancelled) && Exit.hasInterrupts(cancelled.value)).toBe(true)
    }, 60_000)
  })
}

describe("a receiver that throws", () => {
  it.effect("changes nothing for the waiter, and what it threw reaches OnUnhandled once", () =>
    Effect.gen(function* () {
      for (const receiver of [throwing, () => Effect.die(thrown)]) {
        const heard: Array<Unhandled> = []
        const ways = [
          (work: Effect.Effect<void>) => delayCancellation(work, { onLate: receiver }),
          (work: Effect.Effect<void>) => stopCancellation(work, { onAbandoned: receiver })
        ]
        for (const way of ways) {
          const gate = yield* Deferred.make<void>()
          const fiber = yield* forked(
            Effect.provideService(way(Deferred.await(gate)), OnUnhandled, (unhandled) =>
              Effect.sync(() => heard.push(unhandled))
            )
          )
          const interrupting = yield* forked(Fiber.interrupt(fiber))
          yield* Deferred.succeed(gate, undefined)
          yield* Fiber.join(interrupting)
          expect(Exit.hasInterrupts(yield* Fiber.await(fiber))).toBe(true)
          yield* Effect.flatMap(Owner, (owner) => owner.drain())
        }
        expect(heard.map(({ cause }) => Cause.squash(cause))).toEqual([thrown, thrown])
      }
    }).pipe(Effect.provide(Owner.layer()))
  )
})

describe("a Scope of the caller", () => {
  it.effect("is closed for work that was left behind; one of its own holds until the work has ended", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const open = (name: string) =>
        Effect.acquireRelease(
          Effect.sync(() => log.push(`open ${name}`)),
          () => Effect.sync(() => log.push(`close ${name}`))
        )
      const used = (name: string) =>
        Effect.andThen(
          open(name),
          Effect.andThen(
            Deferred.await(gate),
            Effect.sync(() => log.push(`use ${name}`))
          )
        )
      const scope = yield* Scope.make()
      const callers = yield* forked(Scope.provide(stopCancellation(used("the caller's")), scope))
      const own = yield* forked(stopCancellation(Effect.scoped(used("its own"))))
      yield* Fiber.interruptAll([callers, own])
      yield* Scope.close(scope, Exit.void)
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.flatMap(Owner, (owner) => owner.drain())
      expect(log.filter((entry) => entry.includes("caller"))).toEqual([
        "open the caller's",
        "close the caller's",
        "use the caller's"
      ])
      expect(log.filter((entry) => entry.includes("own"))).toEqual([
        "open its own",
        "use its own",
        "close its own"
      ])
    }).pipe(Effect.provide(Owner.layer()))
  )
})
