/** L45: scopes and tasks nested ten thousand deep end in success or a typed error. */
import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { fiberCount, started } from "../../../test/support/recorder.ts"
import { bounded, CancelScope, failAfter, TaskScope } from "../src/index.ts"

const deep = 10_000
const reason = CancelReason.Superseded()
type Nest = (work: Effect.Effect<unknown, unknown>) => Effect.Effect<unknown, unknown>

const nests: Record<string, Nest> = {
  "cancel scopes": (work) => CancelScope.run(() => work),
  "cancel scopes that fork their body's work": (work) =>
    CancelScope.run(() => Effect.flatMap(Effect.forkChild(work), Fiber.join)),
  "time limits": (work) => failAfter("1 hour")(work),
  "task scopes": (work) => TaskScope.use(() => work),
  "tasks that are joined": (work) =>
    TaskScope.use((tasks: TaskScope.TaskScope) => Effect.flatMap(tasks.spawn(work), (task) => task.join)),
  "tasks whose exit is awaited": (work) =>
    TaskScope.use((tasks: TaskScope.TaskScope) =>
      Effect.flatMap(tasks.spawn(work), (task) => Effect.flatten(task.exit))
    ),
  "tasks of made scopes": (work) =>
    Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        return yield* (yield* tasks.spawn(work)).join
      })
    ),
  "tasks that the scope's end waits for": (work) =>
    TaskScope.use((tasks: TaskScope.TaskScope) => tasks.spawn(work)),
  "clean-up with a budget": (work) => bounded(work),
  "time limits with a receiver": (work) => failAfter(work, "1 hour", { onLate: () => Effect.void }),
  "scopes inside masks": (work) => Effect.uninterruptible(CancelScope.run(() => work))
}

const nested = (nest: Nest, work: Effect.Effect<unknown, unknown>) => {
  const at = (depth: number): Effect.Effect<unknown, unknown> =>
    depth === 0 ? work : nest(Effect.suspend(() => at(depth - 1)))
  return at(deep)
}

// Seconds on a busy machine.
describe("L45: any depth", { timeout: 60_000 }, () => {
  for (const [name, nest] of Object.entries(nests)) {
    it.effect(`L45: ${name}, ten thousand deep, succeed at once and after a wait`, () =>
      Effect.gen(function* () {
        const { around, count } = fiberCount()
        let reached = 0
        const reach = Effect.sync(() => {
          reached++
        })
        yield* around(nested(nest, reach))
        yield* around(nested(nest, Effect.andThen(Effect.yieldNow, reach)))
        expect(reached).toBe(2)
        expect(count.live).toBe(0)
      })
    )

    it.effect(`L45: ${name}, ten thousand deep, fail with the typed error of the bottom`, () =>
      Effect.gen(function* () {
        const fail = Effect.andThen(Effect.yieldNow, Effect.fail("bottom"))
        expect(yield* Effect.flip(nested(nest, fail))).toBe("bottom")
      })
    )

    // In a mask, and in clean-up, no cancel comes to the bottom.
    if (name === "scopes inside masks" || name === "clean-up with a budget") continue
    it.effect(
      `L45: ${name}, ten thousand deep, are cancelled from the top and through a native interrupt`,
      () =>
        Effect.gen(function* () {
          const { around, count } = fiberCount()
          for (const road of ["cancel", "interrupt"] as const) {
            const bottom = yield* Deferred.make<void>()
            const given = yield* Deferred.make<CancelScope.CancelScope>()
            let closed = 0
            const fiber = yield* started(
              around(
                CancelScope.run((scope) =>
                  Effect.andThen(
                    Deferred.succeed(given, scope),
                    nested(
                      nest,
                      Effect.ensuring(
                        Effect.andThen(Deferred.succeed(bottom, undefined), Effect.never),
                        Effect.sync(() => {
                          closed++
                        })
                      )
                    )
                  )
                )
              )
            )
            yield* Deferred.await(bottom)
            if (road === "cancel") yield* (yield* Deferred.await(given)).cancel(reason)
            else fiber.interruptUnsafe()
            const exit = yield* Fiber.await(fiber)
            expect(exit._tag).toBe(road === "cancel" ? "Success" : "Failure")
            expect(closed).toBe(1)
            expect(count.live).toBe(0)
          }
        })
    )
  }
})

describe("L45: one cancel that sets off the next", { timeout: 60_000 }, () => {
  it.effect("L45: ten thousand waiters in a row, each of which cancels the next one's scope", () =>
    Effect.gen(function* () {
      const { around, count } = fiberCount()
      const scopes: Array<CancelScope.CancelScope> = []
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < deep; i++) {
        yield* started(
          around(
            CancelScope.run((scope) => {
              scopes.push(scope)
              return Effect.never
            })
          )
        )
        fibers.push(
          yield* started(
            around(
              Effect.flatMap(
                Effect.suspend(() => (scopes[i] as CancelScope.CancelScope).awaitCancelled),
                (why) => scopes[i + 1]?.cancel(why) ?? Effect.void
              )
            )
          )
        )
      }
      yield* (scopes[0] as CancelScope.CancelScope).cancel(reason)
      for (const fiber of fibers) expect((yield* Fiber.await(fiber))._tag).toBe("Success")
      yield* Effect.yieldNow
      expect(count.live).toBe(0)
    })
  )
})
