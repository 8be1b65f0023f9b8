import { CancelReason, currentReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { TestClock } from "effect/testing"
import { exitOf, fiberCount, held, receiver, recorder, started } from "../../../test/support/recorder.ts"
import {
  background,
  bounded,
  CancelScope,
  ForeignTaskScope,
  Instant,
  Owner,
  stuck,
  TaskScope
} from "../src/index.ts"

const reason = CancelReason.Superseded()
type Tasks<E = never> = TaskScope.TaskScope<E>

/** Both ways to get a task scope, each around a body. */
const kinds: Record<
  string,
  <A, E>(body: (tasks: TaskScope.TaskScope) => Effect.Effect<A, E>) => Effect.Effect<A, unknown>
> = {
  use: (body) => TaskScope.use(body),
  make: (body) => Effect.scoped(Effect.flatMap(TaskScope.make(), body))
}

for (const [kind, within] of Object.entries(kinds)) {
  describe(`the quartet of ${kind}`, () => {
    it.effect("cancelled before the start: nothing runs, or it takes no work", () =>
      Effect.gen(function* () {
        const { add, events } = recorder()
        const outcome = yield* CancelScope.run((scope) =>
          Effect.uninterruptible(
            Effect.andThen(
              scope.cancel(reason),
              Effect.interruptible(within((tasks) => tasks.spawn(add("ran"))))
            )
          )
        )
        expect(outcome).toEqual({ _tag: "Cancelled", reason })
        expect(events).toEqual([])
      })
    )

    it.effect("cancelled during: every task reads the reason and ends before the scope does", () =>
      Effect.gen(function* () {
        const seen: Array<unknown> = []
        const given = yield* Deferred.make<CancelScope.CancelScope>()
        const task = Effect.onExit(Effect.never, () => Effect.map(currentReason, (why) => seen.push(why)))
        const fiber = yield* started(
          CancelScope.run((scope) =>
            within((tasks) =>
              Effect.gen(function* () {
                yield* tasks.spawn(task)
                yield* tasks.daemon(task)
                yield* Deferred.succeed(given, scope)
                yield* Effect.never
              })
            )
          )
        )
        const scope = yield* Deferred.await(given)
        yield* scope.cancel(reason)
        yield* scope.cancel(CancelReason.Unknown())
        expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason })
        expect(seen).toEqual([Option.some(reason), Option.some(reason)])
      })
    )

    it.effect("cancelled after: it takes no work, and nothing hears it", () =>
      Effect.gen(function* () {
        const { add, events } = recorder()
        const tasks = (yield* within((own) => Effect.succeed(own))) as Tasks
        yield* tasks.cancel(reason)
        expect(yield* Effect.flip(tasks.spawn(add("ran")))).toMatchObject({ _tag: "TaskScopeClosed" })
        expect(yield* tasks.size).toBe(0)
        expect(events).toEqual([])
      })
    )

    it.effect("L24: after the exit no task and no fiber lives, whatever the tasks do", () =>
      Effect.gen(function* () {
        const { around, count } = fiberCount()
        const { around: receiving } = receiver()
        const stopped = yield* started(Effect.never)
        yield* Fiber.interrupt(stopped)
        for (const work of [
          Effect.void,
          Effect.never,
          Effect.fail("no"),
          Effect.die("no"),
          Fiber.join(stopped),
          Effect.andThen(Effect.yieldNow, Effect.fail("no")),
          Effect.ensuring(Effect.never, Effect.yieldNow),
          Effect.forkChild(Effect.never),
          Effect.suspend((): Effect.Effect<void> => {
            throw new Error("thrown")
          })
        ] as ReadonlyArray<Effect.Effect<unknown, unknown>>) {
          let tasks: TaskScope.TaskScope | undefined
          const program = within((own) => {
            tasks = own
            return Effect.gen(function* () {
              yield* own.spawn(work)
              yield* own.daemon(work)
              yield* Effect.yieldNow
              yield* own.close
              yield* own.cancel()
            })
          })
          yield* exitOf(receiving(around(program)))
          expect(count.live).toBe(0)
          expect(yield* (tasks as TaskScope.TaskScope).size).toBe(0)
        }
      })
    )

    it.effect("L24, L17: a task that outlives its budget is left behind as stuck, once, until it ends", () =>
      Effect.gen(function* () {
        const { gate, work } = held()
        const fiber = yield* started(
          within((tasks) =>
            Effect.gen(function* () {
              const task = yield* tasks.spawn(work, { name: "upload" })
              yield* tasks.spawn(Effect.never)
              yield* tasks.cancel(reason)
              return [task, yield* task.status, yield* tasks.size] as const
            })
          )
        )
        yield* TestClock.adjust("9 seconds")
        expect(yield* stuck).toEqual([])
        yield* TestClock.adjust("1 second")
        const [task, status, size] = yield* Fiber.join(fiber)
        expect([status, size]).toEqual(["stuck", 0])
        expect(yield* stuck).toMatchObject([{ kind: "task", name: "upload", reason }])
        yield* Deferred.succeed(gate, undefined)
        yield* task.exit
        expect(yield* stuck).toEqual([])
        expect(yield* task.status).toBe("ended")
      })
    )

    it.effect("L28: tasks clean up side by side: the end takes as long as the longest, not the sum", () =>
      Effect.gen(function* () {
        // The clock's own warning would end the first sleep inside an interrupted fiber.
        yield* TestClock.adjust(0)
        const lengths = [3, 1, 5, 4]
        const start = yield* Instant.now
        const fiber = yield* started(
          within((tasks) =>
            Effect.gen(function* () {
              for (const seconds of lengths)
                yield* tasks.spawn(Effect.ensuring(Effect.never, Effect.sleep(Duration.seconds(seconds))))
              yield* tasks.cancel()
            })
          ).pipe(Effect.andThen(Instant.now))
        )
        yield* TestClock.adjust("20 seconds")
        expect((yield* Fiber.join(fiber)) - start).toBe(5000)
      })
    )
  })
}

describe("a task scope that Curfew has not made", () => {
  it.effect("is refused with a sentence that says what to give, and a copy too", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskScope.make()
      for (const foreign of [{ ...tasks }, {} as TaskScope.TaskScope]) {
        const spawn = yield* TaskScope.makeRuntime(foreign)
        expect(() => spawn(Effect.void)).toThrow(ForeignTaskScope)
        expect(() => spawn(Effect.void)).toThrow("give the one that TaskScope.use")
        const exit = yield* exitOf(background("index", Effect.void, { owner: foreign }))
        expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toBeInstanceOf(ForeignTaskScope)
      }
    }).pipe(Effect.provide(Owner.layer()))
  )
})

describe("a clock that runs other work in the turn in which a timer starts", () => {
  it.effect("a wait for tasks and a piece of clean-up end once, and no timer stays", () =>
    Effect.gen(function* () {
      const real = yield* Clock.Clock
      const { around, count } = fiberCount()
      for (const [kind, rest] of [
        ["scope", "sleeps on"],
        ["bounded", "sleeps on"],
        ["start", "sleeps on"],
        ["scope", "is over"],
        ["bounded", "is over"],
        ["start", "is over"]
      ] as const) {
        const { gate, work } = held()
        // The very sleep of the budget lets the work go that the budget is for.
        const clock: Clock.Clock = {
          ...real,
          currentTimeMillisUnsafe: () => real.currentTimeMillisUnsafe(),
          monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
          sleep: (duration) =>
            Effect.suspend(() => {
              Deferred.doneUnsafe(gate, Effect.void)
              return rest === "is over" ? Effect.void : real.sleep(duration)
            })
        }
        const program = around(
          kind === "bounded"
            ? bounded(work)
            : Effect.scoped(
                Effect.flatMap(TaskScope.make(), (tasks) =>
                  kind === "scope"
                    ? tasks.spawn(work)
                    : Effect.flatMap(started(tasks.start(() => work)), Fiber.interrupt)
                )
              )
        )
        const fiber = yield* started(Effect.provideService(program, Clock.Clock, clock))
        const exit = yield* Fiber.await(fiber)
        expect(exit._tag, kind).toBe("Success")
        expect(count.live, kind).toBe(0)
        expect(yield* stuck).toEqual([])
      }
    })
  )
})

describe("the options of a spawn", () => {
  it("are read once, before anything of the task is there: what throws there is the spawn's defect", async () => {
    let read = 0
    const scope = await Effect.runPromise(
      TaskScope.use((tasks) =>
        Effect.gen(function* () {
          const named = yield* tasks.spawn(Effect.never, {
            get name() {
              read++
              return "named"
            }
          })
          const thrown = yield* Effect.exit(
            tasks.spawn(Effect.never, {
              get name(): string {
                throw new Error("no name today")
              }
            })
          )
          yield* named.cancel()
          return { name: named.name, thrown, left: yield* tasks.size }
        })
      )
    )
    expect(scope).toMatchObject({ name: "named", left: 0, thrown: Exit.die(new Error("no name today")) })
    expect(read).toBe(1)
  })
})
