import { CancelReason, currentReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import { fiberCount, held, receiver, recorder, started } from "../../../test/support/recorder.ts"
import { CancelScope, CleanupBudget, Owner, type OwnerOptions, stuck } from "../src/index.ts"

const reason = CancelReason.Superseded()

/** An owner, and the Scope that ends it. */
const open = (options?: OwnerOptions) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(Owner.layer(options), scope)
    return { owner: Context.get(context, Owner), close: Scope.close(scope, Exit.void) }
  })

describe("Owner.layer", () => {
  it.effect("its tasks are untouched by a cancel of who spawns them and of who provides it", () =>
    Effect.gen(function* () {
      const { close, owner } = yield* open()
      const { gate, work } = held<string>()
      let task: { readonly join: Effect.Effect<string> } | undefined
      const outcome = yield* CancelScope.run((scope) =>
        Effect.gen(function* () {
          task = yield* Effect.orDie(owner.spawn(work))
          yield* scope.cancel(reason)
        })
      )
      expect(outcome._tag).toBe("Cancelled")
      yield* Deferred.succeed(gate, "value")
      expect(yield* (task as { readonly join: Effect.Effect<string> }).join).toBe("value")
      yield* close
    })
  )

  it.effect("its end takes no new work and waits for what runs", () =>
    Effect.gen(function* () {
      const { close, owner } = yield* open({ name: "server" })
      const { gate, work } = held()
      const { add, events } = recorder()
      yield* owner.spawn(Effect.andThen(work, add("task")))
      const closing = yield* started(Effect.andThen(close, add("closed")))
      expect(yield* Effect.flip(owner.spawn(Effect.void))).toMatchObject({ scope: "server" })
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(closing)
      expect(events).toEqual(["task", "closed"])
    })
  )

  it.effect("what still runs after the drain is cancelled with Shutdown, and then left behind as stuck", () =>
    Effect.gen(function* () {
      const { close, owner } = yield* open({ drain: "2 seconds" })
      const seen: Array<unknown> = []
      const { gate, work } = held()
      yield* owner.spawn(
        Effect.onExit(Effect.never, () => Effect.map(currentReason, (why) => seen.push(why)))
      )
      yield* owner.spawn(work, { name: "upload" })
      const closing = yield* started(close)
      yield* TestClock.adjust("1 second")
      expect(seen).toEqual([])
      yield* TestClock.adjust("1 second")
      expect(seen).toEqual([Option.some(CancelReason.Shutdown({ phase: "force" }))])
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(closing)
      expect(yield* stuck).toMatchObject([{ kind: "task", name: "upload" }])
      yield* Deferred.succeed(gate, undefined)
      expect(yield* stuck).toEqual([])
    })
  )

  it.effect("a failure of an owned task is told once", () =>
    Effect.gen(function* () {
      const { around, seen } = receiver()
      const { close, owner } = yield* open()
      yield* around(owner.spawn(Effect.fail("no"), { name: "mailer" }))
      yield* close
      expect(seen).toMatchObject([{ origin: "task", name: "mailer" }])
    })
  )

  it.effect("an owner with nothing to do ends at once, whatever its drain, and leaves no fiber", () =>
    Effect.gen(function* () {
      const { around, count } = fiberCount()
      for (const drain of [0, "1 hour" as const]) yield* around(Effect.provide(Owner, Owner.layer({ drain })))
      expect(count.live).toBe(0)
    })
  )

  it.effect("cancelled while it drains, it goes on draining", () =>
    Effect.gen(function* () {
      const { gate, work } = held()
      const { add, events } = recorder()
      const program = Effect.flatMap(Owner, (owner) => owner.spawn(Effect.andThen(work, add("task"))))
      const fiber = yield* started(Effect.provide(program, Owner.layer()))
      fiber.interruptUnsafe()
      fiber.interruptUnsafe()
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.await(fiber)
      expect(events).toEqual(["task"])
    })
  )
})

describe("Owner.process", () => {
  it.effect("is shared by all who provide it, and drained by the last one", () =>
    Effect.gen(function* () {
      const { gate, work } = held()
      const leave = yield* Deferred.make<void>()
      const first = yield* started(
        Effect.provide(
          Effect.andThen(Owner, (owner) => Effect.as(Deferred.await(leave), owner)),
          Owner.process
        )
      )
      const second = yield* Effect.provide(
        Effect.tap(Owner, (owner) => owner.spawn(work)),
        Owner.process
      )
      yield* Deferred.succeed(leave, undefined)
      expect(first.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.join(first)).toBe(second)
      const next = yield* Effect.provide(Owner, Owner.process)
      expect(next).not.toBe(second)
    })
  )

  it.effect(
    "has nothing of the program that came first: neither services, nor log annotations, nor its budget",
    () =>
      Effect.gen(function* () {
        class Name extends Context.Service<Name, string>()("test/Name") {}
        const { work } = held()
        const given = yield* Deferred.make<void>()
        const seen: Array<unknown> = []
        const leave = yield* Deferred.make<void>()
        const first = yield* started(
          Effect.provide(Effect.andThen(Owner, Deferred.await(leave)), Owner.process).pipe(
            Effect.provideService(Name, "first"),
            Effect.annotateLogs("request", "first"),
            Effect.provideService(CleanupBudget, Duration.seconds(1))
          )
        )
        const second = yield* started(
          Effect.provide(
            Effect.flatMap(Owner, (owner) =>
              Effect.andThen(owner.spawn(work, { name: "upload" }), Deferred.await(given))
            ),
            Owner.process
          )
        )
        yield* Deferred.succeed(leave, undefined)
        yield* Fiber.join(first)
        yield* Deferred.succeed(given, undefined)
        // Ten seconds of draining, then the budget: the default, and not the first program's.
        yield* TestClock.adjust("11 seconds")
        seen.push((yield* stuck).length)
        yield* TestClock.adjust("9 seconds")
        seen.push((yield* stuck).length)
        yield* Fiber.join(second)
        expect(seen).toEqual([0, 1])
        const contexts: Array<Context.Context<never>> = []
        yield* Effect.provide(
          Effect.flatMap(Owner, (owner) => owner.close),
          Owner.process
        ).pipe(
          Effect.provideService(Name, "first"),
          Effect.annotateLogs("request", "first"),
          Effect.provideService(Metric.FiberRuntimeMetrics, {
            recordFiberStart: (context) => {
              contexts.push(context as Context.Context<never>)
            },
            recordFiberEnd: () => {}
          })
        )
        for (const context of contexts)
          expect(Context.getOption(context, Name as never)).toEqual(Option.none())
      })
  )

  it.effect("two programs that ask for it at once, on a scheduler that yields early, get one owner", () =>
    Effect.gen(function* () {
      const both = yield* Effect.all(
        [1, 2].map(() =>
          Effect.provide(
            Effect.tap(Owner, () => Effect.yieldNow),
            Owner.process
          )
        ),
        { concurrency: 2 }
      ).pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, 3))
      expect(both[0]).toBe(both[1])
    })
  )
})
