import { CancelReason, fromCause } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import { exitOf, fiberCount, held, receiver, recorder, started } from "../../../test/support/recorder.ts"
import {
  bounded,
  CancelScope,
  CleanupBudget,
  InterruptedElsewhere,
  NeverReady,
  stuck,
  TaskCancelled,
  TaskScope,
  TaskScopeClosed
} from "../src/index.ts"
import { startAndAwait, startUnsafe } from "../src/internal/child.ts"

const reason = CancelReason.Superseded()
type Tasks<E = never> = TaskScope.TaskScope<E>

describe("L27: what spawn accepts runs, or its onNeverStarted does", () => {
  it.effect("L27: spawn after close or cancel is a typed refusal that runs neither", () =>
    Effect.gen(function* () {
      const { add, events } = recorder()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tasks = yield* TaskScope.make({ name: "mailers" })
          yield* tasks.close
          const error = yield* Effect.flip(tasks.spawn(add("ran"), { onNeverStarted: add("never started") }))
          expect(error).toMatchObject({ _tag: "TaskScopeClosed", scope: "mailers" })
          expect(error.message).toContain("mailers")
          expect(yield* Effect.flip(tasks.daemon(add("ran")))).toMatchObject({ _tag: "TaskScopeClosed" })
        })
      )
      expect(events).toEqual([])
    })
  )

  // Deep inside synchronous starts the next start goes through the dispatcher; a cancel may come before that turn.
  const atDepth = (depth: number, work: Effect.Effect<unknown, unknown>): Effect.Effect<unknown, unknown> =>
    depth === 0 ? work : CancelScope.run(() => Effect.suspend(() => atDepth(depth - 1, work)))

  it.effect("L27: a task that is cancelled before its first operation runs onNeverStarted, once", () =>
    Effect.gen(function* () {
      const ends = new Set<string>()
      for (let depth = 0; depth < 150; depth++) {
        const { add, events } = recorder()
        const spawned = Effect.gen(function* () {
          const tasks = yield* TaskScope.make()
          const task = yield* tasks.spawn(add("ran"), { onNeverStarted: add("never started") })
          yield* task.cancel(reason)
          yield* tasks.cancel(reason)
          const exit = yield* task.exit
          if (Exit.isFailure(exit)) expect(fromCause(exit.cause)).toEqual(Option.some(reason))
        })
        yield* atDepth(depth, Effect.scoped(spawned))
        expect(events).toHaveLength(1)
        ends.add(events.join())
      }
      expect([...ends].sort()).toEqual(["never started", "ran"])
    })
  )

  it.effect(
    "L27: and so does one that a scheduler holds up there while somebody else interrupts its fiber",
    () =>
      Effect.gen(function* () {
        const { add, events } = recorder()
        const { gate, work } = held()
        const real = yield* Scheduler.Scheduler
        const known = new Set<unknown>()
        const scheduler: Scheduler.Scheduler = {
          executionMode: real.executionMode,
          makeDispatcher: () => real.makeDispatcher(),
          shouldYield: (fiber) => known.size < known.add(fiber).size
        }
        const tasks = yield* TaskScope.make()
        const spawn = yield* Effect.provideService(
          TaskScope.makeRuntime(tasks),
          Scheduler.Scheduler,
          scheduler
        )
        const task = spawn(add("ran"), { onNeverStarted: Effect.andThen(work, add("never started")) })
        const { fiber } = task as unknown as { readonly fiber: Fiber.Fiber<unknown> }
        fiber.interruptUnsafe()
        // It ends by that when what runs in the body's place has ended.
        expect(fiber.pollUnsafe()).toBeUndefined()
        const draining = yield* started(tasks.drain())
        yield* Effect.yieldNow
        expect(draining.pollUnsafe()).toBeUndefined()
        yield* Deferred.succeed(gate, undefined)
        expect(yield* Fiber.join(draining)).toBe(true)
        expect(events).toEqual(["never started"])
        expect(fiber.pollUnsafe()?._tag).toBe("Failure")
      })
  )

  it.effect("L27: and so does one that is cancelled while a scheduler holds it up there", () =>
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
      // From the second start on a cell knows its fiber before that begins.
      yield* tasks.spawn(Effect.void)
      const task = spawn(add("ran"), { onNeverStarted: add("never started") })
      expect(events).toEqual([])
      expect(task?.cancelUnsafe(reason)).toBe(true)
      // The scheduler holds that up as well.
      expect(yield* tasks.drain()).toBe(true)
      expect(events).toEqual(["never started"])
      const exit = yield* (task as TaskScope.Task<unknown>).exit
      expect(exit._tag === "Failure" && fromCause(exit.cause)).toEqual(Option.some(reason))
      expect(yield* tasks.size).toBe(0)
    })
  )

  it.effect("L27: a failing onNeverStarted is reported as clean-up", () =>
    Effect.gen(function* () {
      const { around, seen } = receiver()
      const spawned = Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        const task = yield* tasks.spawn(Effect.void, { name: "upload", onNeverStarted: Effect.die("broken") })
        yield* task.cancel()
        yield* task.exit
      })
      for (let depth = 0; depth < 150; depth++) yield* around(atDepth(depth, Effect.scoped(spawned)))
      expect(seen.length).toBeGreaterThan(0)
      for (const one of seen) expect(one).toMatchObject({ origin: "cleanup", name: "upload" })
    })
  )

  it.effect("L27: a body that has begun never runs onNeverStarted", () =>
    Effect.gen(function* () {
      const { add, events, never } = recorder()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tasks = yield* TaskScope.make()
          yield* tasks.spawn(never("stopped"), { onNeverStarted: add("never started") })
          yield* tasks.spawn(Effect.void, { onNeverStarted: add("never started") })
        })
      )
      expect(events).toEqual(["stopped"])
    })
  )
})

describe("Task", () => {
  it.effect("join and exit leave the task alone when their waiter is interrupted", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        const { gate, work } = held<string>()
        const task = yield* tasks.spawn(work, { name: "named" })
        for (const wait of [Effect.asVoid(task.join), Effect.asVoid(task.exit)])
          yield* Fiber.interrupt(yield* started(wait))
        expect([task.name, yield* task.status]).toEqual(["named", "running"])
        yield* Deferred.succeed(gate, "value")
        expect(yield* task.join).toBe("value")
        expect(yield* task.exit).toEqual(Exit.succeed("value"))
        expect([yield* task.status, yield* task.cancel()]).toEqual(["ended", false])
      })
    )
  )

  it.effect(
    "gives its exit to whoever waits, at whatever operation a scheduler holds the waiter up meanwhile",
    () =>
      TaskScope.use((tasks: Tasks) =>
        Effect.gen(function* () {
          let operations = 1
          for (let at = 0; at < operations; at++) {
            const gate = yield* Deferred.make<number>()
            const task = yield* tasks.spawn(Deferred.await(gate))
            let asked = 0
            const scheduler = new Scheduler.MixedScheduler()
            scheduler.shouldYield = () => asked++ === at
            const waiter = yield* started(Effect.provideService(task.join, Scheduler.Scheduler, scheduler))
            Deferred.doneUnsafe(gate, Effect.succeed(at))
            for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow
            expect(waiter.pollUnsafe()).toEqual(Exit.succeed(at))
            operations = asked
          }
          expect(operations).toBeGreaterThan(2)
        })
      )
  )

  it.effect("can be waited for again after its last waiter has left", () =>
    TaskScope.use((tasks: Tasks) =>
      Effect.gen(function* () {
        const { gate, work } = held()
        const task = yield* tasks.spawn(work)
        for (let i = 0; i < 2; i++) yield* Fiber.interrupt(yield* started(task.exit))
        const waiting = yield* started(task.exit)
        yield* Deferred.succeed(gate, undefined)
        expect(waiting.pollUnsafe()).toEqual(Exit.succeed(Exit.void))
      })
    )
  )

  it.effect("cancel is told true once, and joining a cancelled task is a foreign interrupt", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        const { gate, work } = held()
        const task = yield* tasks.spawn(work)
        expect([yield* task.cancel(reason), yield* task.cancel(), task.cancelUnsafe()]).toEqual([
          true,
          false,
          false
        ])
        expect(yield* task.status).toBe("cancelled")
        yield* Deferred.succeed(gate, undefined)
        const exit = yield* exitOf(CancelScope.run(() => task.join))
        expect(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
      })
    )
  )
})

describe("makeRuntime", () => {
  it.effect("spawns from a callback, and gives undefined once the scope is closed", () =>
    Effect.gen(function* () {
      const around = yield* Scope.make()
      const tasks = yield* Scope.provide(TaskScope.make(), around)
      const spawn = yield* TaskScope.makeRuntime(tasks)
      const { events, never } = recorder()
      const task = spawn(never("stopped"), { name: "callback" })
      expect(task?.name).toBe("callback")
      yield* Scope.close(around, Exit.void)
      expect(events).toEqual(["stopped"])
      expect(spawn(Effect.void)).toBeUndefined()
    })
  )
})

describe("CleanupBudget", () => {
  it.effect("is read where the scope ends, and infinity waits for ever", () =>
    Effect.gen(function* () {
      const { gate, work } = held()
      const fiber = yield* started(
        TaskScope.use((tasks: Tasks) => Effect.andThen(tasks.spawn(work), tasks.cancel())).pipe(
          Effect.provideService(CleanupBudget, Duration.infinity)
        )
      )
      yield* TestClock.adjust("1000 days")
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(fiber)
      expect(yield* stuck).toEqual([])
    })
  )
})

describe("an infinite budget", () => {
  it.effect("costs neither fiber nor timer", () =>
    Effect.gen(function* () {
      const { around, count } = fiberCount()
      const { gate, work } = held()
      const fiber = yield* started(
        around(Effect.provideService(bounded(work), CleanupBudget, Duration.infinity))
      )
      // The clean-up's.
      expect(count.started).toBe(1)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(fiber)
    })
  )
})

describe("joinOrCancelled", () => {
  it.effect(
    "L22: a task that somebody else cancelled is a typed error with the reason, and the joiner lives",
    () =>
      TaskScope.use((tasks: Tasks<string>) =>
        Effect.gen(function* () {
          const task = yield* tasks.spawn(Effect.never, { name: "mailer" })
          const joiner = yield* started(Effect.flip(task.joinOrCancelled))
          yield* task.cancel(reason)
          const error = yield* Fiber.join(joiner)
          expect(error).toEqual(new TaskCancelled({ task: "mailer", reason }))
          expect((error as TaskCancelled).message).toContain('The task "mailer" was cancelled: newer work')
          // Joined afterwards it says the same.
          expect(yield* Effect.flip(task.joinOrCancelled)).toEqual(error)
        })
      )
  )

  it.effect(
    "gives value, failure and defect as join does, a defect of the clean-up after a cancel as well",
    () =>
      Effect.gen(function* () {
        const { around } = receiver()
        const tasks = yield* TaskScope.make()
        const joined = <A, E>(work: Effect.Effect<A, E>) =>
          around(Effect.flatMap(tasks.spawn(work), (task) => exitOf(task.joinOrCancelled)))
        expect(yield* joined(Effect.succeed(1))).toEqual(Exit.succeed(1))
        expect(yield* joined(Effect.fail("no"))).toEqual(Exit.fail("no"))
        expect(yield* joined(Effect.die("broken"))).toEqual(Exit.die("broken"))
        const task = yield* around(tasks.spawn(Effect.onExit(Effect.never, () => Effect.die("clean-up"))))
        yield* task.cancel(reason)
        const exit = yield* exitOf(task.joinOrCancelled)
        expect(Exit.isFailure(exit) && Cause.hasDies(exit.cause)).toBe(true)
      })
  )

  it.effect("the joiner's own cancel is an interrupt, and leaves the task alone", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskScope.make()
      const task = yield* tasks.spawn(Effect.never)
      const joiner = yield* started(task.joinOrCancelled)
      yield* Fiber.interrupt(joiner)
      const exit = joiner.pollUnsafe()
      expect(exit !== undefined && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
      expect(yield* task.status).toBe("running")
    })
  )
})

describe("the errors of a task", () => {
  it("say in a sentence what happened, and to whom when that has a name", () => {
    expect(new TaskScopeClosed({ scope: "mailers" }).message).toBe(
      'The task scope "mailers" is closed and takes no new work.'
    )
    expect(new TaskScopeClosed({ scope: undefined }).message).toBe(
      "The task scope is closed and takes no new work."
    )
    expect(new NeverReady({ task: "listener" }).message).toBe(
      'The task "listener" ended before it was ready.'
    )
    expect(new NeverReady({ task: undefined }).message).toBe("The task ended before it was ready.")
    expect(new InterruptedElsewhere({ task: "poll" }).message).toBe(
      'The task "poll" ended by an interrupt that was not its own cancellation.'
    )
    expect(new InterruptedElsewhere({ task: undefined }).message).toBe(
      "The task ended by an interrupt that was not its own cancellation."
    )
  })
})

describe("starting and waiting", () => {
  const waiting = (told: Array<string>, start: (waiter: Fiber.Fiber<unknown>) => Fiber.Fiber<string>) =>
    startAndAwait(
      (waiter) => start(waiter as Fiber.Fiber<unknown>),
      (exit) => Effect.sync(() => told.push(exit._tag)),
      () => Effect.sync(() => told.push("interrupted"))
    )
  const atOnce = (waiter: Fiber.Fiber<unknown>) => startUnsafe(waiter.context, Effect.succeed("value"))

  it.effect("what ended at once is handed over in the same operation", () =>
    Effect.gen(function* () {
      const told: Array<string> = []
      // A scheduler that asks for a pause before one operation, another one each time, and an interrupt in that pause.
      const real = yield* Scheduler.Scheduler
      for (let pause = 0; pause < 12; pause++) {
        let asked = 0
        let begun = 0
        const scheduler: Scheduler.Scheduler = {
          executionMode: real.executionMode,
          makeDispatcher: () => real.makeDispatcher(),
          shouldYield: () => asked++ === pause
        }
        told.length = 0
        const start = (waiter: Fiber.Fiber<unknown>) => {
          begun++
          return atOnce(waiter)
        }
        const waiter = yield* started(
          Effect.provideService(waiting(told, start), Scheduler.Scheduler, scheduler)
        )
        waiter.interruptUnsafe()
        yield* Fiber.await(waiter)
        expect(told.length).toBe(begun)
      }
    })
  )

  it.effect("whoever is interrupted by what ends at once, before he has got its exit, is told so", () =>
    Effect.gen(function* () {
      const told: Array<string> = []
      const interrupting = (waiter: Fiber.Fiber<unknown>) =>
        startUnsafe(
          waiter.context,
          Effect.sync(() => {
            waiter.interruptUnsafe()
            return "value"
          })
        )
      const waiter = yield* started(waiting(told, interrupting))
      expect(waiter.pollUnsafe()?._tag).toBe("Failure")
      expect(told).toEqual(["interrupted"])
      // In a mask the exit gets through, and the interrupt comes when that ends.
      const masked = yield* started(Effect.uninterruptible(waiting(told, interrupting)))
      expect(masked.pollUnsafe()?._tag).toBe("Failure")
      expect(told).toEqual(["interrupted", "Success"])
      const plain = yield* started(waiting(told, atOnce))
      expect(plain.pollUnsafe()?._tag).toBe("Success")
    })
  )
})
