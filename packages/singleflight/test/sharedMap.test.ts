import { CancelReason } from "@curfew/reason"
import { SharedCancelled, SharedMap, SharedStuck } from "@curfew/singleflight"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import { type Kept, Retention } from "../src/internal/retention.ts"
import { exitOf, Lab, observing, owner, primeTestClock } from "./support/lab.ts"

const mapIn = <K>(lab: (key: K) => Lab, options?: Omit<SharedMap.Options<K, string, string>, "owner">) =>
  Effect.gen(function* () {
    const tasks = yield* owner
    const map = yield* SharedMap.make((key: K) => lab(key).work, { ...options, owner: tasks })
    return { map, tasks }
  })

/** A map whose work ends at once with the key, and the keys it was asked for. */
const instant = (options?: Omit<SharedMap.Options<string, string, string>, "owner">) =>
  Effect.gen(function* () {
    const asked: Array<string> = []
    const tasks = yield* owner
    const map = yield* SharedMap.make(
      (key: string) =>
        Effect.suspend(() => {
          asked.push(key)
          return key.startsWith("bad") ? Effect.fail(key) : Effect.succeed(key)
        }),
      { ...options, owner: tasks }
    )
    return { asked, map, tasks }
  })

describe("keys", () => {
  it.effect("L29: one run per key, and keys that are not equal have nothing to do with each other", () =>
    Effect.gen(function* () {
      const labs = { a: new Lab(), b: new Lab() }
      const { map } = yield* mapIn((key: "a" | "b") => labs[key])
      const [a1, a2, b] = [
        yield* observing(map.get("a")),
        yield* observing(map.get("a")),
        yield* observing(map.get("b"))
      ]
      expect([yield* map.observers("a"), yield* map.observers("b"), yield* map.size]).toEqual([2, 1, 2])
      expect(yield* map.cancel("a")).toBe(true)
      expect(exitOf(b)).toBeUndefined()
      expect([exitOf(a1)?._tag, exitOf(a2)?._tag]).toEqual(["Failure", "Failure"])
      labs.b.run(0).end(Effect.succeed("b"))
      expect(exitOf(b)).toEqual(Exit.succeed("b"))
      expect(yield* map.size).toBe(0)
    })
  )

  it.effect("L29: keys are compared by value", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { map } = yield* mapIn((_: { readonly id: number }) => lab)
      yield* observing(map.get({ id: 1 }))
      yield* observing(map.get({ id: 1 }))
      expect(yield* map.observers({ id: 1 })).toBe(2)
      expect(lab.runs).toHaveLength(1)
      yield* observing(map.get({ id: 2 }))
      expect(lab.runs).toHaveLength(2)
    })
  )

  it.effect("L8: a key of which nothing runs and nothing is retained takes no place", () =>
    Effect.gen(function* () {
      const { map } = yield* instant()
      for (let i = 0; i < 100; i++) yield* map.get(`key ${i}`)
      yield* Effect.exit(map.get("bad"))
      expect(yield* map.size).toBe(0)
      expect(yield* map.statistics).toMatchObject({ started: 101, retained: 0, observers: 0 })
    })
  )

  it.effect("L8: asking about an unknown key, or changing it, takes no place", () =>
    Effect.gen(function* () {
      const { map } = yield* instant()
      yield* map.invalidate("a")
      expect([yield* map.cancel("a"), yield* map.observers("a"), yield* map.size]).toEqual([false, 0, 0])
    })
  )

  it.effect("L35: the error names the key, and all keys can be cancelled at once", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { map } = yield* mapIn((_: number) => lab, { name: "user" })
      const observers = [yield* observing(map.get(7)), yield* observing(map.get(8))]
      const reason = CancelReason.Superseded()
      expect(yield* map.cancelAll(reason)).toBe(2)
      expect(observers.map(exitOf)).toEqual([
        Exit.fail(new SharedCancelled({ name: "user(7)", reason })),
        Exit.fail(new SharedCancelled({ name: "user(8)", reason }))
      ])
      expect(yield* map.cancelAll()).toBe(0)
    })
  )

  it.effect("a name that throws is the observer's defect, and takes no place", () =>
    Effect.gen(function* () {
      const error = new Error("name")
      const lab = new Lab()
      const { map } = yield* mapIn((_: string) => lab, {
        name: () => {
          throw error
        }
      })
      expect(yield* Effect.exit(map.get("a"))).toEqual(Exit.die(error))
      expect(yield* map.size).toBe(0)
    })
  )
})

describe("retention", () => {
  it.effect("L33: beyond the capacity the least recently used exit goes", () =>
    Effect.gen(function* () {
      const { asked, map } = yield* instant({ retain: () => "1 hour", capacity: 2 })
      yield* map.get("a")
      yield* map.get("b")
      yield* map.get("a")
      yield* map.get("c")
      expect(asked).toEqual(["a", "b", "c"])
      yield* map.get("a")
      expect(asked).toEqual(["a", "b", "c"])
      yield* map.get("b")
      expect(asked).toEqual(["a", "b", "c", "b"])
      expect([yield* map.size, (yield* map.statistics).retained]).toEqual([2, 2])
    })
  )

  it.effect("L33: what runs is not counted, and never goes", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { map } = yield* mapIn((_: number) => lab, { retain: () => "1 hour", capacity: 1 })
      const observers = yield* Effect.forEach([1, 2, 3], (key) => observing(map.get(key)))
      expect(yield* map.size).toBe(3)
      for (const run of lab.runs) run.end(Effect.succeed("done"))
      expect(observers.map(exitOf)).toEqual(observers.map(() => Exit.succeed("done")))
      expect(yield* map.size).toBe(1)
    })
  )

  it.effect("L33: a capacity of zero holds nothing", () =>
    Effect.gen(function* () {
      const { asked, map } = yield* instant({ retain: () => "1 hour", capacity: 0 })
      yield* map.get("a")
      yield* map.get("a")
      expect(asked).toEqual(["a", "a"])
      expect(yield* map.size).toBe(0)
    })
  )

  it.effect("L33: retain is told the key, and may hold failures", () =>
    Effect.gen(function* () {
      const { asked, map } = yield* instant({
        retain: (exit, key) => (Exit.isFailure(exit) && key === "bad twice" ? "1 second" : 0)
      })
      for (const key of ["bad once", "bad once", "bad twice", "bad twice"]) {
        expect(yield* Effect.exit(map.get(key))).toEqual(Exit.fail(key))
      }
      expect(asked).toEqual(["bad once", "bad once", "bad twice"])
    })
  )

  it("L8 L33: exits that have expired do not pile up while others are added", () => {
    const retention = new Retention(Number.POSITIVE_INFINITY)
    const add = (now: number, until: number) => {
      const slot: Kept = { expired: (at) => at >= until, evict: () => retention.remove(slot) }
      retention.add(slot, now)
    }
    for (let i = 0; i < 10; i++) add(0, Number.POSITIVE_INFINITY)
    let most = 0
    for (let now = 0; now < 10_000; now++) {
      add(now, now + 100)
      most = Math.max(most, retention.size)
    }
    // A hundred are alive at any time, and the ten; each addition looks at two.
    expect(most).toBeLessThan(300)
    retention.purge(20_000)
    expect(retention.size).toBe(10)
  })

  it.effect("L33: invalidating all lets go of all, and what runs is not joined any more", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { map } = yield* mapIn((_: string) => lab, { retain: () => "1 hour" })
      yield* observing(map.get("a"))
      lab.run(0).end(Effect.succeed("old a"))
      const b = yield* observing(map.get("b"))
      yield* map.invalidateAll
      yield* observing(map.get("a"))
      const later = yield* observing(map.get("b"))
      expect(lab.runs).toHaveLength(3)
      lab.run(1).end(Effect.succeed("old b"))
      expect([exitOf(b), exitOf(later)]).toEqual([Exit.succeed("old b"), undefined])
      expect(lab.runs).toHaveLength(4)
      yield* map.cancelAll()
    })
  )
})

describe("generations", () => {
  it.effect("L32: a key whose clean-up runs keeps its place, so that its next run waits", () =>
    Effect.gen(function* () {
      yield* primeTestClock
      const lab = new Lab(Effect.sleep("1 second"))
      const { map } = yield* mapIn((_: string) => lab)
      yield* Fiber.interrupt(yield* observing(map.get("a")))
      expect(yield* map.size).toBe(1)
      const next = yield* observing(map.get("a"))
      expect(lab.runs).toHaveLength(1)
      yield* TestClock.adjust("1 second")
      lab.run(1).end(Effect.succeed("next"))
      expect(exitOf(next)).toEqual(Exit.succeed("next"))
      expect([lab.mostActive, yield* map.size]).toEqual([1, 0])
    })
  )

  it.effect("L32: overlapping generations of a key are cancelled together", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { map, tasks } = yield* mapIn((_: string) => lab, { generations: "overlap" })
      yield* observing(map.get("a"))
      yield* map.invalidate("a")
      yield* observing(map.get("a"))
      expect([yield* map.size, yield* map.observers("a"), yield* tasks.size]).toEqual([1, 2, 2])
      expect(yield* map.cancel("a")).toBe(true)
      expect([yield* map.size, yield* tasks.size]).toEqual([0, 0])
    })
  )
})

describe("the quartet", () => {
  it.effect("get leaves nothing behind, cancelled before, during, after, and twice", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { map, tasks } = yield* mapIn((_: string) => lab)
      yield* Fiber.interrupt(yield* Effect.forkChild(map.get("a")))
      expect(lab.runs).toHaveLength(0)
      yield* Fiber.interrupt(yield* observing(map.get("a")))
      const after = yield* observing(map.get("a"))
      lab.run(1).end(Effect.succeed("done"))
      yield* Fiber.interrupt(after)
      expect(exitOf(after)).toEqual(Exit.succeed("done"))
      const twice = yield* observing(map.get("a"))
      twice.interruptUnsafe()
      twice.interruptUnsafe()
      expect([yield* map.size, yield* tasks.size, lab.active]).toEqual([0, 0, 0])
    })
  )
})

describe("the errors of shared work", () => {
  it("say in a sentence which run it was and why", () => {
    expect(new SharedCancelled({ name: "rates[EUR]", reason: CancelReason.Superseded() }).message).toBe(
      'The shared work "rates[EUR]" was cancelled: newer work has taken its place.'
    )
    expect(new SharedStuck({ name: "rates[EUR]", reason: undefined }).message).toBe(
      'The clean-up of the shared work "rates[EUR]" overran its budget; a new run may start beside it.'
    )
  })
})
