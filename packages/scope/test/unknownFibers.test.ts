/** What holds where Effect's fibers do not look as expected, and everything goes by public calls. */
import { CancelReason, fromCause } from "@curfew/reason"
import { CancelCell, rootsUnsafe } from "@curfew/reason/CancelCell"
import { bounded, CancelScope, moveOnAfter, TaskScope } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import { TestClock } from "effect/testing"
import { vi } from "vitest"
import { exitOf, receiver, recorder, started } from "../../../test/support/recorder.ts"

vi.mock("../../reason/src/internal/delivery.ts", async (original) => ({
  ...(await original<typeof import("../../reason/src/internal/delivery.ts")>()),
  startKnown: () => undefined,
  startEntering: () => undefined
}))
vi.mock("../../reason/src/internal/inline.ts", async (original) => ({
  ...(await original<typeof import("../../reason/src/internal/inline.ts")>()),
  inline: (_: unknown, effect: unknown) => effect
}))
vi.mock("../../reason/src/internal/peek.ts", async (original) => ({
  ...(await original<typeof import("../../reason/src/internal/peek.ts")>()),
  saysInterrupts: () => undefined
}))

const reason = CancelReason.Superseded()

describe("fibers that nobody knows", () => {
  it.effect("L3, L7: a scope ends by its value, its cancel and its deadline", () =>
    Effect.gen(function* () {
      expect(yield* CancelScope.run(() => Effect.succeed(1))).toMatchObject({ _tag: "Done", value: 1 })
      const own = CancelScope.run((scope) => Effect.andThen(scope.cancel(reason), Effect.never))
      expect(yield* own).toEqual({ _tag: "Cancelled", reason })
      const late = yield* started(moveOnAfter(Effect.never, "1 second"))
      yield* TestClock.adjust("1 second")
      expect(yield* exitOf(Effect.suspend(() => late.pollUnsafe() ?? Effect.die("no end")))).toEqual(
        Exit.succeed(Option.none())
      )
    })
  )

  it.effect("L26, L28: a task's failure is told once, and a cancel waits for the clean-up", () =>
    Effect.gen(function* () {
      const { around, seen } = receiver()
      const { add, events } = recorder()
      const gate = yield* Deferred.make<void>()
      yield* around(
        Effect.gen(function* () {
          const tasks = yield* TaskScope.make()
          const failing = yield* tasks.spawn(Effect.fail("no route") as Effect.Effect<never>)
          expect((yield* failing.exit)._tag).toBe("Failure")
          const task = yield* tasks.spawn(
            Effect.onExit(Effect.never, () => Effect.andThen(Deferred.await(gate), add("cleaned")))
          )
          const cancelling = yield* started(tasks.cancel(reason))
          expect(cancelling.pollUnsafe()).toBeUndefined()
          yield* Deferred.succeed(gate, undefined)
          const exit = yield* task.exit
          expect(exit._tag === "Failure" && fromCause(exit.cause)).toEqual(Option.some(reason))
          expect(events).toEqual(["cleaned"])
        })
      )
      expect(seen.map(({ cause }) => Cause.squash(cause))).toEqual(["no route"])
    })
  )

  it.effect("L27: what is cancelled while a scheduler holds it up runs what runs in its place", () =>
    Effect.gen(function* () {
      const { add, events } = recorder()
      const real = yield* Scheduler.Scheduler
      const known = new Set<unknown>()
      const scheduler: Scheduler.Scheduler = {
        executionMode: real.executionMode,
        makeDispatcher: () => real.makeDispatcher(),
        shouldYield: (fiber) => known.size < known.add(fiber).size
      }
      const tasks = yield* TaskScope.make()
      const spawn = yield* Effect.provideService(TaskScope.makeRuntime(tasks), Scheduler.Scheduler, scheduler)
      const task = spawn(add("ran"), { onNeverStarted: add("never started") })
      expect(task?.cancelUnsafe(reason)).toBe(true)
      expect(yield* tasks.drain()).toBe(true)
      expect(events).toEqual(["never started"])
    })
  )

  it.effect(
    "a body is told its end once, also when its fiber is interrupted before the first operation",
    () =>
      Effect.gen(function* () {
        const known = new Set<unknown>()
        const scheduler = new Scheduler.MixedScheduler()
        // Holds up each fiber before its first operation.
        scheduler.shouldYield = (fiber) => known.size < known.add(fiber).size
        const told: Array<string> = []
        let ran = false
        const work = Effect.sync(() => {
          ran = true
        })
        const settle = (exit: Exit.Exit<void>): undefined => {
          told.push(exit._tag)
        }
        const cell = new CancelCell("task", {})
        const held = Effect.withFiber((fiber) =>
          Effect.sync(() => Child.startUnder(fiber.context, cell, work, { settle }))
        )
        const fiber = yield* Effect.provideService(held, Scheduler.Scheduler, scheduler)
        expect(fiber.pollUnsafe()).toBeUndefined()
        fiber.interruptUnsafe()
        yield* Fiber.await(fiber)
        expect([ran, told]).toEqual([false, ["Failure"]])
        cell.unlink()
      })
  )

  it.effect("a waiter goes on when its child ends between its start and the wait", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<number>()
      const child = yield* started(Deferred.await(gate))
      let armed = false
      const scheduler = new Scheduler.MixedScheduler()
      // Holds up the waiter once, when it has started its child.
      scheduler.shouldYield = () => {
        const holds = armed
        armed = false
        return holds
      }
      const start = () => {
        armed = true
        return child
      }
      const waiter = yield* started(
        Effect.provideService(
          Child.startAndAwait(
            start,
            (exit) => exit,
            () => Effect.void
          ),
          Scheduler.Scheduler,
          scheduler
        )
      )
      expect([armed, waiter.pollUnsafe()]).toEqual([false, undefined])
      Deferred.doneUnsafe(gate, Effect.succeed(7))
      expect(child.pollUnsafe()).toEqual(Exit.succeed(7))
      for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow
      expect(waiter.pollUnsafe()).toEqual(Exit.succeed(7))
    })
  )

  it.effect("L18: clean-up runs masked, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const before = rootsUnsafe().length
      const interrupting = Effect.withFiber((own) =>
        Effect.andThen(
          Effect.sync(() => own.interruptUnsafe()),
          Effect.succeed("to its end")
        )
      )
      expect(yield* bounded(interrupting)).toEqual(Option.some("to its end"))
      expect(rootsUnsafe().length).toBe(before)
    })
  )
})
