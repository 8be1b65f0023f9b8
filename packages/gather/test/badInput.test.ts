import { gather } from "@curfew/gather"
import { CancelScope, OnUnhandled, Owner, TaskScope, type Unhandled } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { broken, complaintOf, defectOf, noCounts, throwing, thrown } from "../../../test/support/badInput.ts"

const forked = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

describe("a concurrency", () => {
  for (const concurrency of [...noCounts.filter((count) => count !== null), 0, -0]) {
    it.effect(
      `of ${Object.is(concurrency, -0) ? "minus zero" : (JSON.stringify(concurrency) ?? concurrency)} (${concurrency}) is an IllegalArgument, and no item starts`,
      () =>
        Effect.gen(function* () {
          let started = 0
          const exit = yield* Effect.exit(gather([Effect.sync(() => ++started)], { concurrency }))
          expect(complaintOf(exit)).toMatch(
            /^The concurrency of gather is .*\. Pass a whole number from 1 on, or Infinity for no limit\.$/
          )
          expect(started).toBe(0)
        })
    )
  }

  it.effect("of infinity and beyond the number of items is all of them", () =>
    Effect.gen(function* () {
      for (const concurrency of [Number.POSITIVE_INFINITY, Number.MAX_SAFE_INTEGER]) {
        expect(yield* gather([Effect.succeed(1), Effect.succeed(2)], { concurrency })).toEqual([1, 2])
      }
    })
  )
})

describe("items", () => {
  it.effect("whose iterator or getter throws are a defect, and none of them starts", () =>
    Effect.gen(function* () {
      let started = 0
      const item = Effect.sync(() => ++started)
      const iterating = {
        *[Symbol.iterator]() {
          yield item
          throw thrown
        }
      }
      const getting = {
        first: item,
        get second(): typeof item {
          throw thrown
        }
      }
      expect(defectOf(yield* Effect.exit(gather(iterating)))).toBe(thrown)
      expect(defectOf(yield* Effect.exit(gather(getting)))).toBe(thrown)
      expect(started).toBe(0)
    })
  )

  it.effect("that throw are defects of the gather", () =>
    Effect.gen(function* () {
      expect(defectOf(yield* Effect.exit(gather([Effect.never, Effect.sync(throwing)])))).toBe(thrown)
      expect(defectOf(yield* Effect.exit(gather({ a: Effect.suspend(broken) })))).toBe(thrown)
    })
  )

  it.effect("none at all give nothing, in the shape that was asked for", () =>
    Effect.gen(function* () {
      expect(yield* gather([])).toEqual([])
      expect(yield* gather({})).toEqual({})
      expect(yield* gather(new Set<Effect.Effect<number>>())).toEqual([])
    })
  )

  it.effect("under keys that mean something to objects keep them", () =>
    Effect.gen(function* () {
      const items = Object.fromEntries(
        ["__proto__", "constructor", "toString", "", "a\nb"].map((key) => [key, Effect.succeed(key)])
      )
      const results = yield* gather(items)
      expect(Object.keys(results)).toEqual(Object.keys(items))
      expect(Object.values(results)).toEqual(Object.keys(items))
      expect(Object.getPrototypeOf(results)).toBe(Object.prototype)
    })
  )

  it.effect(
    "whose clean-up cancels the scope around or throws: each ends once, and the gather after all of them",
    () =>
      Effect.gen(function* () {
        const heard: Array<Unhandled> = []
        let ended = 0
        const outcome = yield* CancelScope.run((scope) => {
          const again = Effect.onInterrupt(Effect.never, () =>
            Effect.map(scope.cancel(), () => {
              ended++
            })
          )
          const broken = Effect.onInterrupt(Effect.never, () =>
            Effect.sync(() => {
              ended++
              throwing()
            })
          )
          return gather([again, broken, again, Effect.asVoid(scope.cancel())])
        }).pipe(Effect.provideService(OnUnhandled, (unhandled) => Effect.sync(() => heard.push(unhandled))))
        expect(outcome._tag).toBe("Cancelled")
        expect(ended).toBe(3)
        expect(heard.map(({ cause }) => Cause.squash(cause))).toEqual([thrown])
      })
  )
})

describe("letFinish under an owner that", () => {
  it.effect("fails fast: an item that fails later is reported once and cancels nobody", () =>
    Effect.gen(function* () {
      const heard: Array<Unhandled> = []
      const gate = yield* Deferred.make<never, string>()
      const exit = yield* TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
        Effect.gen(function* () {
          const other = yield* tasks.spawn(Effect.never, { name: "other" })
          const gathered = gather([Deferred.await(gate), Effect.fail("first")], { onFailure: "letFinish" })
          expect(
            yield* Effect.exit(Effect.provideService(gathered, Owner, tasks as TaskScope.TaskScope))
          ).toEqual(Exit.fail("first"))
          yield* Deferred.fail(gate, "second")
          yield* Effect.yieldNow
          expect(yield* other.status).toBe("running")
          yield* other.cancel()
          return "went on"
        })
      ).pipe(
        Effect.provideService(OnUnhandled, (unhandled) => Effect.sync(() => heard.push(unhandled))),
        Effect.exit
      )
      expect(exit).toEqual(Exit.succeed("went on"))
      expect(heard.map(({ cause }) => Cause.squash(cause))).toEqual(["second"])
    })
  )

  it.effect("is closed waits for the items itself", () =>
    Effect.gen(function* () {
      const closed = yield* TaskScope.make()
      yield* closed.close
      const gate = yield* Deferred.make<void>()
      const fiber = yield* forked(
        Effect.provideService(
          gather([Deferred.await(gate), Effect.fail("first")], { onFailure: "letFinish" }),
          Owner,
          closed
        )
      )
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.await(fiber)).toEqual(Exit.fail("first"))
    })
  )
})
