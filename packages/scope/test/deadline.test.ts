import { CancelReason, currentReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { fiberCount, held, started } from "../../../test/support/recorder.ts"
import { runs } from "../../../test/support/seed.ts"
import { CancelScope, failAfter, Instant, moveOnAfter, TaskScope } from "../src/index.ts"

const millis = (at: Option.Option<Instant.Instant>) => (Option.isSome(at) ? Math.round(at.value) : undefined)

describe("Instant", () => {
  it.effect("lies the duration ahead on the monotonic clock", () =>
    Effect.gen(function* () {
      const start = yield* Instant.now
      expect(yield* Instant.after("1 second")).toBe(start + 1000)
      expect(yield* Instant.after("-1 second")).toBe(start - 1000)
      expect(yield* Instant.after(Duration.infinity)).toBe(Instant.never)
      yield* TestClock.adjust("3 seconds")
      expect(yield* Instant.now).toBe(start + 3000)
    })
  )
})

describe("L7: deadlines are inherited and have an identity", () => {
  it.effect("L7: the effective deadline is the minimum of the own and the ancestors'", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.array(fc.option(fc.integer({ min: 1, max: 10_000 }), { nil: undefined }), {
            minLength: 1,
            maxLength: 8
          }),
          (own) => {
            const nest = (depth: number): Effect.Effect<Array<number | undefined>> =>
              depth === own.length
                ? Effect.succeed([])
                : Effect.gen(function* () {
                    const delay = own[depth]
                    const deadline = delay === undefined ? undefined : yield* Instant.after(delay)
                    const outcome = yield* CancelScope.run(
                      (scope) =>
                        Effect.gen(function* () {
                          const mine = millis(yield* scope.deadline)
                          return [mine, ...(yield* nest(depth + 1))]
                        }),
                      { deadline }
                    )
                    return outcome._tag === "Done" ? outcome.value : []
                  })
            return Effect.runPromise(
              Effect.gen(function* () {
                const seen = yield* nest(0)
                const expected = own.map((_, i) =>
                  own
                    .slice(0, i + 1)
                    .reduce((a, b) => (a === undefined ? b : b === undefined ? a : Math.min(a, b)))
                )
                expect(seen).toEqual(expected)
              }).pipe(Effect.provide(TestClock.layer()))
            )
          }
        ),
        runs(50)
      )
    )
  )

  it.effect("L7: and stops at a mask", () =>
    Effect.gen(function* () {
      const deadline = yield* Instant.after("1 second")
      const outcome = yield* CancelScope.run(
        () => Effect.uninterruptible(CancelScope.run((inner) => inner.deadline)),
        { deadline }
      )
      expect(outcome).toMatchObject({ value: { value: Option.none() } })
    })
  )

  it.effect("L7: the reason names the scope whose deadline fired, for every scope below", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const fiber = yield* started(
        moveOnAfter("1 second", { name: "outer" })(
          failAfter("1 hour", { name: "inner" })(
            Effect.onExit(Effect.never, () => Effect.map(currentReason, (why) => seen.push(why)))
          )
        )
      )
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(fiber)).toEqual(Option.none())
      const reason = CancelReason.Deadline({ at: 1000, origin: "local", scope: "outer" })
      expect(seen).toEqual([Option.some(reason)])
    })
  )

  it.effect("L7: an inner time-out is never taken for an outer one, nor the other way round", () =>
    Effect.gen(function* () {
      for (const [outer, inner, expected] of [
        [1, 2, "outer"],
        [2, 1, "inner"],
        [1, 1, "outer"]
      ] as const) {
        const fiber = yield* started(
          Effect.never.pipe(
            failAfter(Duration.seconds(inner), { name: "inner" }),
            Effect.catchTag("DeadlineExceeded", (error) => Effect.succeed(error.scope)),
            failAfter(Duration.seconds(outer), { name: "outer" }),
            Effect.catchTag("DeadlineExceeded", (error) => Effect.succeed(error.scope))
          )
        )
        yield* TestClock.adjust("3 seconds")
        expect(yield* Fiber.join(fiber)).toBe(expected)
      }
    })
  )

  it.effect("L7: a deadline above reaches tasks and forked children", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const see = Effect.onExit(Effect.never, () =>
        Effect.map(currentReason, (why) => seen.push(Option.isSome(why) && why.value._tag))
      )
      const fiber = yield* started(
        moveOnAfter("1 second")(
          TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
            Effect.gen(function* () {
              yield* tasks.spawn(see)
              yield* Effect.forkChild(see, { startImmediately: true })
              yield* Effect.never
            })
          )
        )
      )
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(fiber)).toEqual(Option.none())
      expect(seen).toEqual(["Deadline", "Deadline"])
    })
  )
})

describe("setDeadline", () => {
  const withScope = (
    body: (
      scope: CancelScope.CancelScope,
      fiber: Fiber.Fiber<CancelScope.Outcome<never>>
    ) => Effect.Effect<unknown>
  ) =>
    Effect.gen(function* () {
      const given = yield* Deferred.make<CancelScope.CancelScope>()
      const fiber = yield* started(
        CancelScope.run((scope) => Effect.andThen(Deferred.succeed(given, scope), Effect.never))
      )
      yield* body(yield* Deferred.await(given), fiber)
    })

  it.effect("moves the deadline later, earlier, away, and into the past", () =>
    withScope((scope, fiber) =>
      Effect.gen(function* () {
        yield* scope.setDeadline(yield* Instant.after("1 second"))
        yield* scope.setDeadline(yield* Instant.after("1 minute"))
        yield* TestClock.adjust("30 seconds")
        expect(fiber.pollUnsafe()).toBeUndefined()
        yield* scope.setDeadline(Instant.never)
        yield* TestClock.adjust("1 hour")
        expect(fiber.pollUnsafe()).toBeUndefined()
        expect(yield* scope.deadline).toEqual(Option.none())
        yield* scope.setDeadline(yield* Instant.after("-1 second"))
        yield* TestClock.adjust(1)
        expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "Cancelled", reason: { _tag: "Deadline" } })
      })
    )
  )

  it.effect("does nothing once cancelled", () =>
    Effect.gen(function* () {
      const { around, count } = fiberCount()
      const { gate, work } = held()
      const given = yield* Deferred.make<CancelScope.CancelScope>()
      const fiber = yield* started(
        around(CancelScope.run((scope) => Effect.andThen(Deferred.succeed(given, scope), work)))
      )
      const scope = yield* Deferred.await(given)
      yield* scope.cancel(CancelReason.Superseded())
      const before = count.started
      yield* scope.setDeadline(yield* Instant.after("1 second"))
      expect(count.started).toBe(before)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.join(fiber)).toMatchObject({ reason: { _tag: "Superseded" } })
    })
  )

  it.effect("L8: arms no timer once the scope has ended", () =>
    Effect.gen(function* () {
      const { around, count } = fiberCount()
      const outcome = yield* around(CancelScope.run((scope) => Effect.succeed(scope)))
      if (outcome._tag === "Done") yield* around(outcome.value.setDeadline(yield* Instant.after("1 hour")))
      expect(count.live).toBe(0)
    })
  )

  it.effect("L8: a deadline that never comes costs neither fiber nor timer", () =>
    Effect.gen(function* () {
      const { around, count } = fiberCount()
      yield* around(CancelScope.run((scope) => scope.setDeadline(Instant.never), { deadline: Instant.never }))
      // The body's.
      expect(count.started).toBe(1)
    })
  )
})
