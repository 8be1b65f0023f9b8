import { OnUnhandled, Owner, TaskScope, type Unhandled } from "@curfew/scope"
import { Shared, SharedMap } from "@curfew/singleflight"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import {
  complaintOf,
  defectOf,
  endlessDurations,
  noCounts,
  noDurations,
  overDurations,
  throwing,
  thrown
} from "../../../test/support/badInput.ts"
import { Lab, observing, owner, primeTestClock, sharedIn } from "./support/lab.ts"

const withOwner = Effect.provide(Owner.layer())

describe("what shared work is made with", () => {
  for (const [what, linger] of noDurations) {
    it.effect(`a linger of ${what} is an IllegalArgument of make`, () =>
      Effect.gen(function* () {
        const whenUnobserved = { linger }
        const ways: ReadonlyArray<Effect.Effect<unknown, never, Owner>> = [
          Shared.make(Effect.void, { whenUnobserved }),
          SharedMap.make(() => Effect.void, { whenUnobserved })
        ]
        for (const made of ways) {
          expect(complaintOf(yield* Effect.exit(made))).toContain("The linger of the shared work is ")
        }
      }).pipe(withOwner)
    )

    it.effect(`a retain of ${what} is a defect of the run, and nothing is held`, () =>
      Effect.gen(function* () {
        let runs = 0
        const shared = yield* Shared.make(
          Effect.sync(() => ++runs),
          { retain: () => linger }
        )
        expect(complaintOf(yield* Effect.exit(shared.get))).toContain("What retain gives is ")
        expect(complaintOf(yield* Effect.exit(shared.get))).toContain("What retain gives is ")
        expect(runs).toBe(2)
        expect((yield* shared.statistics).retained).toBe(0)
      }).pipe(withOwner)
    )
  }

  for (const [what, over] of overDurations) {
    it.effect(`a linger and a retain of ${what} are none`, () =>
      Effect.gen(function* () {
        const lab = new Lab()
        const { shared } = yield* sharedIn(lab, { whenUnobserved: { linger: over }, retain: () => over })
        const observer = yield* observing(shared.get)
        yield* Fiber.interrupt(observer)
        expect(lab.run(0).reason).toEqual({ _tag: "Unobserved", lingered: Duration.zero })
        const second = yield* observing(shared.get)
        lab.run(1).end(Effect.succeed("done"))
        yield* Fiber.join(second)
        expect((yield* shared.statistics).retained).toBe(0)
      })
    )
  }

  for (const [what, endless] of endlessDurations) {
    it.effect(`a linger and a retain of ${what} have no end`, () =>
      Effect.gen(function* () {
        yield* primeTestClock
        const lab = new Lab()
        const { shared } = yield* sharedIn(lab, {
          whenUnobserved: { linger: endless },
          retain: () => endless
        })
        yield* Fiber.interrupt(yield* observing(shared.get))
        yield* TestClock.adjust("1000 days")
        lab.run(0).end(Effect.succeed("done"))
        yield* TestClock.adjust("1000 days")
        expect(yield* shared.get).toBe("done")
        expect(lab.runs).toHaveLength(1)
      })
    )
  }

  for (const capacity of noCounts.filter((count) => count !== null)) {
    it.effect(`a capacity of ${String(capacity)} (${typeof capacity}) is an IllegalArgument of make`, () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(SharedMap.make(() => Effect.void, { capacity }))
        expect(complaintOf(exit)).toMatch(
          /^The capacity of the shared map is .*\. Pass a whole number from 0 on, or Infinity for no limit\.$/
        )
      }).pipe(withOwner)
    )
  }

  it.effect("a capacity of zero holds nothing", () =>
    Effect.gen(function* () {
      const map = yield* SharedMap.make((key: string) => Effect.succeed(key), {
        capacity: 0,
        retain: () => Duration.infinity
      })
      yield* map.get("a")
      expect(yield* map.size).toBe(0)
    }).pipe(withOwner)
  )
})

describe("callbacks that throw", () => {
  it.effect("a lookup, in its thunk and in its work, is a defect of the run for all observers, once", () => {
    const heard: Array<Unhandled> = []
    return Effect.gen(function* () {
      for (const lookup of [
        throwing,
        () => Effect.sync(throwing),
        () => Effect.andThen(Effect.yieldNow, Effect.sync(throwing))
      ]) {
        const map = yield* SharedMap.make(lookup as (key: string) => Effect.Effect<never>)
        const exits = yield* Effect.all([map.get("a"), map.get("a")].map(Effect.exit), {
          concurrency: "unbounded"
        })
        expect(exits.map(defectOf)).toEqual([thrown, thrown])
        yield* Effect.yieldNow
        expect(yield* map.size).toBe(0)
      }
      expect(heard).toEqual([])
    }).pipe(
      Effect.provideService(OnUnhandled, (unhandled) => Effect.sync(() => heard.push(unhandled))),
      withOwner
    )
  })

  it.effect("a name is a defect of the observer, and leaves no key behind", () =>
    Effect.gen(function* () {
      const map = yield* SharedMap.make((key: string) => Effect.succeed(key), { name: throwing })
      expect(defectOf(yield* Effect.exit(map.get("a")))).toBe(thrown)
      expect(yield* map.size).toBe(0)
    }).pipe(withOwner)
  )

  it.effect("a receiver of unhandled failures that throws changes nothing", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<never, string>()
      const shared = yield* Shared.make(Deferred.await(gate), { whenUnobserved: "keep" })
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* Deferred.fail(gate, "no")
      expect(yield* Effect.exit(shared.get)).toEqual(Exit.fail("no"))
    }).pipe(Effect.provideService(OnUnhandled, throwing), withOwner)
  )
})

describe("keys", () => {
  it.effect("NaN and the two zeros are one key each", () =>
    Effect.gen(function* () {
      let runs = 0
      const map = yield* SharedMap.make(() => Effect.sync(() => ++runs), { retain: () => Duration.infinity })
      for (const key of [Number.NaN, Number.NaN, 0, -0]) yield* map.get(key)
      expect(runs).toBe(2)
      yield* map.invalidateAll
      expect(yield* map.size).toBe(0)
    }).pipe(withOwner)
  )

  it.effect("functions, symbols and objects of a class are themselves alone; null and undefined differ", () =>
    Effect.gen(function* () {
      class Key {}
      const keys: ReadonlyArray<unknown> = [
        () => 1,
        () => 1,
        Symbol("k"),
        Symbol("k"),
        new Key(),
        null,
        undefined,
        "",
        false
      ]
      const map = yield* SharedMap.make((key: unknown) => Effect.sync(() => keys.indexOf(key)), {
        retain: () => Duration.infinity
      })
      for (const key of keys) yield* map.get(key)
      for (const [i, key] of keys.entries()) if (!(key instanceof Key)) expect(yield* map.get(key)).toBe(i)
    }).pipe(withOwner)
  )

  it.effect("a circle is a key; one that throws when it is looked at is a defect of its observer alone", () =>
    Effect.gen(function* () {
      const map = yield* SharedMap.make((_: unknown) => Effect.succeed("done"))
      const circle: { self?: unknown } = {}
      circle.self = circle
      expect(yield* map.get(circle)).toBe("done")
      const bad = {
        get field(): never {
          throw thrown
        }
      }
      for (const way of [map.get(bad), map.invalidate(bad), map.cancel(bad), map.observers(bad)]) {
        expect(defectOf(yield* Effect.exit(way as Effect.Effect<unknown, unknown>))).toBe(thrown)
      }
      let deep: unknown = {}
      for (let i = 0; i < 50_000; i++) deep = { deep }
      expect(defectOf(yield* Effect.exit(map.get(deep)))).toBeInstanceOf(RangeError)
      expect(yield* map.size).toBe(0)
      expect(yield* map.get("fine")).toBe("done")
    }).pipe(withOwner)
  )

  it.effect("that are huge or break lines are keys", () =>
    Effect.gen(function* () {
      const map = yield* SharedMap.make((key: string) => Effect.succeed(key.length))
      for (const key of ["", "a\nb", "x".repeat(1_000_000)]) expect(yield* map.get(key)).toBe(key.length)
      expect(yield* map.size).toBe(0)
    }).pipe(withOwner)
  )
})

describe("ten thousand", () => {
  const many = Array.from({ length: 10_000 }, (_, i) => i)

  it.effect("observers of one run: all get its exit, and one that leaves touches nobody", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const observers = yield* Effect.forEach(many, () => observing(shared.get))
      yield* Fiber.interrupt(observers[5_000] as Fiber.Fiber<unknown>)
      expect(yield* shared.observers).toBe(9_999)
      lab.run(0).end(Effect.succeed("done"))
      const exits = yield* Effect.forEach(observers, (observer) => Fiber.await(observer))
      expect(exits.filter((exit) => exit._tag === "Success" && exit.value === "done")).toHaveLength(9_999)
    })
  )

  it.effect("observers that all leave: the run is cancelled once, with the last", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const observers = yield* Effect.forEach(many, () => observing(shared.get))
      yield* Fiber.interruptAll(observers)
      expect(lab.run(0).reason?._tag).toBe("Unobserved")
      expect(lab.runs).toHaveLength(1)
    })
  )

  it("runs that wait for one another in a row end, by a value and by the last observer's leaving", async () => {
    const row = (leaf: Effect.Effect<string, string>) =>
      Effect.gen(function* () {
        const tasks = yield* owner
        const map: SharedMap.SharedMap<number, string, string> = yield* SharedMap.make(
          (key: number): Effect.Effect<string, string> => (key === 0 ? leaf : Effect.orDie(map.get(key - 1))),
          { owner: tasks }
        )
        return { map, tasks }
      })
    const ended = await Effect.runPromise(
      Effect.scoped(
        Effect.flatMap(row(Effect.andThen(Effect.yieldNow, Effect.succeed("leaf"))), ({ map }) =>
          map.get(9_999)
        )
      )
    )
    expect(ended).toBe("leaf")
    await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const { map, tasks } = yield* row(Effect.never)
          const observer = yield* observing(map.get(9_999))
          while ((yield* map.observers(0)) === 0) yield* Effect.yieldNow
          yield* Fiber.interrupt(observer)
          yield* tasks.drain()
          yield* Effect.yieldNow
          expect(yield* map.size).toBe(0)
        })
      )
    )
  }, 60_000)
})

describe("a run's clean-up that", () => {
  it.effect(
    "cancels and invalidates its own source: it is cancelled once, and the next run is a new one",
    () =>
      Effect.gen(function* () {
        let shared!: Shared.Shared<string, string>
        const lab = new Lab(Effect.suspend(() => Effect.andThen(shared.cancel(), shared.invalidate)))
        const made = yield* sharedIn(lab)
        shared = made.shared
        const observer = yield* observing(shared.get)
        expect(yield* shared.cancel()).toBe(true)
        expect(defectOf(yield* Fiber.await(observer))).toMatchObject({ _tag: "Failure" })
        yield* made.tasks.drain()
        const next = yield* observing(shared.get)
        lab.run(1).end(Effect.succeed("new"))
        expect(yield* Fiber.join(next)).toBe("new")
      })
  )

  it.effect("cancels the owner: it ends", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskScope.make()
      let cancels = 0
      const work = Effect.onInterrupt(Effect.never, () =>
        Effect.tap(tasks.cancel(), () => {
          cancels++
          return Effect.void
        })
      )
      const shared = yield* Shared.make(work, { owner: tasks })
      const observer = yield* observing(shared.get)
      yield* shared.cancel()
      const exit = yield* Fiber.await(observer)
      expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toMatchObject({ _tag: "SharedCancelled" })
      yield* tasks.drain()
      expect(cancels).toBe(1)
    })
  )
})
