/** L26: under supervision each failure is told once, and touches nobody. */
import { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { exitOf, held, receiver, recorder, started } from "../../../test/support/recorder.ts"
import { stuck, TaskScope } from "../src/index.ts"
import { isUnhandledUnsafe } from "../src/OnUnhandled.ts"

type Tasks = TaskScope.TaskScope

describe("L26: supervise", () => {
  it.effect("L26: a supervised body whose clean-up fails under an outer cancel is told", () =>
    Effect.gen(function* () {
      const { receive, seen } = receiver()
      const fiber = yield* started(
        TaskScope.use(() => Effect.onExit(Effect.never, () => Effect.die("broken")), {
          policy: "supervise",
          onUnhandled: receive
        })
      )
      yield* Fiber.interrupt(fiber)
      expect(seen.map(({ cause }) => Cause.squash(cause))).toEqual(["broken"])
    })
  )

  it.effect("L26: a made scope tells its own receiver, or the one where the task was spawned", () =>
    Effect.gen(function* () {
      const own = receiver()
      const surrounding = receiver()
      const spawn = (options: Parameters<typeof TaskScope.make>[0]) =>
        Effect.scoped(
          Effect.gen(function* () {
            const tasks = yield* TaskScope.make(options)
            const task = yield* tasks.spawn(Effect.fail("no"), { name: "mailer" })
            yield* task.exit
          })
        )
      yield* surrounding.around(spawn({ onUnhandled: own.receive }))
      expect([own.seen.length, surrounding.seen.length]).toEqual([1, 0])
      yield* surrounding.around(spawn({}))
      expect([own.seen.length, surrounding.seen.length]).toEqual([1, 1])
      expect(surrounding.seen).toMatchObject([{ origin: "task", name: "mailer", cause: Cause.fail("no") }])
    })
  )

  it.effect("L26: a cancelled task is no failure, and its broken clean-up is one, with the reason", () =>
    Effect.gen(function* () {
      const { receive, seen } = receiver()
      const reason = CancelReason.Superseded()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tasks = yield* TaskScope.make({ onUnhandled: receive })
          yield* (yield* tasks.spawn(Effect.never)).cancel(reason)
          yield* (yield* tasks.spawn(Effect.onExit(Effect.never, () => Effect.die("broken")))).cancel(reason)
          yield* tasks.drain()
        })
      )
      expect(seen).toMatchObject([{ cause: Cause.die("broken"), reason }])
    })
  )

  it.effect("L26: the cell of a task whose failure nobody waited for says so, and no other", () =>
    Effect.gen(function* () {
      const { receive } = receiver()
      const marks = yield* Effect.scoped(
        Effect.gen(function* () {
          const tasks = yield* TaskScope.make({ onUnhandled: receive })
          const { context } = yield* Effect.withFiber((fiber) => Effect.succeed(fiber))
          const works = [Effect.fail("no"), Effect.void, Effect.onExit(Effect.never, () => Effect.fail("no"))]
          const spawned = works.map((work) => TaskScope.spawnUnsafe(tasks, context, work, {}))
          yield* tasks.cancel()
          return spawned.map((task) => task !== undefined && isUnhandledUnsafe(task.cell))
        })
      )
      expect(marks).toEqual([true, false, true])
    })
  )

  it.effect("L26: a receiver that fails changes nothing", () =>
    Effect.gen(function* () {
      let received = 0
      const exit = yield* TaskScope.use(
        (tasks: Tasks) => Effect.as(tasks.spawn(Effect.fail("no")), "value"),
        {
          policy: "supervise",
          onUnhandled: () => {
            received++
            throw new Error("the receiver is broken")
          }
        }
      ).pipe(Effect.exit)
      expect(exit).toEqual(Exit.succeed("value"))
      expect(received).toBe(1)
    })
  )

  it.effect("L26: and leaves the exit of the task as it was", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make({ onUnhandled: () => Effect.die("the receiver is broken") })
        const task = yield* tasks.spawn(Effect.fail("no"))
        expect(yield* task.exit).toEqual(Exit.fail("no"))
      })
    )
  )

  it.effect("L26: a body that fails cancels the tasks and comes out", () =>
    Effect.gen(function* () {
      const { events, never } = recorder()
      const exit = yield* exitOf(
        TaskScope.use((tasks: Tasks) => Effect.andThen(tasks.spawn(never("stopped")), Effect.fail("body")), {
          policy: "supervise"
        })
      )
      expect(exit).toEqual(Exit.fail("body"))
      expect(events).toEqual(["stopped"])
    })
  )
})

describe("a receiver that does not end", () => {
  it.effect("L24, L26: holds a scope open for the budget at most, and is stuck by name", () =>
    Effect.gen(function* () {
      const { gate, work } = held()
      let asked = 0
      const onUnhandled = () =>
        Effect.suspend(() => {
          asked++
          return work
        })
      const broken = Effect.onExit(Effect.never, () => Effect.die("clean-up"))
      const kinds: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        TaskScope.use((tasks: Tasks) => tasks.spawn(Effect.fail("no"), { name: "mailer" }), {
          policy: "supervise",
          onUnhandled
        }),
        // Twenty siblings that fail: their reports cost one budget and not twenty.
        Effect.exit(
          TaskScope.use(
            (tasks: TaskScope.TaskScope<string>) =>
              Effect.gen(function* () {
                for (let i = 0; i < 20; i++) yield* tasks.spawn(broken, { name: "mailer" })
                return yield* Effect.fail("no")
              }),
            { onUnhandled }
          )
        )
      ]
      for (const kind of kinds) {
        const fiber = yield* started(kind)
        yield* TestClock.adjust("9 seconds")
        expect(fiber.pollUnsafe()).toBeUndefined()
        yield* TestClock.adjust("1 second")
        expect(fiber.pollUnsafe()?._tag).toBe("Success")
      }
      expect(asked).toBe(21)
      const names = new Set((yield* stuck).map(({ name }) => name))
      expect(names).toEqual(new Set(['OnUnhandled for task "mailer"', 'OnUnhandled for sibling "mailer"']))
      yield* Deferred.succeed(gate, undefined)
      expect(yield* stuck).toEqual([])
    })
  )

  it.effect("L26: one that overruns and fails then is logged, and not told of its own failure", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      let asked = 0
      const onUnhandled = () =>
        Effect.suspend(() => {
          asked++
          return Effect.andThen(Deferred.await(gate), Effect.die("broken"))
        })
      const fiber = yield* started(
        TaskScope.use((tasks: Tasks) => tasks.spawn(Effect.fail("no")), { policy: "supervise", onUnhandled })
      )
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(fiber)
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.yieldNow
      expect(asked).toBe(1)
      expect(yield* stuck).toEqual([])
    })
  )
})
