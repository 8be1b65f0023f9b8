import { background, Owner, TaskScope } from "@curfew/scope"
import { Shared, SharedMap, SharedSelfWait } from "@curfew/singleflight"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as fc from "fast-check"
import { defectOf } from "../../../test/support/badInput.ts"
import { runs } from "../../../test/support/seed.ts"
import { delayCancellation, stopCancellation } from "../../shield/src/index.ts"
import { observing } from "./support/lab.ts"

const withOwner = Effect.provide(Owner.layer())

/** The path of a defect that says a run would wait for itself. */
const pathOf = (exit: Parameters<typeof defectOf>[0]): unknown => {
  const defect = defectOf(exit)
  return defect instanceof SharedSelfWait ? defect.path : exit
}

describe("a run that asks for itself", () => {
  const ways: Record<string, (get: Effect.Effect<unknown>) => Effect.Effect<unknown, unknown, Owner>> = {
    directly: (get) => get,
    "from a child": (get) => Effect.flatMap(Effect.forkChild(get), Fiber.join),
    "side by side": (get) => Effect.all([Effect.yieldNow, get], { concurrency: "unbounded" }),
    "from a task": (get) => TaskScope.use((tasks) => Effect.flatMap(tasks.spawn(get), (task) => task.join)),
    "in a mask": (get) => Effect.uninterruptible(get),
    "from a shield": (get) => delayCancellation(get),
    "from a shield that lets go": (get) => stopCancellation(get)
  }
  for (const [name, way] of Object.entries(ways)) {
    it.effect(`${name}: is told so, and does not hang`, () =>
      Effect.gen(function* () {
        const shared: Shared.Shared<unknown, unknown> = yield* Shared.make(
          Effect.suspend(
            (): Effect.Effect<unknown, unknown, Owner> => way(shared.get as Effect.Effect<unknown>)
          ),
          { name: "config" }
        )
        expect(pathOf(yield* Effect.exit(shared.get))).toEqual(["config"])
      }).pipe(withOwner)
    )
  }

  it.effect("may catch it, and then ends with a value for all", () =>
    Effect.gen(function* () {
      const shared: Shared.Shared<string> = yield* Shared.make(
        Effect.suspend(
          (): Effect.Effect<string> =>
            Effect.catchCause(Effect.orDie(shared.get), () => Effect.succeed("without myself"))
        )
      )
      expect(yield* Effect.all([shared.get, shared.get], { concurrency: "unbounded" })).toEqual([
        "without myself",
        "without myself"
      ])
      expect(yield* shared.observers).toBe(0)
    }).pipe(withOwner)
  )

  it.effect("from its clean-up, for the run that would come after it: is told so", () =>
    Effect.gen(function* () {
      let path: unknown
      const shared: Shared.Shared<never> = yield* Shared.make(
        Effect.onInterrupt(Effect.never, () =>
          Effect.map(Effect.exit(shared.get), (exit) => {
            path = pathOf(exit)
          })
        ),
        { name: "config" }
      )
      yield* Fiber.interrupt(yield* observing(shared.get))
      yield* Effect.flatMap(Owner, (owner) => owner.drain())
      expect(path).toEqual(["config"])
    }).pipe(withOwner)
  )

  it.effect(
    "from its clean-up, when others wait for the next run already: is told so, and they get that run",
    () =>
      Effect.gen(function* () {
        let path: unknown
        let runs = 0
        const gate = yield* Deferred.make<void>()
        const shared: Shared.Shared<string> = yield* Shared.make(
          Effect.suspend(
            (): Effect.Effect<string> =>
              ++runs > 1
                ? Effect.succeed("second")
                : Effect.onInterrupt(Effect.never, () =>
                    Effect.flatMap(Effect.andThen(Deferred.await(gate), Effect.exit(shared.get)), (exit) =>
                      Effect.sync(() => {
                        path = pathOf(exit)
                      })
                    )
                  )
          ),
          { name: "config" }
        )
        yield* Fiber.interrupt(yield* observing(shared.get))
        const next = yield* observing(shared.get)
        yield* Deferred.succeed(gate, undefined)
        expect(yield* Fiber.join(next)).toBe("second")
        expect(path).toEqual(["config", "config"])
      }).pipe(withOwner)
  )

  it.effect("after it was invalidated: the new run would wait for the old one, unless they may overlap", () =>
    Effect.gen(function* () {
      for (const generations of ["exclusive", "overlap"] as const) {
        let runs = 0
        const shared: Shared.Shared<unknown> = yield* Shared.make(
          Effect.suspend(
            (): Effect.Effect<unknown> =>
              ++runs === 1
                ? Effect.andThen(shared.invalidate, Effect.orDie(shared.get))
                : Effect.succeed("second")
          ),
          { generations, name: "config" }
        )
        const exit = yield* Effect.exit(shared.get)
        if (generations === "exclusive") expect(pathOf(exit)).toEqual(["config"])
        else expect(exit).toMatchObject({ _tag: "Success", value: "second" })
      }
    }).pipe(withOwner)
  )
})

describe("a circle of runs", () => {
  it.effect("is told at the get that would close it, with the way round", () =>
    Effect.gen(function* () {
      const map: SharedMap.SharedMap<number, unknown> = yield* SharedMap.make(
        (key: number): Effect.Effect<unknown> => Effect.orDie(map.get((key + 1) % 3)),
        { name: "part" }
      )
      const exit = yield* Effect.exit(map.get(0))
      expect(pathOf(exit)).toEqual(["part(0)", "part(1)", "part(2)"])
      expect((defectOf(exit) as Error).message).toBe(
        'The shared work "part(0)" would wait for itself by way of "part(1)", "part(2)", and never end. Compute what it needs inside the run, or ask for it before the run starts.'
      )
      expect(yield* map.size).toBe(0)
    }).pipe(withOwner)
  )

  it("never hangs and is never found where there is none, whatever waits for whatever", () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 8 }).chain((size) =>
          fc.record({
            needs: fc.array(fc.uniqueArray(fc.nat(size - 1), { maxLength: 3 }), {
              minLength: size,
              maxLength: size
            }),
            ask: fc.array(fc.nat(size - 1), { minLength: 1, maxLength: 4 }),
            yields: fc.array(fc.boolean(), { minLength: size, maxLength: size })
          })
        ),
        ({ ask, needs, yields }) =>
          Effect.runPromise(
            Effect.gen(function* () {
              // The model: what can be reached from a key, and whether a circle can.
              const reach = (from: number, seen: Set<number>): boolean =>
                (needs[from] ?? []).some((next) => {
                  if (seen.has(next)) return true
                  return reach(next, new Set(seen).add(next))
                })
              const circular = (key: number) => reach(key, new Set([key]))
              const map: SharedMap.SharedMap<number, number> = yield* SharedMap.make(
                (key: number): Effect.Effect<number> =>
                  Effect.andThen(
                    yields[key] === true ? Effect.yieldNow : Effect.void,
                    Effect.map(
                      Effect.all(
                        (needs[key] ?? []).map((next) => Effect.orDie(map.get(next))),
                        { concurrency: "unbounded" }
                      ),
                      (parts) => parts.reduce((sum, part) => sum + part, 1)
                    )
                  )
              )
              const exits = yield* Effect.all(
                ask.map((key) => Effect.exit(map.get(key))),
                { concurrency: "unbounded" }
              )
              for (const [i, exit] of exits.entries()) {
                const found = defectOf(exit) instanceof SharedSelfWait
                expect([ask[i], found]).toEqual([ask[i], circular(ask[i] as number)])
              }
              yield* Effect.yieldNow
              expect(yield* map.size).toBe(0)
            }).pipe(withOwner)
          )
      ),
      runs(200)
    ))
})

describe("what only looks like it", () => {
  it.effect("background work that a run has started may ask for that run", () =>
    Effect.gen(function* () {
      const told = yield* Deferred.make<unknown>()
      const gate = yield* Deferred.make<void>()
      const shared: Shared.Shared<string> = yield* Shared.make(
        Effect.gen(function* () {
          yield* background(
            "reader",
            Effect.flatMap(Effect.exit(shared.get), (exit) => Deferred.succeed(told, exit))
          )
          yield* Deferred.await(gate)
          return "done"
        })
      )
      const observer = yield* observing(shared.get)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.join(observer)).toBe("done")
      expect(yield* Deferred.await(told)).toMatchObject({ _tag: "Success", value: "done" })
    }).pipe(withOwner)
  )

  it.effect("a run that waits for one which waited for it before, and no longer does", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const map: SharedMap.SharedMap<string, string> = yield* SharedMap.make(
        (key: string): Effect.Effect<string> =>
          key === "a"
            ? Effect.andThen(Deferred.await(gate), Effect.orDie(map.get("b")))
            : Effect.gen(function* () {
                const waits = yield* Effect.forkChild(Effect.orDie(map.get("a")), { startImmediately: true })
                yield* Fiber.interrupt(waits)
                yield* Deferred.succeed(gate, undefined)
                yield* Effect.yieldNow
                return "b"
              }),
        { whenUnobserved: "keep" }
      )
      const a = yield* observing(map.get("a"))
      expect(yield* map.get("b")).toBe("b")
      expect(yield* Fiber.join(a)).toBe("b")
    }).pipe(withOwner)
  )

  it.effect("a shared run that was made inside another and is asked for there", () =>
    Effect.gen(function* () {
      const outer = yield* Shared.make(
        Effect.gen(function* () {
          const inner = yield* Shared.make(Effect.succeed("inner"))
          return yield* Effect.orDie(inner.get)
        })
      )
      expect(yield* outer.get).toBe("inner")
    }).pipe(withOwner)
  )
})
