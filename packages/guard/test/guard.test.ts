import { CancelReason } from "@curfew/reason"
import { CancelScope, CleanupBudget } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
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
import { type CancelGuard, cleanupDefect, guard } from "../src/index.ts"

/** Runs a body in a `Scope` of the given strategy and closes that with the body's exit. */
const scopedIn = <A, E, R>(
  strategy: "sequential" | "parallel",
  body: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Scope.Scope>> =>
  Effect.suspend(() => {
    const scope = Scope.makeUnsafe(strategy)
    return Effect.onExit(Scope.provide(body, scope), (exit) => Scope.close(scope, exit))
  })

const recording = () => {
  const reasons: Array<CancelReason> = []
  return {
    reasons,
    cleanup: (reason: CancelReason) =>
      Effect.sync(() => {
        reasons.push(reason)
      })
  }
}

describe("guard, when nobody cancels", () => {
  it("L14: whatever the exit of the Scope, no clean-up runs", () => {
    const ends: ReadonlyArray<Effect.Effect<number, string>> = [
      Effect.succeed(1),
      Effect.fail("f"),
      Effect.die("d"),
      Effect.interrupt,
      Effect.failCause(Cause.combine(Cause.fail("f"), Cause.interrupt(3))),
      Effect.flatMap(forked(Effect.never), (fiber) =>
        Effect.andThen(Fiber.interrupt(fiber), Fiber.join(fiber))
      )
    ]
    return fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...ends),
        fc.constantFrom<"sequential" | "parallel">("sequential", "parallel"),
        fc.integer({ min: 1, max: 3 }),
        async (end, strategy, guards) => {
          const { cleanup, reasons } = recording()
          const body = Effect.andThen(
            Effect.forEach(Array.from({ length: guards }), () => guard(cleanup), { discard: true }),
            end
          )
          await Effect.runPromiseExit(scopedIn(strategy, body))
          expect(reasons).toEqual([])
        }
      ),
      { numRuns }
    )
  })

  it.effect("disarm tells true once, then false", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { disarm } = yield* guard(() => Effect.void)
        expect([yield* disarm, yield* disarm]).toEqual([true, false])
      })
    )
  )
})

describe.each(hows)("guard under a %s cancel", (how) => {
  it.effect("L14: before the guard is set up nothing runs", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = recording()
      const running = yield* cancellable(how, Effect.scoped(Effect.andThen(Effect.yieldNow, guard(cleanup))))
      yield* running.cancel
      yield* running.exit
      expect(reasons).toEqual([])
    })
  )

  it.effect("L14: during, it runs once, with the reason, in its place among the finalizers", () =>
    Effect.gen(function* () {
      const log: Array<unknown> = []
      const finalizer = (name: string) => Effect.addFinalizer(() => Effect.sync(() => log.push(name)))
      const running = yield* cancellable(
        how,
        Effect.scoped(
          Effect.gen(function* () {
            yield* finalizer("first")
            yield* guard((reason) =>
              Effect.andThen(
                Effect.yieldNow,
                Effect.sync(() => log.push(reason))
              )
            )
            yield* finalizer("last")
            yield* Effect.never
          })
        )
      )
      yield* running.cancel
      yield* running.cancel
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(log).toEqual(["last", reasonOf(how), "first"])
    })
  )

  it.effect("L14: after the Scope's end nothing runs", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = recording()
      const running = yield* cancellable(how, Effect.andThen(Effect.scoped(guard(cleanup)), Effect.never))
      yield* running.cancel
      yield* running.exit
      expect(reasons).toEqual([])
    })
  )

  it.effect("L14: a cancel while a successful Scope closes comes after the completion", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = recording()
      const gate = yield* Deferred.make<void>()
      const running = yield* cancellable(
        how,
        Effect.scoped(
          Effect.gen(function* () {
            yield* guard(cleanup)
            yield* Effect.addFinalizer(() => Deferred.await(gate))
          })
        )
      )
      yield* running.cancel
      yield* Deferred.succeed(gate, undefined)
      yield* running.exit
      expect(reasons).toEqual([])
    })
  )

  it.effect("L14: after disarm returned true it never runs; once it has begun disarm returns false", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = recording()
      const gate = yield* Deferred.make<void>()
      const guards: Array<CancelGuard> = []
      const running = yield* cancellable(
        how,
        Effect.scoped(
          Effect.gen(function* () {
            const early = yield* guard(cleanup)
            expect(yield* early.disarm).toBe(true)
            guards.push(yield* guard((reason) => Effect.andThen(Deferred.await(gate), cleanup(reason))))
            yield* Effect.never
          })
        )
      )
      yield* running.cancel
      yield* Effect.yieldNow
      const [late] = guards as [CancelGuard]
      expect(yield* late.disarm).toBe(false)
      yield* Deferred.succeed(gate, undefined)
      yield* running.exit
      expect(reasons).toEqual([reasonOf(how)])
      expect(yield* late.disarm).toBe(false)
    })
  )

  it.effect("L14: a finalizer that runs before it can disarm it", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = recording()
      const running = yield* cancellable(
        how,
        Effect.scoped(
          Effect.gen(function* () {
            const { disarm } = yield* guard(cleanup)
            yield* Effect.addFinalizer(() => disarm)
            yield* Effect.never
          })
        )
      )
      yield* running.cancel
      yield* running.exit
      expect(reasons).toEqual([])
    })
  )

  it.effect("L14: inside an outer mask the Scope completes, and no clean-up runs", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = recording()
      const gate = yield* Deferred.make<void>()
      const running = yield* cancellable(
        how,
        Effect.uninterruptible(Effect.scoped(Effect.andThen(guard(cleanup), Deferred.await(gate))))
      )
      yield* running.cancel
      yield* Deferred.succeed(gate, undefined)
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(reasons).toEqual([])
    })
  )

  it.effect(
    "L15: defects of several guards are annotations, each is reported once, and every guard runs",
    () =>
      Effect.gen(function* () {
        const heard = hearing()
        const running = yield* cancellable(
          how,
          heard.by(
            Effect.scoped(
              Effect.gen(function* () {
                yield* guard(() => Effect.die("first"))
                yield* guard(() => Effect.die("last"))
                yield* Effect.never
              })
            )
          )
        )
        yield* running.cancel
        const exit = yield* running.exit
        expect(isPureInterrupt(exit)).toBe(true)
        expect(Option.map(cleanupDefect(causeOf(exit)), Cause.squash)).toEqual(Option.some("last"))
        expect(heard.causes()).toEqual(["last", "first"])
      })
  )

  it.effect(
    "L15: a clean-up that never ends is left behind after the budget, and the other finalizers run",
    () =>
      Effect.gen(function* () {
        const { cleanup, reasons } = recording()
        const running = yield* cancellable(
          how,
          Effect.provideService(
            Effect.scoped(
              Effect.gen(function* () {
                yield* guard(cleanup)
                yield* guard(() => Effect.uninterruptible(Effect.never))
                yield* Effect.never
              })
            ),
            CleanupBudget,
            Duration.seconds(3)
          )
        )
        yield* running.cancel
        yield* TestClock.adjust("2999 millis")
        expect(running.ended()).toBe(false)
        yield* TestClock.adjust("1 millis")
        expect(isPureInterrupt(yield* running.exit)).toBe(true)
        expect(reasons).toEqual([reasonOf(how)])
      })
  )
})

describe("guard in a parallel Scope", () => {
  it.effect("L14: runs by a scope's cancel, alone or among others, each once", () =>
    Effect.gen(function* () {
      for (const guards of [1, 2, 5]) {
        const { cleanup, reasons } = recording()
        const running = yield* cancellable(
          "scope",
          scopedIn(
            "parallel",
            Effect.andThen(
              Effect.forEach(Array.from({ length: guards }), () => guard(cleanup), { discard: true }),
              Effect.never
            )
          )
        )
        yield* running.cancel
        expect(isPureInterrupt(yield* running.exit)).toBe(true)
        expect(reasons).toEqual(Array.from({ length: guards }, () => requested))
      }
    })
  )

  it.effect("L14: alone it runs by a native interrupt as well", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = recording()
      const running = yield* cancellable(
        "native",
        scopedIn("parallel", Effect.andThen(guard(cleanup), Effect.never))
      )
      yield* running.cancel
      yield* running.exit
      expect(reasons).toEqual([reasonOf("native")])
    })
  )

  it.effect(
    "the gotcha: among others a native interrupt is not recognized, because each runs in its own fiber",
    () =>
      Effect.gen(function* () {
        const { cleanup, reasons } = recording()
        const running = yield* cancellable(
          "native",
          scopedIn("parallel", Effect.andThen(guard(cleanup), Effect.andThen(guard(cleanup), Effect.never)))
        )
        yield* running.cancel
        yield* running.exit
        expect(reasons).toEqual([])
      })
  )

  it.effect("L15: the exit stays a pure interrupt when a guard's clean-up dies", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const running = yield* cancellable(
        "scope",
        heard.by(
          scopedIn(
            "parallel",
            Effect.gen(function* () {
              yield* guard(() => Effect.die("one"))
              yield* guard(() => Effect.void)
              yield* Effect.never
            })
          )
        )
      )
      yield* running.cancel
      const exit: Exit.Exit<unknown, unknown> = yield* running.exit
      expect(isPureInterrupt(exit)).toBe(true)
      expect(heard.causes()).toEqual(["one"])
      expect(Option.isSome(cleanupDefect(causeOf(exit)))).toBe(true)
    })
  )
})

describe("guard and the scopes around it", () => {
  it.effect(
    "L14: set up inside an inner cancel scope that has ended since, it hears of the outer one's cancel",
    () =>
      Effect.gen(function* () {
        const { cleanup, reasons } = recording()
        yield* CancelScope.run((outer) =>
          Effect.scoped(
            Effect.gen(function* () {
              yield* CancelScope.run(() => guard(cleanup))
              yield* outer.cancel(requested)
              yield* Effect.never
            })
          )
        )
        expect(reasons).toEqual([requested])
      })
  )

  it.effect("the clean-up has the services of the place where it was set up", () =>
    Effect.gen(function* () {
      class Name extends Context.Service<Name, string>()("test/Name") {}
      const seen: Array<string> = []
      yield* CancelScope.run((scope) =>
        Effect.scoped(
          Effect.gen(function* () {
            const greet = guard(() => Effect.map(Name, (name) => seen.push(name)))
            yield* Effect.provideService(greet, Name, "Ada")
            yield* scope.cancel()
            yield* Effect.never
          })
        )
      )
      expect(seen).toEqual(["Ada"])
    })
  )

  it.effect("L14: an inner scope that was cancelled does not set off a guard of the Scope around it", () =>
    Effect.gen(function* () {
      const { cleanup, reasons } = recording()
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* CancelScope.run((inner) =>
            Effect.andThen(
              guard(cleanup),
              Effect.andThen(inner.cancel(CancelReason.Superseded()), Effect.never)
            )
          )
        })
      )
      expect(reasons).toEqual([])
    })
  )
})
