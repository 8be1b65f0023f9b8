import { Owner, TaskScope } from "@curfew/scope"
import { Shared, type SharedCancelled, SharedMap, type SharedStatistics } from "@curfew/singleflight"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { describe, expect, test } from "vitest"
import { type Swept, sweep, sweepAll } from "../../../test/support/sweep.ts"

const atRest = { observers: 0, waiting: 0, running: 0, cleaningUp: 0, stuck: 0 }

interface World {
  active: number
  mostActive: number
  statistics: Effect.Effect<SharedStatistics> | undefined
}

/** Work that takes a few steps, with a clean-up that takes some more. */
const working = (world: World): Effect.Effect<number> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      world.active++
      world.mostActive = Math.max(world.mostActive, world.active)
    }),
    () => Effect.andThen(Effect.sleep("5 millis"), Effect.succeed(1)),
    () =>
      Effect.andThen(
        Effect.sleep("2 millis"),
        Effect.sync(() => {
          world.active--
        })
      )
  )

type Body = (
  work: Effect.Effect<number>,
  world: World
) => Effect.Effect<number, SharedCancelled, Owner | Scope.Scope>

const swept =
  (body: Body): (() => Swept<number, SharedCancelled>) =>
  () => {
    const world: World = { active: 0, mostActive: 0, statistics: undefined }
    return {
      program: Effect.suspend(() => {
        world.mostActive = 0
        return Effect.provide(Effect.scoped(body(working(world), world)), Owner.layer())
      }),
      after: () => {
        expect(world.active).toBe(0)
        expect(world.mostActive).toBeLessThan(2)
        if (world.statistics !== undefined) expect(Effect.runSync(world.statistics)).toMatchObject(atRest)
      }
    }
  }

const shared = (options?: Shared.Options<number, never>): ReturnType<typeof swept> =>
  swept((work, world) =>
    Effect.gen(function* () {
      const one = yield* Shared.make(work, options)
      world.statistics = one.statistics
      const other = yield* Effect.forkChild(one.get)
      const mine = yield* one.get
      return mine + (yield* Fiber.join(other))
    })
  )

describe("cancelled at every step", () => {
  test.each([
    ["the default", {}],
    ["a linger", { whenUnobserved: { linger: "3 millis" } }],
    ["keep", { whenUnobserved: "keep" }],
    ["retention", { retain: () => "1 minute" }],
    ["linked spans", { context: "linked" }]
  ] as ReadonlyArray<readonly [string, Shared.Options<number, never>]>)(
    "L8 L30 L31 L32: two observers of one run leave neither observer, run nor timer behind, with %s",
    async (_, options) => {
      const steps = await sweepAll(shared(options))
      expect(Math.min(...steps)).toBeGreaterThan(30)
    },
    60_000
  )

  test("L8 L32: an observer that leaves and comes back finds an exclusive generation", async () => {
    const steps = await sweepAll(
      swept((work, world) =>
        Effect.gen(function* () {
          const one = yield* Shared.make(work)
          world.statistics = one.statistics
          const first = yield* Effect.forkChild(one.get, { startImmediately: true })
          yield* Fiber.interrupt(first)
          return yield* one.get
        })
      )
    )
    expect(Math.min(...steps)).toBeGreaterThan(30)
  }, 60_000)

  test("L35: cancelling the source at any step ends in the error or the value, never in an interrupt", async () => {
    const steps = await sweepAll(
      swept((work, world) =>
        Effect.gen(function* () {
          const one = yield* Shared.make(work)
          world.statistics = one.statistics
          const observer = yield* Effect.forkChild(one.get, { startImmediately: true })
          yield* one.cancel()
          const told = yield* Effect.flip(Fiber.join(observer)).pipe(Effect.orDie)
          expect(told._tag).toBe("SharedCancelled")
          return yield* one.get
        })
      )
    )
    expect(Math.min(...steps)).toBeGreaterThan(30)
  }, 60_000)

  test("L46: attached to its observer, a run is over when its observer is", async () => {
    const steps = await sweepAll(
      swept((work, world) =>
        Effect.gen(function* () {
          const owner = yield* TaskScope.make()
          yield* owner.close
          const map = yield* SharedMap.make((_: string) => work, { owner })
          world.statistics = map.statistics
          return yield* Effect.onExit(map.get("a"), () =>
            Effect.sync(() => {
              if (world.active > 0) throw new Error("the run goes on without its host")
            })
          )
        })
      )
    )
    expect(Math.min(...steps)).toBeGreaterThan(20)
  }, 60_000)

  test("L8 L30: whichever fiber is interrupted, the map is at rest afterwards", async () => {
    const program = swept((work, world) =>
      Effect.gen(function* () {
        const map = yield* SharedMap.make((_: string) => work, { retain: () => "1 millis", capacity: 1 })
        world.statistics = map.statistics
        const got = yield* Effect.forEach(["a", "a"], (key) => Effect.exit(map.get(key)), {
          concurrency: "unbounded"
        })
        return got.length
      })
    )
    expect(await sweep(program, { cancel: "any" })).toBeGreaterThan(30)
    expect(await sweep(program, { cancel: "any", twice: true })).toBeGreaterThan(30)
  }, 60_000)
})
