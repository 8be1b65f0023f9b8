/** The start handshake: a task that says when it is ready. */
import { CancelReason, currentReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { sweepAll } from "../../../test/support/sweep.ts"
import {
  CancelScope,
  NeverReady,
  OnUnhandled,
  TaskScope,
  TaskScopeClosed,
  type Unhandled
} from "../src/index.ts"

type Ready<V> = (value: V) => Effect.Effect<void>

const listen = (ready: Ready<number>) => Effect.andThen(ready(8080), Effect.never)

/** Runs a body in a supervising scope and gives what its receiver was told. */
const supervised = <A, E>(body: (tasks: TaskScope.TaskScope) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const told: Array<Unhandled> = []
    const value = yield* TaskScope.use(body, {
      policy: "supervise",
      onUnhandled: (unhandled) => Effect.sync(() => told.push(unhandled))
    })
    return { value, told }
  })

describe("start", () => {
  it.effect("gives the word and the task, which goes on", () =>
    supervised((tasks) =>
      Effect.gen(function* () {
        const [port, task] = yield* tasks.start(listen, { name: "listener" })
        expect(port).toBe(8080)
        expect(yield* task.status).toBe("running")
        yield* tasks.cancel()
      })
    )
  )

  it.effect("a failure before the word is the caller's alone", () =>
    Effect.gen(function* () {
      const { told, value } = yield* supervised((tasks) =>
        Effect.flip(tasks.start((_: Ready<number>) => Effect.andThen(Effect.yieldNow, Effect.fail("in use"))))
      )
      expect(value).toBe("in use")
      expect(told).toEqual([])
    })
  )

  it.effect("L25: a failure before the word does not cancel the siblings of a scope that fails fast", () =>
    Effect.gen(function* () {
      const value = yield* TaskScope.use((tasks: TaskScope.TaskScope<string>) =>
        Effect.gen(function* () {
          const sibling = yield* tasks.spawn(Effect.never)
          const error = yield* Effect.flip(tasks.start((_: Ready<number>) => Effect.fail("in use")))
          const status = yield* sibling.status
          yield* sibling.cancel()
          return [error, status]
        })
      )
      expect(value).toEqual(["in use", "running"])
    })
  )

  it.effect("L26: a failure after the word is the policy's, once", () =>
    Effect.gen(function* () {
      const { told } = yield* supervised((tasks) =>
        tasks.start((ready: Ready<number>) =>
          Effect.andThen(ready(1), Effect.andThen(Effect.yieldNow, Effect.fail("later")))
        )
      )
      expect(told.length).toBe(1)
    })
  )

  it.effect("work that ends without a word is NeverReady", () =>
    Effect.gen(function* () {
      const { value } = yield* supervised((tasks) =>
        Effect.flip(tasks.start((_: Ready<number>) => Effect.void, { name: "listener" }))
      )
      expect(value).toEqual(new NeverReady({ task: "listener" }))
    })
  )

  it.effect("L27: a closed scope refuses with a typed error", () =>
    Effect.gen(function* () {
      const { value } = yield* supervised((tasks) =>
        Effect.andThen(tasks.close, Effect.flip(tasks.start(listen)))
      )
      expect(value).toBeInstanceOf(TaskScopeClosed)
    })
  )

  it.effect("a caller that is cancelled before the word takes the task with it, with its reason", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const work = (_: Ready<number>) =>
        Effect.onExit(Effect.never, () => Effect.map(currentReason, (reason) => seen.push(reason)))
      const tasks = yield* TaskScope.make()
      const outcome = yield* CancelScope.run((scope) =>
        Effect.andThen(Effect.forkChild(scope.cancel(CancelReason.Superseded())), tasks.start(work))
      )
      expect(outcome._tag).toBe("Cancelled")
      expect(seen).toMatchObject([{ value: { _tag: "Superseded" } }])
      expect(yield* tasks.size).toBe(0)
    })
  )

  it.effect(
    "a caller that is cancelled after the word leaves the task to its scope; a second word changes nothing",
    () =>
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        const words: Array<number> = []
        const go = yield* Deferred.make<void>()
        const caller = yield* Effect.forkChild(
          Effect.andThen(
            Effect.map(
              tasks.start((ready: Ready<number>) =>
                Effect.andThen(ready(1), Effect.andThen(ready(2), Deferred.await(go)))
              ),
              ([word]) => words.push(word)
            ),
            Effect.never
          ),
          { startImmediately: true }
        )
        yield* Fiber.interrupt(caller)
        expect(words).toEqual([1])
        expect(yield* tasks.size).toBe(1)
        yield* Deferred.succeed(go, undefined)
        expect(yield* tasks.drain()).toBe(true)
      })
  )

  it("L24: cancelled at every step, nothing is left", async () => {
    const program = Effect.provideService(
      TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
        Effect.gen(function* () {
          const [word, task] = yield* tasks.start((ready: Ready<number>) =>
            Effect.andThen(Effect.yieldNow, Effect.andThen(ready(7), Effect.yieldNow))
          )
          yield* task.exit
          return word
        }).pipe(Effect.catch(() => Effect.succeed(0)))
      ),
      OnUnhandled,
      () => Effect.void
    )
    await sweepAll(() => ({ program, after: (exit) => expect(Exit.isExit(exit)).toBe(true) }))
  })
})
