import { CancelReason, currentReason } from "@curfew/reason"
import { CancelScope, CleanupBudget, failAfter, stuck } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { expectTypeOf } from "vitest"
import {
  cancellable,
  causeOf,
  forked,
  hows,
  isPureInterrupt,
  reasonOf,
  requested
} from "../../shield/test/support/cancelling.ts"
import { hearing, numRuns } from "../../shield/test/support/unhandled.ts"
import { cleanupDefect, onCancel } from "../src/index.ts"

/** Clean-up that keeps the reasons it is given. */
const cleaning = () => {
  const reasons: Array<CancelReason> = []
  return {
    reasons,
    cleanup: (reason: CancelReason) =>
      Effect.sync(() => {
        reasons.push(reason)
      })
  }
}

const dead = Effect.gen(function* () {
  const fiber = yield* forked(Effect.never)
  yield* Fiber.interrupt(fiber)
  return fiber
})

describe("onCancel, when nobody cancels", () => {
  it("L14: whatever the exit, it passes through as it is and no clean-up runs", () => {
    const reasons = fc.oneof(
      fc.string().map((error) => Cause.fail(error).reasons[0]),
      fc.string().map((defect) => Cause.die(defect).reasons[0]),
      fc.nat(9).map((id) => Cause.interrupt(id).reasons[0])
    )
    const exits = fc.oneof(
      fc.anything().map((value) => Exit.succeed(value)),
      fc
        .array(reasons, { minLength: 1, maxLength: 3 })
        .map((some) => Exit.failCause(Cause.fromReasons(some as ReadonlyArray<Cause.Reason<string>>)))
    )
    return fc.assert(
      fc.asyncProperty(exits, fc.nat(3), fc.boolean(), async (exit, turns, masked) => {
        const seen = cleaning()
        let work: Effect.Effect<unknown, string> = exit
        for (let i = 0; i < turns; i++) work = Effect.andThen(Effect.yieldNow, work)
        const guarded = onCancel(work, seen.cleanup)
        expect(await Effect.runPromiseExit(masked ? Effect.uninterruptible(guarded) : guarded)).toEqual(exit)
        expect(seen.reasons).toEqual([])
      }),
      { numRuns }
    )
  })

  it.effect("L14: a joined fiber that somebody else interrupted is no own cancellation", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      const fiber = yield* dead
      const deferred = yield* Deferred.make<never>()
      yield* Deferred.interrupt(deferred)
      for (const work of [
        Fiber.join(fiber),
        Deferred.await(deferred),
        Effect.interrupt,
        Effect.all([Effect.never, Fiber.join(fiber)], { concurrency: "unbounded" })
      ]) {
        expect(isPureInterrupt(yield* Effect.exit(onCancel(work, cleanup)))).toBe(true)
      }
      expect(reasons).toEqual([])
    })
  )

  it.effect("L14: a joined scope that was cancelled with the very same reason is no own cancellation", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      const superseded = CancelReason.Superseded()
      const ended = yield* Deferred.make<never>()
      yield* CancelScope.run((scope) =>
        Effect.onExit(Effect.andThen(scope.cancel(superseded), Effect.never), (exit) =>
          Deferred.failCause(ended, causeOf(exit) as Cause.Cause<never>)
        )
      )
      const exit = yield* Effect.exit(CancelScope.run(() => onCancel(Deferred.await(ended), cleanup)))
      expect(isPureInterrupt(exit)).toBe(true)
      expect(reasons).toEqual([])
    })
  )

  it.effect(
    "L14: the interrupt of an item of a concurrent all, or of a race, cleans up in the item alone",
    () =>
      Effect.gen(function* () {
        const outer = cleaning()
        const inner = cleaning()
        yield* Effect.exit(
          onCancel(
            Effect.all([onCancel(Effect.never, inner.cleanup), Effect.fail("f")], {
              concurrency: "unbounded"
            }),
            outer.cleanup
          )
        )
        yield* onCancel(Effect.raceFirst(onCancel(Effect.never, inner.cleanup), Effect.void), outer.cleanup)
        expect(inner.reasons).toHaveLength(2)
        expect(outer.reasons).toEqual([])
      })
  )

  it("the types are joined", () => {
    class A extends Context.Service<A, 1>()("test/A") {}
    class B extends Context.Service<B, 2>()("test/B") {}
    const work = null as unknown as Effect.Effect<number, "e", A>
    const cleanup = null as unknown as () => Effect.Effect<void, never, B>
    const guarded = () => onCancel(work, cleanup)
    expectTypeOf(guarded).returns.toEqualTypeOf<Effect.Effect<number, "e", A | B>>()
  })
})

describe.each(hows)("onCancel under a %s cancel", (how) => {
  it.effect("L14: before the start neither the work nor the clean-up runs", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      if (how === "native") yield* Fiber.interrupt(yield* Effect.forkChild(onCancel(Effect.never, cleanup)))
      else yield* CancelScope.run((scope) => Effect.andThen(scope.cancel(), onCancel(Effect.never, cleanup)))
      expect(reasons).toEqual([])
    })
  )

  it.effect("L14: during, the clean-up runs once, with the reason, before the exit is passed on", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      const log: Array<string> = []
      const running = yield* cancellable(
        how,
        Effect.ensuring(
          onCancel(Effect.never, (reason) =>
            Effect.andThen(
              Effect.yieldNow,
              Effect.andThen(
                cleanup(reason),
                Effect.sync(() => log.push("clean-up"))
              )
            )
          ),
          Effect.sync(() => log.push("outside"))
        )
      )
      yield* running.cancel
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(reasons).toEqual([reasonOf(how)])
      expect(log).toEqual(["clean-up", "outside"])
    })
  )

  it.effect("L14: after the completion no clean-up runs", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      const running = yield* cancellable(
        how,
        Effect.andThen(onCancel(Effect.yieldNow, cleanup), Effect.never)
      )
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      yield* running.cancel
      yield* running.exit
      expect(reasons).toEqual([])
    })
  )

  it.effect("L14: twice, it runs once, and the second cancel does not interrupt it", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      const gate = yield* Deferred.make<void>()
      const running = yield* cancellable(
        how,
        onCancel(Effect.never, (reason) => Effect.andThen(Deferred.await(gate), cleanup(reason)))
      )
      yield* running.cancel
      yield* running.cancel
      yield* Effect.yieldNow
      expect(running.ended()).toBe(false)
      yield* Deferred.succeed(gate, undefined)
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(reasons).toEqual([reasonOf(how)])
    })
  )

  it.effect("L14: a cancel that replaces the value of a mask inside prevented the completion", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      const gate = yield* Deferred.make<void>()
      const running = yield* cancellable(how, onCancel(Effect.uninterruptible(Deferred.await(gate)), cleanup))
      yield* running.cancel
      yield* Deferred.succeed(gate, undefined)
      yield* running.exit
      expect(reasons).toEqual([reasonOf(how)])
    })
  )

  it.effect("L14: inside an outer mask the work completes, and no clean-up runs", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      for (const end of [Effect.succeed(1), Effect.fail("f"), Effect.die("d"), Effect.interrupt]) {
        const gate = yield* Deferred.make<void>()
        const running = yield* cancellable(
          how,
          Effect.uninterruptible(onCancel(Effect.andThen(Deferred.await(gate), end), cleanup))
        )
        yield* running.cancel
        yield* Deferred.succeed(gate, undefined)
        yield* running.exit
      }
      expect(reasons).toEqual([])
    })
  )

  it.effect("L14: a foreign interrupt inside a mask of a cancelled fiber is none of its own", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      const gate = yield* Deferred.make<never>()
      const running = yield* cancellable(how, Effect.uninterruptible(onCancel(Deferred.await(gate), cleanup)))
      yield* running.cancel
      yield* Deferred.interrupt(gate)
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(reasons).toEqual([])
    })
  )

  it.effect("L14: a mask's restore lets the cancel in, and the clean-up runs", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      const running = yield* cancellable(
        how,
        Effect.uninterruptibleMask((restore) => onCancel(restore(Effect.never), cleanup))
      )
      yield* running.cancel
      yield* running.exit
      expect(reasons).toEqual([reasonOf(how)])
    })
  )

  for (const [what, work] of [
    ["a span", Effect.withSpan(Effect.never, "span")],
    ["a traced function", Effect.fn("traced")(() => Effect.never)()],
    ["a concurrent all", Effect.all([Effect.never, Effect.never], { concurrency: "unbounded" })],
    ["a race", Effect.raceFirst(Effect.never, Effect.never)],
    ["a time-out", Effect.timeout(Effect.never, "1 hour")],
    ["a join", Effect.flatMap(forked(Effect.never), Fiber.join)],
    [
      "a scope",
      Effect.scoped(
        Effect.andThen(
          Effect.addFinalizer(() => Effect.yieldNow),
          Effect.never
        )
      )
    ],
    ["a cancel scope", CancelScope.run(() => Effect.never)],
    ["a time limit", failAfter("1 hour")(Effect.never)],
    ["a finalizer", Effect.onExit(Effect.never, () => Effect.yieldNow)],
    ["a recovery", Effect.catchCause(Effect.exit(Effect.never), () => Effect.void)],
    ["an inner onCancel", onCancel(Effect.never, () => Effect.yieldNow)]
  ] satisfies ReadonlyArray<readonly [string, Effect.Effect<unknown, unknown>]>) {
    it.effect(`L14: it runs around ${what}, in a traced function as well`, () =>
      Effect.gen(function* () {
        const { cleanup, reasons } = cleaning()
        const guarded = onCancel(work as Effect.Effect<unknown, unknown>, cleanup)
        for (const program of [guarded, Effect.withSpan(Effect.fn("outer")(() => guarded)(), "outer")]) {
          const running = yield* cancellable(how, program)
          yield* running.cancel
          expect(isPureInterrupt(yield* running.exit)).toBe(true)
        }
        expect(reasons).toEqual([reasonOf(how), reasonOf(how)])
      })
    )
  }

  it.effect(
    "L15: a defect of the clean-up is an annotation, is reported once, and no handler swallows the cancel",
    () =>
      Effect.gen(function* () {
        const heard = hearing()
        let swallowed = false
        const running = yield* cancellable(
          how,
          heard.by(
            Effect.catchCause(
              onCancel(Effect.never, () => Effect.die("broken clean-up")),
              () =>
                Effect.sync(() => {
                  swallowed = true
                })
            )
          )
        )
        yield* running.cancel
        const exit = yield* running.exit
        expect(isPureInterrupt(exit)).toBe(true)
        expect(Option.map(cleanupDefect(causeOf(exit)), Cause.squash)).toEqual(Option.some("broken clean-up"))
        expect(heard.causes()).toEqual(["broken clean-up"])
        expect(heard.all.map(({ origin, reason }) => [origin, reason])).toEqual([["cleanup", reasonOf(how)]])
        expect(swallowed).toBe(false)
      })
  )

  it.effect("L15: a clean-up that throws is a defect like any other", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const running = yield* cancellable(
        how,
        heard.by(
          onCancel(Effect.never, (): Effect.Effect<void> => {
            throw new Error("thrown")
          })
        )
      )
      yield* running.cancel
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(heard.causes()).toEqual([new Error("thrown")])
    })
  )

  it.effect("L15: a clean-up that overruns the budget is left behind, by name, until it ends", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const left = Effect.map(stuck, (records) => records.filter(({ name }) => name === "onCancel").length)
      const running = yield* cancellable(
        how,
        Effect.provideService(
          onCancel(Effect.never, () => Effect.uninterruptible(Deferred.await(gate))),
          CleanupBudget,
          Duration.seconds(3)
        )
      )
      yield* running.cancel
      yield* TestClock.adjust("2999 millis")
      expect([running.ended(), yield* left]).toEqual([false, 0])
      yield* TestClock.adjust("1 millis")
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(yield* left).toBe(1)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* left).toBe(0)
    })
  )

  it.effect("L15: the clean-up is masked, has the caller's services and can ask for the reason", () =>
    Effect.gen(function* () {
      class Name extends Context.Service<Name, string>()("test/Name") {}
      const seen: Array<unknown> = []
      const running = yield* cancellable(
        how,
        Effect.provideService(
          onCancel(Effect.never, () =>
            Effect.gen(function* () {
              yield* Effect.yieldNow
              seen.push(yield* Name, Option.getOrUndefined(yield* currentReason))
            })
          ),
          Name,
          "Ada"
        )
      )
      yield* running.cancel
      yield* running.exit
      expect(seen).toEqual(["Ada", reasonOf(how)])
    })
  )
})

describe("onCancel inside a scope", () => {
  it.effect("L14: the first reason, not the second, and the nearest scope's", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = cleaning()
      yield* CancelScope.run((outer) =>
        CancelScope.run((inner) =>
          onCancel(
            Effect.andThen(
              inner.cancel(requested),
              Effect.andThen(outer.cancel(CancelReason.Superseded()), Effect.never)
            ),
            cleanup
          )
        )
      )
      expect(reasons).toEqual([requested])
    })
  )
})
