/**
 * Shared work and gathers under many schedules: fibers are made to yield before any operation, by a seed. A failure
 * prints the shortest schedule that shows it and the seed, by which `replay` goes over it again.
 */
import { gather } from "@curfew/gather"
import { OnUnhandled, Owner, type Task, TaskScope } from "@curfew/scope"
import { Shared, SharedMap, SharedSelfWait } from "@curfew/singleflight"
import { explore, formatExplore, Probe } from "@curfew/testing"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { describe, expect, test } from "vitest"
import { runs, seed } from "./support/seed.ts"

const schedules = runs(300).numRuns

/** An owner of the run's own: it has ended when the run has. */
const owner = Effect.provide(Owner.layer({ drain: 0 }))

const holds = async (name: string, program: Effect.Effect<ReadonlyArray<string>>) => {
  const subject = {
    name,
    setup: Effect.gen(function* () {
      let wrong: ReadonlyArray<string> | undefined
      yield* Probe.invariant("what the law says", () =>
        Effect.sync(() => wrong !== undefined && wrong.length === 0)
      )
      return Effect.map(program, (found) => {
        wrong = found
      })
    })
  }
  const report = await Effect.runPromise(explore(subject, { schedules, seed }))
  expect(report.ok, formatExplore(report)).toBe(true)
}

const unless = (right: boolean, what: string): ReadonlyArray<string> => (right ? [] : [what])

describe("under every seeded schedule", () => {
  test("L29, L30, L31: observers that stay share one exit, whoever leaves, and a run nobody wants ends", () =>
    holds(
      "shared work with one that leaves",
      Effect.gen(function* () {
        let active = 0
        let most = 0
        const work = Effect.acquireUseRelease(
          Effect.sync(() => {
            most = Math.max(most, ++active)
          }),
          () => Effect.as(Effect.andThen(Effect.yieldNow, Effect.yieldNow), "done"),
          () => Effect.sync(() => --active)
        )
        const shared = yield* Shared.make(work)
        const [leaving, ...staying] = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(shared.get))
        yield* Fiber.interrupt(leaving as Fiber.Fiber<string, unknown>)
        const exits = yield* Effect.forEach(staying, (fiber) => Fiber.await(fiber))
        const late = yield* Effect.forkChild(shared.get)
        yield* Effect.yieldNow
        yield* Fiber.interrupt(late)
        yield* Effect.flatMap(Owner, (tasks) => tasks.drain())
        return [
          ...unless(
            exits.every((exit) => Exit.isSuccess(exit) && exit.value === "done"),
            "an observer that stayed has no value"
          ),
          ...unless(most === 1, "two runs at once"),
          ...unless(active === 0, "a run is left")
        ]
      }).pipe(owner)
    ))

  test("L35: observers of a source that is cancelled get its exit or SharedCancelled, never an interrupt", () =>
    holds(
      "a cancelled source",
      Effect.gen(function* () {
        const shared = yield* Shared.make(Effect.as(Effect.yieldNow, "done"))
        const observers = yield* Effect.forEach([1, 2], () => Effect.forkChild(shared.get))
        yield* Effect.yieldNow
        yield* shared.cancel()
        const exits = yield* Effect.forEach(observers, (fiber) => Fiber.await(fiber))
        return unless(
          exits.every((exit) => Exit.isSuccess(exit) || !Cause.hasInterrupts(exit.cause)),
          "an observer was interrupted"
        )
      }).pipe(owner)
    ))

  test("L8: runs that wait for one another in a circle, asked for from every side, all end", () =>
    holds(
      "a circle of runs",
      Effect.gen(function* () {
        const map: SharedMap.SharedMap<number, unknown> = yield* SharedMap.make(
          (key: number): Effect.Effect<unknown> =>
            Effect.andThen(Effect.yieldNow, Effect.orDie(map.get((key + 1) % 3)))
        )
        const asked = yield* Effect.forEach([0, 1, 2], (key) => Effect.forkChild(map.get(key)))
        const exits = yield* Effect.forEach(asked, (fiber) => Fiber.await(fiber))
        return unless(
          exits.every((exit) => Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof SharedSelfWait),
          "not everybody was told"
        )
      }).pipe(owner)
    ))

  test("L21, L22, L23: a gather returns when none of its items runs, with a failure unwrapped", () =>
    holds(
      "two that fail and one that cleans up",
      Effect.gen(function* () {
        let running = 0
        const item = <E>(work: Effect.Effect<unknown, E>) =>
          Effect.acquireUseRelease(
            Effect.sync(() => ++running),
            () => work,
            () =>
              Effect.andThen(
                Effect.yieldNow,
                Effect.sync(() => --running)
              )
          )
        const exit = yield* Effect.exit(
          gather([
            item(Effect.andThen(Effect.yieldNow, Effect.fail("a"))),
            item(Effect.andThen(Effect.yieldNow, Effect.fail("b"))),
            item(Effect.never)
          ])
        )
        return [
          ...unless(running === 0, "an item still runs"),
          ...unless(
            Exit.isFailure(exit) && exit.cause.reasons.length === 1 && exit.cause.reasons[0]?._tag === "Fail",
            "the failure is wrapped"
          )
        ]
      }).pipe(Effect.provideService(OnUnhandled, () => Effect.void))
    ))

  test("L24, L27: a task scope that closes while others spawn takes or refuses each, and ends with none", () =>
    holds(
      "spawn against close",
      Effect.gen(function* () {
        let open = 0
        let refused = 0
        const taken: Array<Task<unknown, never>> = []
        const work = Effect.acquireUseRelease(
          Effect.sync(() => ++open),
          () => Effect.yieldNow,
          () => Effect.sync(() => --open)
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            const tasks = yield* TaskScope.make()
            const spawning = yield* Effect.forEach([1, 2, 3], () =>
              Effect.forkChild(
                Effect.match(tasks.spawn(work), {
                  onFailure: () => ++refused,
                  onSuccess: (task) => taken.push(task)
                })
              )
            )
            yield* Effect.yieldNow
            yield* tasks.close
            yield* Effect.forEach(spawning, (fiber) => Fiber.await(fiber))
          })
        )
        const states = yield* Effect.forEach(taken, (task) => task.status)
        return [
          ...unless(open === 0 && states.every((state) => state === "ended"), "a task outlived its scope"),
          ...unless(taken.length + refused === 3, "a spawn was neither taken nor refused")
        ]
      })
    ))
})
