/** L44: cancellation crosses a mask by no road. */
import { CancelReason, isCancelled, outerReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { TestClock } from "effect/testing"
import { started } from "../../../test/support/recorder.ts"
import { bounded, CancelScope, failAfter, Instant, moveOnAfter, TaskScope } from "../src/index.ts"

const reason = CancelReason.Superseded()
type Gate = Deferred.Deferred<void>

/** What may stand inside a mask around work that waits for a gate. */
const insides: Record<string, (work: Effect.Effect<void>) => Effect.Effect<unknown, unknown>> = {
  "a scope": (work) => CancelScope.run(() => work),
  "a scope in a scope": (work) => CancelScope.run(() => CancelScope.run(() => work)),
  "a time limit": (work) => failAfter("1 hour")(work),
  "a task of a task scope": (work) =>
    TaskScope.use((tasks: TaskScope.TaskScope) => Effect.flatMap(tasks.spawn(work), (task) => task.join)),
  "a task of a made task scope": (work) =>
    Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        yield* (yield* tasks.spawn(work)).join
      })
    ),
  "a scope from a signal": (work) =>
    Effect.scoped(
      Effect.gen(function* () {
        const scope = yield* CancelScope.fromSignal(new AbortController().signal)
        yield* work
        expect(scope.signal.aborted).toBe(false)
      })
    ),
  "a scope in a child": (work) =>
    Effect.flatMap(
      Effect.forkChild(
        CancelScope.run(() => work),
        { startImmediately: true, uninterruptible: "inherit" }
      ),
      Fiber.join
    )
}

/** The roads by which a cancel may try to come. */
const roads: Record<
  string,
  (scope: CancelScope.CancelScope, fiber: Fiber.Fiber<unknown, unknown>) => Effect.Effect<unknown>
> = {
  "a cancel": (scope) => scope.cancel(reason),
  "a deadline": (scope) =>
    Effect.andThen(
      Effect.flatMap(Instant.after("1 second"), scope.setDeadline),
      TestClock.adjust("2 seconds")
    ),
  "a native interrupt": (_, fiber) => Effect.sync(() => fiber.interruptUnsafe())
}

describe("L44: cancellation crosses a mask by no road", () => {
  for (const [inside, put] of Object.entries(insides))
    for (const [road, send] of Object.entries(roads))
      it.effect(`L44: ${road} leaves ${inside} inside a mask alone, and is heard when the mask ends`, () =>
        Effect.gen(function* () {
          const gate: Gate = yield* Deferred.make<void>()
          const given = yield* Deferred.make<CancelScope.CancelScope>()
          const seen: Array<unknown> = []
          const work = Effect.gen(function* () {
            yield* Deferred.await(gate)
            yield* Effect.yieldNow
            seen.push("ended", yield* isCancelledInside)
          })
          const fiber = yield* started(
            CancelScope.run((scope) =>
              Effect.gen(function* () {
                yield* Deferred.succeed(given, scope)
                yield* Effect.uninterruptible(put(work))
                seen.push("ran on after the mask")
              })
            )
          )
          yield* send(yield* Deferred.await(given), fiber)
          yield* Effect.yieldNow
          yield* Effect.yieldNow
          yield* Effect.yieldNow
          expect(seen).toEqual([])
          yield* Deferred.succeed(gate, undefined)
          const exit = yield* Fiber.await(fiber)
          expect(seen[0]).toBe("ended")
          expect(seen).not.toContain("ran on after the mask")
          expect(exit._tag).toBe(road === "a native interrupt" ? "Failure" : "Success")
        })
      )

  // A scope from a signal has no fiber of its own: there the asking fiber is the masked one itself.
  const isCancelledInside = isCancelled

  it.effect("L44: what is inside can ask outwards", () =>
    Effect.gen(function* () {
      for (const put of [insides["a scope"], insides["a time limit"], insides["a task of a task scope"]]) {
        let asked: unknown
        yield* CancelScope.run((scope) =>
          Effect.uninterruptible(
            (put as (work: Effect.Effect<void>) => Effect.Effect<unknown>)(
              Effect.gen(function* () {
                yield* scope.cancel(reason)
                yield* Effect.yieldNow
                asked = [yield* isCancelled, yield* outerReason]
              })
            )
          )
        )
        expect(asked).toEqual([false, Option.some(reason)])
      }
    })
  )

  it.effect("L44: a scope inside a mask is cancelled by its own road, and the mask's work goes on", () =>
    Effect.gen(function* () {
      const outcome = yield* CancelScope.run(() =>
        Effect.uninterruptible(
          Effect.gen(function* () {
            const inner = yield* CancelScope.run((own) => Effect.andThen(own.cancel(reason), Effect.never))
            return inner._tag
          })
        )
      )
      expect(outcome).toEqual({ _tag: "Done", value: "Cancelled", cancelCalled: false })
    })
  )

  it.effect("L44: an own deadline fires inside a mask", () =>
    Effect.gen(function* () {
      const fiber = yield* started(Effect.uninterruptible(moveOnAfter("1 second")(Effect.never)))
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(fiber)).toEqual(Option.none())
    })
  )

  it.effect("L44: a scope in a restored region inside a mask is cancelled at once", () =>
    Effect.gen(function* () {
      const given = yield* Deferred.make<CancelScope.CancelScope>()
      const fiber = yield* started(
        CancelScope.run((scope) =>
          Effect.uninterruptibleMask((restore) =>
            Effect.andThen(Deferred.succeed(given, scope), restore(CancelScope.run(() => Effect.never)))
          )
        )
      )
      yield* (yield* Deferred.await(given)).cancel(reason)
      expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason })
    })
  )
})

describe("a wait for the own end", () => {
  const cases: Record<string, (wait: Effect.Effect<void>) => Effect.Effect<unknown, unknown>> = {
    "in a scope in a mask": (wait) => Effect.uninterruptible(CancelScope.run(() => wait)),
    "in a child in a mask": (wait) =>
      Effect.uninterruptible(Effect.flatMap(Effect.forkChild(wait, { uninterruptible: true }), Fiber.join)),
    "in a task in a mask": (wait) =>
      Effect.uninterruptible(
        TaskScope.use((tasks: TaskScope.TaskScope) => Effect.flatMap(tasks.spawn(wait), (task) => task.join))
      ),
    "in clean-up": (wait) => Effect.ensuring(Effect.void, Effect.asVoid(bounded(wait)))
  }
  for (const [where, put] of Object.entries(cases)) {
    it.effect(`cancelAndWait ${where} does not wait for itself`, () =>
      Effect.gen(function* () {
        let returned = false
        const outcome = yield* CancelScope.run((outer) =>
          put(
            Effect.andThen(
              outer.cancelAndWait(reason),
              Effect.sync(() => (returned = true))
            ) as never
          )
        )
        expect(outcome._tag).toBe("Cancelled")
        expect(returned).toBe(true)
      })
    )

    it.effect(`the cancel of a task scope ${where} does not wait for itself`, () =>
      Effect.gen(function* () {
        let returned = false
        yield* Effect.scoped(
          Effect.gen(function* () {
            const tasks = yield* TaskScope.make()
            const task = yield* tasks.spawn(
              Effect.orDie(
                put(
                  Effect.andThen(
                    tasks.cancel(reason),
                    Effect.sync(() => (returned = true))
                  ) as never
                )
              )
            )
            yield* task.exit
          })
        )
        expect(returned).toBe(true)
      })
    )
  }
})

describe("L44: what is forked inside a mask", () => {
  it.effect("L44: a time limit inside a time-out in a finalizer runs its clean-up", () =>
    Effect.gen(function* () {
      let closed = 0
      const close = Effect.sync(() => closed++)
      yield* CancelScope.run((scope) =>
        Effect.ensuring(
          Effect.andThen(scope.cancel(), Effect.never),
          Effect.ignore(Effect.timeout(failAfter(close, "1 second"), "5 seconds"))
        )
      )
      yield* CancelScope.run((scope) =>
        Effect.ensuring(
          Effect.andThen(scope.cancel(), Effect.never),
          bounded(Effect.ignore(Effect.timeout(failAfter(close, "1 second"), "5 seconds")))
        )
      )
      expect(closed).toBe(2)
    })
  )

  it.effect("L2: tasks that outlive the scope they were made in are reached from above it", () =>
    Effect.gen(function* () {
      const outcome = yield* CancelScope.run((outer) =>
        Effect.scoped(
          Effect.gen(function* () {
            const tasks = yield* failAfter(TaskScope.make({ name: "pool" }), "1 second")
            const task = yield* tasks.spawn(Effect.never)
            yield* Effect.uninterruptible(
              Effect.andThen(
                outer.cancel(),
                Effect.map(task.status, (status) => expect(status).toBe("ended"))
              )
            )
          })
        )
      )
      expect(outcome._tag).toBe("Cancelled")
    })
  )
})
