import { CancelCell } from "@curfew/reason/CancelCell"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { fiberCount, held, recorder, started } from "../../../test/support/recorder.ts"
import { stuck, TaskScope } from "../src/index.ts"
import { TaskSet } from "../src/internal/taskScope.ts"

const inScope = <A, E>(body: (tasks: TaskScope.TaskScope) => Effect.Effect<A, E>) =>
  Effect.scoped(Effect.flatMap(TaskScope.make(), body))

describe("close and drain", () => {
  it.effect("drain waits for the tasks, but not for daemons", () =>
    inScope((tasks) =>
      Effect.gen(function* () {
        const { gate, work } = held()
        yield* tasks.daemon(Effect.never)
        yield* tasks.spawn(work)
        const draining = yield* started(tasks.drain())
        expect(draining.pollUnsafe()).toBeUndefined()
        yield* Deferred.succeed(gate, undefined)
        expect(yield* Fiber.join(draining)).toBe(true)
        expect(yield* tasks.size).toBe(1)
      })
    )
  )

  it.effect("drain with a limit gives false when it passes first, and the tasks run on", () =>
    inScope((tasks) =>
      Effect.gen(function* () {
        const { gate, work } = held()
        const task = yield* tasks.spawn(work)
        const draining = yield* started(tasks.drain("5 seconds"))
        yield* TestClock.adjust("5 seconds")
        expect(yield* Fiber.join(draining)).toBe(false)
        expect(yield* task.status).toBe("running")
        expect(yield* tasks.drain(0)).toBe(false)
        expect(yield* tasks.drain("-1 second")).toBe(false)
        yield* Deferred.succeed(gate, undefined)
        expect(yield* tasks.drain(Duration.infinity)).toBe(true)
      })
    )
  )

  it.effect("an idle scope is drained within any limit, zero included", () =>
    inScope((tasks) =>
      Effect.gen(function* () {
        yield* tasks.spawn(Effect.void)
        for (const limit of [0, -1, "1 hour" as const, Duration.infinity])
          expect(yield* tasks.drain(limit)).toBe(true)
      })
    )
  )

  it.effect("drain does not wait for what the budget has left behind as stuck", () =>
    inScope((tasks) =>
      Effect.gen(function* () {
        const { gate, work } = held()
        yield* tasks.spawn(work)
        const draining = yield* started(tasks.drain())
        const cancelling = yield* started(tasks.cancel())
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.join(cancelling)
        expect(draining.pollUnsafe()).toBeDefined()
        yield* Deferred.succeed(gate, undefined)
      })
    )
  )

  it.effect("nor for a task that was left behind before the scope's end", () =>
    inScope((tasks) =>
      Effect.gen(function* () {
        const { gate, work } = held()
        const task = yield* tasks.spawn(work, { name: "uploader" })
        const draining = yield* started(tasks.drain())
        TaskScope.leaveBehindUnsafe(tasks, task, 17)
        expect(draining.pollUnsafe()).toEqual(Exit.succeed(true))
        TaskScope.leaveBehindUnsafe(tasks, task, 18)
        expect(yield* stuck).toMatchObject([{ kind: "task", name: "uploader", startedAt: 17 }])
        expect([yield* tasks.size, yield* task.status]).toEqual([0, "stuck"])
        expect(yield* tasks.drain()).toBe(true)
        yield* Deferred.succeed(gate, undefined)
        expect(yield* stuck).toEqual([])
      })
    )
  )

  it.effect("an interrupted drain leaves neither timer nor observer", () =>
    inScope((tasks) =>
      Effect.gen(function* () {
        const { around, count } = fiberCount()
        yield* tasks.spawn(Effect.never)
        const draining = yield* started(around(tasks.drain("1 hour")))
        yield* Fiber.interrupt(draining)
        expect(count.live).toBe(0)
      })
    )
  )

  it.effect("neither an answered nor an interrupted wait for idleness leaves an ear", () =>
    Effect.gen(function* () {
      const cell = new CancelCell("tasks", {})
      const set = new TaskSet({ name: undefined, policy: "supervise", cell })
      const { gate, work } = held()
      const { context } = yield* Effect.withFiber((fiber) => Effect.succeed(fiber))
      set.spawnUnsafe(context, work, undefined, false)
      for (const orCancelled of [false, true]) {
        const waiting = yield* started(set.awaitIdle({ orCancelled }))
        expect([set.waits, cell.listenerCount]).toEqual([1, orCancelled ? 1 : 0])
        yield* Fiber.interrupt(waiting)
        expect([set.waits, cell.listenerCount]).toEqual([0, 0])
      }
      const answered = yield* started(set.awaitIdle({ orCancelled: true }))
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(answered)
      expect([set.waits, cell.listenerCount]).toEqual([0, 0])
      cell.unlink()
    })
  )

  it.effect("drain goes on after a cancel until the last of several tasks has ended", () =>
    inScope((tasks) =>
      Effect.gen(function* () {
        const works = [held(), held()]
        for (const { work } of works) yield* tasks.spawn(work)
        const draining = yield* started(tasks.drain())
        const cancelling = yield* started(tasks.cancel())
        for (const { gate } of works) {
          expect([draining, cancelling].map((fiber) => fiber.pollUnsafe())).toEqual([undefined, undefined])
          yield* Deferred.succeed(gate, undefined)
        }
        expect(yield* Fiber.join(draining)).toBe(true)
        yield* Fiber.join(cancelling)
      })
    )
  )

  it.effect("who cancels waits for the tasks although he is interrupted meanwhile", () =>
    inScope((tasks) =>
      Effect.gen(function* () {
        const { gate, work } = held()
        yield* tasks.spawn(work)
        const cancelling = yield* started(tasks.cancel())
        cancelling.interruptUnsafe()
        expect(cancelling.pollUnsafe()).toBeUndefined()
        yield* Deferred.succeed(gate, undefined)
        expect(cancelling.pollUnsafe()?._tag).toBe("Failure")
      })
    )
  )

  it.effect("two drains and a cancel from inside a task all end", () =>
    inScope((tasks) =>
      Effect.gen(function* () {
        const { add, events } = recorder()
        const both = yield* started(Effect.all([tasks.drain(), tasks.drain("1 hour")], { concurrency: 2 }))
        expect(yield* Fiber.join(both)).toEqual([true, true])
        yield* tasks.spawn(Effect.andThen(tasks.cancel(), add("ran on")))
        yield* tasks.drain()
        expect(events).toEqual([])
      })
    )
  )

  it.effect(
    "a body of use that ends keeps the scope open for its tasks, and cancels its daemons after them",
    () =>
      Effect.gen(function* () {
        const { add, events, never } = recorder()
        const { gate, work } = held()
        const fiber = yield* started(
          TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
            Effect.gen(function* () {
              yield* tasks.daemon(never("daemon"))
              yield* tasks.spawn(Effect.andThen(work, add("task")))
              return "value"
            })
          )
        )
        expect(events).toEqual([])
        yield* Deferred.succeed(gate, undefined)
        expect(yield* Fiber.join(fiber)).toBe("value")
        expect(events).toEqual(["task", "daemon"])
      })
  )
})
