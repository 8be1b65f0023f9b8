/** Work in its first run, whose cell is made when somebody looks for it. */
import { CancelReason, currentReason, fromCause, isCancelled, outerReason } from "@curfew/reason"
import { CurrentCell, rootsUnsafe, unshown } from "@curfew/reason/CancelCell"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { vi } from "vitest"
import { exitOf, started } from "../../../test/support/recorder.ts"
import { CancelScope, Instant, inspect, type LiveNode, TaskScope } from "../src/index.ts"
import * as TaskScopeModule from "../src/TaskScope.ts"

const reason = CancelReason.Superseded()

const names = (nodes: ReadonlyArray<LiveNode>): ReadonlyArray<string> =>
  nodes.flatMap(({ children, name }) => [...(name === undefined ? [] : [name]), ...names(children)])

/** The names of what is alive, from a callback: nothing of the fiber that asks is read. */
const aliveUnsafe = (): ReadonlyArray<string> => names(Effect.runSync(inspect).roots)

describe("work in its first run", () => {
  it.effect("L47: stands in the live tree, with the work that it stands in, for who looks from outside", () =>
    TaskScope.use(
      (tasks: TaskScope.TaskScope) =>
        Effect.gen(function* () {
          const spawn = yield* TaskScope.makeRuntime(tasks)
          const inner = Effect.sync(aliveUnsafe)
          const outer = Effect.sync(() => {
            const task = spawn(inner, { name: "inner" })
            return Effect.runSync(task?.join ?? Effect.die("refused"))
          })
          const task = yield* tasks.spawn(outer, { name: "outer" })
          expect(yield* task.join).toEqual(["set", "set", "outer", "inner", "set"])
          expect(aliveUnsafe()).toEqual(["set", "set", "set"])
          expect(unshown.last).toBeUndefined()
        }),
      { name: "set" }
    )
  )

  it.effect("stands beside its siblings in the order in which they began", () =>
    TaskScope.use(
      (tasks: TaskScope.TaskScope) =>
        Effect.gen(function* () {
          const spawn = yield* TaskScope.makeRuntime(tasks)
          const outer = Effect.suspend(() => {
            spawn(Effect.never, { name: "inner" })
            return Effect.never
          })
          yield* tasks.spawn(outer, { name: "outer" })
          expect(aliveUnsafe().filter((name) => name !== "set")).toEqual(["outer", "inner"])
          yield* tasks.cancel(reason)
        }),
      { name: "set" }
    )
  )

  it.effect("L2: is cancelled by what it calls, at its next operation", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const tasks = yield* TaskScope.make()
      const work = Effect.andThen(
        Effect.sync(() => {
          Effect.runFork(tasks.cancel(reason))
        }),
        Effect.sync(() => seen.push("ran on"))
      )
      const exit = yield* (yield* tasks.spawn(work)).exit
      expect(exit._tag === "Failure" && fromCause(exit.cause)).toEqual(Option.some(reason))
      expect(seen).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.effect("L2: is cancelled from above, and so is what it started and stands in it", () =>
    Effect.gen(function* () {
      const exits: Array<unknown> = []
      const outcome = yield* CancelScope.run((scope) =>
        TaskScope.use((tasks: TaskScope.TaskScope) =>
          Effect.gen(function* () {
            const spawn = yield* TaskScope.makeRuntime(tasks)
            const inner = Effect.andThen(
              Effect.sync(() => Effect.runSync(scope.cancel(reason))),
              Effect.void
            )
            const outer = Effect.andThen(
              Effect.sync(() => spawn(inner)?.exit.pipe(Effect.runSync)),
              (exit) => Effect.sync(() => exits.push(exit))
            )
            yield* tasks.spawn(Effect.onExit(outer, (exit) => Effect.sync(() => exits.push(exit._tag))))
            yield* Effect.never
          })
        )
      )
      expect(outcome).toEqual({ _tag: "Cancelled", reason })
      expect(exits).toEqual(["Failure"])
    })
  )

  it.effect("knows its cell, and so do the children that it forks", () =>
    TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
      Effect.gen(function* () {
        const name = Effect.map(CurrentCell, (cell) => cell?.name)
        const both = Effect.gen(function* () {
          const child = yield* Effect.forkChild(name, { startImmediately: true })
          return [yield* name, child.pollUnsafe()]
        })
        const [own, child] = yield* (yield* tasks.spawn(both, { name: "mine" })).join
        expect(own).toBe("mine")
        expect(child).toMatchObject({ value: "mine" })
        const waits = yield* tasks.spawn(Effect.andThen(Effect.yieldNow, name), { name: "later" })
        expect(yield* waits.join).toBe("later")
      })
    )
  )

  it.effect("masked work that cancels what it stands in reads the reason there and then", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const tasks = yield* TaskScope.make()
      const work = Effect.uninterruptible(
        Effect.andThen(
          Effect.sync(() => Effect.runFork(tasks.cancel(reason))),
          Effect.tap(Effect.all([currentReason, isCancelled]), (read) =>
            Effect.sync(() => seen.push(...read))
          )
        )
      )
      yield* (yield* tasks.spawn(work)).exit
      expect(seen).toEqual([Option.some(reason), true])
    }).pipe(Effect.scoped)
  )

  it.effect("what ended before a cancel has no reason, whoever asks for its cell after it", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskScope.make()
      const spawn = (work: Effect.Effect<number>) =>
        Effect.withFiberSucceed((fiber) =>
          TaskScopeModule.spawnUnsafe(tasks, fiber.context, work, { name: "done" })
        )
      const task = yield* spawn(Effect.succeed(1))
      yield* tasks.cancel(reason)
      expect(task?.cell).toMatchObject({ name: "done", reason: undefined, ended: true })
      expect(rootsUnsafe().some(({ name }) => name === "done")).toBe(false)
      expect(yield* spawn(Effect.succeed(1))).toBeUndefined()
    }).pipe(Effect.scoped)
  )

  it.effect("what fails within it cancels its siblings, and nothing is left in the tree", () =>
    Effect.gen(function* () {
      const waiting = TaskScope.use(
        (tasks: TaskScope.TaskScope<string>) =>
          Effect.gen(function* () {
            yield* tasks.spawn(Effect.never)
            yield* tasks.spawn(Effect.fail("no route"))
            return yield* Effect.never
          }),
        { name: "set" }
      )
      const exit = yield* exitOf(waiting)
      expect(exit._tag === "Failure" && Cause.squash(exit.cause)).toBe("no route")
      expect(aliveUnsafe()).toEqual([])
      expect((yield* started(Effect.void)).pollUnsafe()).toBeDefined()
    })
  )
})

describe("a scope whose body is in its first run", () => {
  it.effect("has no cell when nobody asked for one, and leaves nothing in the tree", () =>
    Effect.gen(function* () {
      const before = rootsUnsafe().length
      expect(yield* CancelScope.run(() => Effect.succeed(1), { name: "done" })).toEqual({
        _tag: "Done",
        value: 1,
        cancelCalled: false
      })
      expect(rootsUnsafe().length).toBe(before)
      expect(unshown.last).toBeUndefined()
    })
  )

  it.effect("L47: stands in the live tree below the scopes and tasks that it stands in", () =>
    Effect.gen(function* () {
      const innermost = CancelScope.run(() => Effect.sync(aliveUnsafe), { name: "inner" })
      const between = TaskScope.use(
        (tasks: TaskScope.TaskScope<never>) =>
          Effect.flatMap(tasks.spawn(innermost, { name: "task" }), ({ join }) => join),
        { name: "set" }
      )
      const outcome = yield* CancelScope.run(() => between, { name: "outer" })
      expect(outcome).toMatchObject({
        value: { _tag: "Done", value: ["outer", "set", "set", "task", "inner", "set"] }
      })
      expect(aliveUnsafe()).toEqual([])
    })
  )

  it.effect("stands beside its siblings in the order in which they began, once it waits", () =>
    Effect.gen(function* () {
      const inner = CancelScope.run(() => Effect.never, { name: "inner" })
      const outer = Effect.suspend(() => {
        Effect.runFork(
          CancelScope.run((scope) => (scope.signal.aborted ? Effect.void : Effect.yieldNow), {
            name: "beside"
          })
        )
        return inner
      })
      const running = yield* started(CancelScope.run(() => outer, { name: "outer" }))
      expect(aliveUnsafe()).toEqual(["outer", "inner", "beside"])
      yield* Fiber.interrupt(running)
      yield* Effect.yieldNow
      expect(aliveUnsafe()).toEqual([])
    })
  )

  it.effect(
    "L2: is cancelled from above in the middle of it, at its next operation, and its caller with it",
    () =>
      Effect.gen(function* () {
        const seen: Array<unknown> = []
        const outcome = yield* CancelScope.run((above) =>
          CancelScope.run((scope) =>
            Effect.andThen(
              Effect.sync(() => {
                Effect.runSync(above.cancel(reason))
                seen.push(scope.signal.aborted, scope.signal.reason)
              }),
              Effect.sync(() => seen.push("ran on"))
            )
          )
        )
        expect(outcome).toEqual({ _tag: "Cancelled", reason })
        expect(seen).toEqual([true, reason])
      })
  )

  it.effect("is asked for its deadline by what stands in it, and by its own handle", () =>
    Effect.gen(function* () {
      const deadline = yield* Instant.after("1 second")
      const asked = CancelScope.run((outer) =>
        CancelScope.run((scope) => Effect.all([scope.deadline, outer.deadline]))
      )
      const within = CancelScope.run(() => asked, { deadline })
      expect(yield* within).toMatchObject({
        value: { value: { value: [Option.some(deadline), Option.some(deadline)] } }
      })
    })
  )

  it.effect("L44: beside a mask it asks outwards, and no cancel comes down", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const body = (above: CancelScope.CancelScope) =>
        Effect.uninterruptible(
          CancelScope.run((scope) =>
            Effect.andThen(
              above.cancel(reason),
              Effect.tap(Effect.all([outerReason, isCancelled]), (read) =>
                Effect.sync(() => seen.push(...read, scope.signal.aborted))
              )
            )
          )
        )
      yield* exitOf(CancelScope.run(body))
      expect(seen).toEqual([Option.some(reason), false, false])
    })
  )

  it.effect(
    "its handle outlives it: a cancel comes too late for anybody, and nothing stands in the tree",
    () =>
      Effect.gen(function* () {
        let kept: CancelScope.CancelScope | undefined
        const outcome = yield* CancelScope.run(
          (above) =>
            Effect.gen(function* () {
              yield* CancelScope.run((scope) => Effect.sync(() => (kept = scope)), { name: "kept" })
              yield* above.cancel(CancelReason.Requested({ message: "too late" }))
            }),
          { name: "above" }
        )
        expect(outcome._tag).toBe("Cancelled")
        expect(kept?.name).toBe("kept")
        expect(kept?.signal.aborted).toBe(false)
        yield* kept?.setDeadline(yield* Instant.after("1 second")) ?? Effect.void
        expect(yield* kept?.deadline ?? Effect.die("no handle")).toEqual(Option.none())
        expect(yield* kept?.cancel(reason) ?? Effect.void).toBe(true)
        expect(yield* kept?.cancel(reason) ?? Effect.void).toBe(false)
        expect(kept?.signal.reason).toBe(reason)
        expect(aliveUnsafe()).toEqual([])
      })
  )

  it.effect("a signal that is aborted in the middle of it cancels it, and is heard no more after it", () =>
    Effect.gen(function* () {
      const controller = new AbortController()
      const removed = vi.spyOn(controller.signal, "removeEventListener")
      const outcome = yield* CancelScope.run(
        () =>
          Effect.andThen(
            Effect.sync(() => controller.abort(reason)),
            Effect.never
          ),
        { signal: controller.signal }
      )
      expect(outcome).toEqual({ _tag: "Cancelled", reason })
      expect(removed).toHaveBeenCalledTimes(1)
    })
  )
})
