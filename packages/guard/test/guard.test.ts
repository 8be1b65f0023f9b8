import { CancelReason } from "@curfew/reason"
import { CancelScope, CleanupBudget, stuck } from "@curfew/scope"
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
import { type CancelGuard, cleanupDefect, guard, onCancel } from "../src/index.ts"

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
    "L14: among others it runs by a native interrupt as well, although each runs in a fiber of its own",
    () =>
      Effect.gen(function* () {
        for (const guards of [2, 5]) {
          const { cleanup, reasons } = recording()
          const running = yield* cancellable(
            "native",
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
          expect(reasons).toEqual(Array.from({ length: guards }, () => reasonOf("native")))
        }
      })
  )

  it.effect(
    "L14: set up by a child that somebody else interrupted, it hears nothing of the foreign interrupt",
    () =>
      Effect.gen(function* () {
        for (const strategy of ["sequential", "parallel"] as const) {
          const { cleanup, reasons } = recording()
          const body = Effect.gen(function* () {
            yield* guard(cleanup)
            const child = yield* forked(Effect.andThen(guard(cleanup), Effect.never))
            yield* Fiber.interrupt(child)
            yield* Fiber.join(child)
          })
          expect(
            isPureInterrupt(yield* Effect.exit(Effect.flatMap(forked(scopedIn(strategy, body)), Fiber.join)))
          ).toBe(true)
          expect(reasons).toEqual([])
        }
      })
  )

  it.effect(
    "the gotcha: set up in a fiber that has ended since, among others it does not know a native interrupt",
    () =>
      Effect.gen(function* () {
        const { cleanup, reasons } = recording()
        const apart = Effect.flatMap(forked(guard(cleanup)), Fiber.join)
        const running = yield* cancellable(
          "native",
          scopedIn("parallel", Effect.andThen(apart, Effect.andThen(apart, Effect.never)))
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

describe("a guard that is disarmed", () => {
  it.effect("leaves its Scope at once, however many there are", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const scope = yield* Effect.scope
        const finalizers = () => (scope.state._tag === "Open" ? (scope.state.finalizers?.size ?? 1) : 0)
        yield* guard(() => Effect.void)
        const before = finalizers()
        for (let i = 0; i < 1000; i++) {
          const { disarm } = yield* guard(() => Effect.void)
          expect(yield* disarm).toBe(true)
          expect(finalizers()).toBe(before)
          expect(yield* disarm).toBe(false)
        }
        expect(finalizers()).toBe(before)
      })
    )
  )

  it("among other finalizers, whichever leave and in whatever order, those that stay run in theirs", () => {
    type Entry = { readonly guards: boolean; readonly leaves: boolean }
    const leaving = { guards: true, leaves: true }
    const entries = fc.array(fc.record({ guards: fc.boolean(), leaves: fc.boolean() }), { maxLength: 6 })
    return fc.assert(
      fc.asyncProperty(entries, fc.boolean(), fc.boolean(), async (all, backwards, later) => {
        const order: Array<number> = []
        const scope = Scope.makeUnsafe()
        const disarms: Array<Effect.Effect<boolean>> = []
        const enter = ({ guards, leaves }: Entry, index: number) => {
          const cleanup = Effect.sync(() => order.push(index))
          if (!guards) return Effect.addFinalizer(() => cleanup)
          return Effect.map(
            guard(() => cleanup),
            ({ disarm }) => {
              if (leaves) disarms[backwards ? "unshift" : "push"](disarm)
            }
          )
        }
        const stay = (index: number) => !(all[index]?.guards === true && all[index].leaves)
        const size = () =>
          scope.state._tag === "Open" ? (scope.state.finalizers?.size ?? 1) : scope.state._tag
        const staying = all.map((_, index) => index).filter(stay)
        const expected = later ? [...staying, all.length] : staying
        const running = await Effect.runPromise(
          cancellable(
            "native",
            Effect.onExit(
              Scope.provide(
                Effect.gen(function* () {
                  yield* Effect.forEach(all, enter)
                  for (const disarm of disarms) expect(yield* disarm).toBe(true)
                  expect(size()).toBe(staying.length > 0 ? staying.length : "Empty")
                  if (later) yield* enter({ guards: true, leaves: false }, all.length)
                  yield* Effect.never
                }),
                scope
              ),
              (exit) => Scope.close(scope, exit)
            )
          )
        )
        await Effect.runPromise(running.cancel)
        await Effect.runPromise(running.exit)
        expect(order).toEqual(expected.reverse())
      }),
      { numRuns, examples: [[[leaving, leaving], false, true]] }
    )
  })

  it.effect("leaves the others in their order", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const named = (name: string) => guard(() => Effect.sync(() => order.push(name)))
      const running = yield* cancellable(
        "native",
        Effect.scoped(
          Effect.gen(function* () {
            yield* named("first")
            const { disarm } = yield* named("disarmed")
            yield* named("last")
            yield* disarm
            yield* Effect.never
          })
        )
      )
      yield* running.cancel
      yield* running.exit
      expect(order).toEqual(["last", "first"])
    })
  )
})

describe("L17: a guard that gets stuck", () => {
  const overrun = Effect.uninterruptible(Effect.never)
  const record = (work: Effect.Effect<unknown>) =>
    Effect.gen(function* () {
      const before = new Set((yield* stuck).map(({ id }) => id))
      const running = yield* cancellable("native", work)
      yield* running.cancel
      yield* TestClock.adjust("10 seconds")
      yield* running.exit
      return (yield* stuck).filter(({ id }) => !before.has(id))
    })

  it.effect("L17: its record names the line that set it up", () =>
    Effect.gen(function* () {
      const work = Effect.andThen(
        guard(() => overrun),
        Effect.never
      )
      const records = yield* record(Effect.scoped(work))
      expect(records).toHaveLength(1)
      expect(records[0]?.source).toContain("guard.test.ts")
    })
  )

  it.effect("L17: the record of onCancel names its function, and takes no line from every call", () =>
    Effect.gen(function* () {
      const closePool = () => overrun
      for (const [work, name] of [
        [onCancel(Effect.never, closePool), "closePool"],
        [onCancel(closePool)(Effect.never), "closePool"],
        [onCancel(Effect.never, () => overrun), "onCancel"]
      ] as const) {
        const records = yield* record(work)
        expect(records).toHaveLength(1)
        expect(records[0]).toMatchObject({ name, source: undefined })
      }
    })
  )
})

describe("guard nested", () => {
  it.effect(
    "L45: ten thousand deep, all run when the cancel comes",
    () =>
      Effect.gen(function* () {
        let cleaned = 0
        let bottom = yield* Deferred.make<void>()
        const at = (depth: number): Effect.Effect<unknown> =>
          depth === 0
            ? Effect.andThen(Deferred.succeed(bottom, undefined), Effect.never)
            : Effect.scoped(
                Effect.andThen(
                  guard(() => Effect.sync(() => cleaned++)),
                  Effect.suspend(() => at(depth - 1))
                )
              )
        for (const how of ["native", "scope"] as const) {
          cleaned = 0
          bottom = yield* Deferred.make<void>()
          const running = yield* cancellable(how, at(10_000))
          yield* Deferred.await(bottom)
          yield* running.cancel
          expect(isPureInterrupt(yield* running.exit)).toBe(true)
          expect(cleaned).toBe(10_000)
        }
      }),
    60_000
  )

  it.effect(
    "L45: clean-up within clean-up, ten thousand deep, runs to the bottom",
    () =>
      Effect.gen(function* () {
        let reached = 0
        const at = (depth: number): Effect.Effect<unknown> =>
          depth === 0
            ? Effect.sync(() => reached++)
            : CancelScope.run((scope) =>
                onCancel(Effect.andThen(scope.cancel(), Effect.never), () => at(depth - 1))
              )
        yield* at(10_000)
        expect(reached).toBe(1)
      }),
    60_000
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
