import { CancelScope, failAfter, TaskScope } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { exitOf, started } from "../../../test/support/recorder.ts"
import { CurrentCell, Interruption } from "../src/CancelCell.ts"
import {
  CancelReason,
  currentReason,
  fromCause,
  isCancelled,
  outerReason,
  ownInterrupt
} from "../src/index.ts"

const reason = CancelReason.Requested({ message: "the tab was closed" })
const some = Option.some(reason)

/** Reads all the questions when the work is stopped. */
const asking = (
  read: (seen: {
    current: Option.Option<CancelReason>
    outer: Option.Option<CancelReason>
    is: boolean
  }) => void
) =>
  Effect.onExit(Effect.never, () =>
    Effect.gen(function* () {
      read({ current: yield* currentReason, outer: yield* outerReason, is: yield* isCancelled })
    })
  )

const yes = { current: some, outer: some, is: true }

describe("L6: the reason is read in every descendant", () => {
  const places: Record<string, (work: Effect.Effect<never>) => Effect.Effect<unknown, unknown>> = {
    "the body itself": (work) => work,
    "a forked child": (work) =>
      Effect.flatMap(Effect.forkChild(work, { startImmediately: true }), Fiber.await),
    "a fiber forked in a Scope": (work) =>
      Effect.scoped(Effect.andThen(Effect.forkScoped(work, { startImmediately: true }), Effect.never)),
    "an item of a concurrent all": (work) =>
      Effect.all([Effect.void, work, Effect.never], { concurrency: "unbounded" }),
    "an item of a concurrent forEach": (work) => Effect.forEach([1, 2], () => work, { concurrency: 2 }),
    "a side of a race": (work) => Effect.race(work, Effect.never),
    "a side of raceFirst": (work) => Effect.raceFirst(Effect.never, work),
    "the body of a native time-out": (work) => Effect.timeoutOption(work, "1 hour"),
    "the body of a time limit": (work) => failAfter("1 hour")(work),
    "a scope inside": (work) => CancelScope.run(() => work),
    "a task": (work) => TaskScope.use((tasks: TaskScope.TaskScope<never>) => tasks.spawn(work)),
    "a task's child in a scope in a race": (work) =>
      TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
        tasks.spawn(
          Effect.race(
            Effect.never,
            CancelScope.run(() => Effect.flatMap(Effect.forkChild(work), Fiber.join))
          )
        )
      )
  }
  for (const [place, put] of Object.entries(places))
    it.effect(`L6: in ${place}`, () =>
      Effect.gen(function* () {
        const seen: Array<unknown> = []
        const ready = yield* Deferred.make<void>()
        const work = Effect.andThen(
          Deferred.succeed(ready, undefined),
          asking((all) => seen.push(all))
        )
        const given = yield* Deferred.make<CancelScope.CancelScope>()
        const fiber = yield* started(
          CancelScope.run((scope) => Effect.andThen(Deferred.succeed(given, scope), put(work)))
        )
        yield* Deferred.await(ready)
        yield* Effect.yieldNow
        yield* (yield* Deferred.await(given)).cancel(reason)
        const exit = yield* Fiber.await(fiber)
        expect(exit).toEqual(Exit.succeed({ _tag: "Cancelled", reason }))
        expect(seen.length).toBeGreaterThan(0)
        for (const one of seen) expect(one).toEqual(yes)
      })
    )

  it.effect("L6: the nearest cancelled ancestor's first reason is read, not one further up", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const outer = yield* Deferred.make<CancelScope.CancelScope>()
      const inner = yield* Deferred.make<CancelScope.CancelScope>()
      const gate = yield* Deferred.make<void>()
      const fiber = yield* started(
        CancelScope.run((a) =>
          Effect.andThen(
            Deferred.succeed(outer, a),
            CancelScope.run((b) =>
              Effect.andThen(
                Deferred.succeed(inner, b),
                Effect.onExit(Effect.never, () =>
                  Effect.andThen(
                    Deferred.await(gate),
                    Effect.map(currentReason, (r) => seen.push(r))
                  )
                )
              )
            )
          )
        )
      )
      yield* (yield* Deferred.await(inner)).cancel(reason)
      yield* (yield* Deferred.await(outer)).cancel(CancelReason.Superseded())
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.await(fiber)
      expect(seen).toEqual([some])
    })
  )
})

describe("currentReason, outerReason and isCancelled", () => {
  it.effect("say no where nothing is cancelled, in a mask and a finalizer too", () =>
    Effect.gen(function* () {
      const no = Effect.all([currentReason, outerReason, isCancelled, ownInterrupt])
      const answers = [Option.none(), Option.none(), false, undefined]
      expect(yield* no).toEqual(answers)
      expect(yield* Effect.uninterruptible(no)).toEqual(answers)
      let seen: unknown
      yield* Effect.ensuring(
        Effect.void,
        Effect.map(no, (all) => {
          seen = all
        })
      )
      expect(seen).toEqual(answers)
      expect(yield* CancelScope.run(() => no)).toMatchObject({ value: answers })
    })
  )

  it.effect("a native interrupt reads Unknown in a mask, a finalizer and nested finalizers", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const ask = Effect.map(Effect.all([currentReason, outerReason, isCancelled]), (all) => seen.push(all))
      const gate = yield* Deferred.make<void>()
      const fiber = yield* started(
        Effect.onExit(Effect.uninterruptible(Effect.andThen(Deferred.await(gate), ask)), () =>
          Effect.onExit(ask, () => Effect.asVoid(ask))
        )
      )
      fiber.interruptUnsafe()
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.await(fiber)
      const unknown = Option.some(CancelReason.Unknown())
      expect(seen).toEqual([
        [unknown, unknown, true],
        [unknown, unknown, true],
        [unknown, unknown, true]
      ])
    })
  )

  it.effect("a native interrupt that carries a reason reads that reason", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const fiber = yield* started(asking((all) => seen.push(all)))
      const annotated = yield* exitOf(CancelScope.run((s) => Effect.andThen(s.cancel(reason), Effect.never)))
      expect(annotated._tag).toBe("Success")
      yield* Fiber.interruptAs(fiber, undefined, (yield* interruption) as never)
      expect(seen).toEqual([yes])
      const exit = yield* Fiber.await(fiber)
      expect(Exit.isFailure(exit) && fromCause(exit.cause)).toEqual(some)
    })
  )

  it.effect("inside a mask a cancelled scope above is seen at once, and the work runs on", () =>
    Effect.gen(function* () {
      let seen: unknown
      const exit = yield* exitOf(
        CancelScope.run((scope) =>
          Effect.uninterruptible(
            Effect.gen(function* () {
              yield* scope.cancel(reason)
              seen = { current: yield* currentReason, outer: yield* outerReason, is: yield* isCancelled }
            })
          )
        )
      )
      expect(seen).toEqual(yes)
      expect(exit).toEqual(Exit.succeed({ _tag: "Cancelled", reason }))
    })
  )

  it.effect("L44: a scope entered in a mask reads none for itself and the reason outwards", () =>
    Effect.gen(function* () {
      let seen: unknown
      yield* exitOf(
        CancelScope.run((outer) =>
          Effect.uninterruptible(
            CancelScope.run((inner) =>
              Effect.gen(function* () {
                yield* outer.cancel(reason)
                yield* Effect.yieldNow
                seen = [yield* currentReason, yield* outerReason, yield* isCancelled, inner.signal.aborted]
              })
            )
          )
        )
      )
      expect(seen).toEqual([Option.none(), some, false, false])
    })
  )
})

const interruption = Effect.sync(() => Interruption.context(reason))

describe("the annotation of an interrupt", () => {
  it.effect("travels in the exit of a cancelled task, where fromCause reads it", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.scoped(
        Effect.gen(function* () {
          const tasks = yield* TaskScope.make()
          const task = yield* tasks.spawn(Effect.never)
          yield* task.cancel(reason)
          return yield* task.exit
        })
      )
      expect(Exit.isFailure(exit) && fromCause(exit.cause)).toEqual(some)
    })
  )

  it.effect("no cell is left in the context of the caller", () =>
    Effect.gen(function* () {
      yield* CancelScope.run(() => Effect.void)
      expect(yield* CurrentCell).toBeUndefined()
    })
  )
})
