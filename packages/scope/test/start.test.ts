/** The start handshake: a task that says when it is ready. */
import { CancelReason, currentReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { held, receiver, started } from "../../../test/support/recorder.ts"
import { sweep, sweepAll } from "../../../test/support/sweep.ts"
import {
  CancelScope,
  NeverReady,
  OnUnhandled,
  siblingFailures,
  stuck,
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

  it.effect(
    "L26: a failure that the cancelled caller can no longer take is told once, by either policy",
    () =>
      Effect.gen(function* () {
        for (const [policy, when] of [
          ["failFast", "in one turn"],
          ["failFast", "while its children clean up"],
          ["supervise", "in one turn"],
          ["supervise", "while its children clean up"]
        ]) {
          const told: Array<Unhandled> = []
          const onUnhandled = (unhandled: Unhandled) => Effect.sync(() => told.push(unhandled))
          const { gate: children, work: cleanup } = held()
          const failed = yield* Deferred.make<never, string>()
          const inOneTurn = (tasks: TaskScope.TaskScope<string>) =>
            CancelScope.run((scope) =>
              TaskScope.use((inner: TaskScope.TaskScope<unknown>) =>
                Effect.gen(function* () {
                  // Signalled together with the caller, and the first of the two to run its clean-up.
                  yield* inner.spawn(Effect.onExit(Effect.never, () => Deferred.fail(failed, "in use")))
                  yield* inner.spawn(tasks.start((_: Ready<number>) => Deferred.await(failed)))
                  yield* scope.cancel()
                })
              )
            )
          const whileChildrenCleanUp = (tasks: TaskScope.TaskScope<string>) =>
            Effect.gen(function* () {
              const caller = yield* started(
                tasks.start((_: Ready<number>) =>
                  Effect.andThen(started(Effect.ensuring(Effect.never, cleanup)), Effect.fail("in use"))
                )
              )
              caller.interruptUnsafe()
              yield* Deferred.succeed(children, undefined)
              yield* Fiber.await(caller)
            })
          const body = (tasks: TaskScope.TaskScope<string>): Effect.Effect<unknown, unknown> =>
            when === "in one turn" ? inOneTurn(tasks) : whileChildrenCleanUp(tasks)
          const exit = yield* Effect.exit(TaskScope.use(body, { policy: policy as "failFast", onUnhandled }))
          const came = Exit.isFailure(exit) && Cause.squash(exit.cause) === "in use" ? 1 : 0
          expect(came + told.length, `${policy}, ${when}`).toBe(1)
        }
      })
  )

  it("L26: cancelled at every step, a failure before the word comes to the caller or to the receiver, once", async () => {
    for (const cancel of ["native", "scope"] as const) {
      const make = () => {
        let failed = 0
        let heard = 0
        return {
          program: Effect.suspend(() => {
            failed = heard = 0
            return TaskScope.use(
              (tasks) =>
                Effect.catch(
                  tasks.start((_: Ready<number>) =>
                    Effect.andThen(
                      Effect.yieldNow,
                      Effect.suspend(() => {
                        failed++
                        return Effect.fail("in use")
                      })
                    )
                  ),
                  () =>
                    Effect.sync(() => {
                      heard++
                    })
                ),
              {
                policy: "supervise",
                onUnhandled: () =>
                  Effect.sync(() => {
                    heard++
                  })
              }
            )
          }),
          // A caller that is interrupted between the failure and its handler has got it, like any other.
          after: () => expect(heard).toBeLessThanOrEqual(failed)
        }
      }
      await sweep(make, { cancel })
    }
  })

  it.effect(
    "L24: a task that does not end is left behind after the budget, and the cancelled caller leaves",
    () =>
      Effect.gen(function* () {
        const { gate, work } = held()
        const tasks = yield* TaskScope.make()
        const fiber = yield* started(tasks.start((_: Ready<number>) => work, { name: "listener" }))
        fiber.interruptUnsafe()
        yield* TestClock.adjust("9 seconds")
        expect(fiber.pollUnsafe()).toBeUndefined()
        yield* TestClock.adjust("1 second")
        expect(fiber.pollUnsafe()?._tag).toBe("Failure")
        expect(yield* stuck).toMatchObject([{ kind: "task", name: "listener" }])
        yield* Deferred.succeed(gate, undefined)
        expect(yield* stuck).toEqual([])
      })
  )

  it.effect(
    "L25, L26: a failure before the word whose caller leaves while its children clean up counts once",
    () =>
      Effect.gen(function* () {
        const { receive, seen } = receiver()
        const { gate, work } = held()
        const exit = yield* Effect.exit(
          TaskScope.use(
            (tasks: TaskScope.TaskScope<string>) =>
              Effect.gen(function* () {
                const lingering = Effect.andThen(
                  started(Effect.ensuring(Effect.never, work)),
                  Effect.fail("no")
                )
                const caller = yield* started(tasks.start((_: Ready<number>) => lingering))
                caller.interruptUnsafe()
                yield* Deferred.succeed(gate, undefined)
                yield* Fiber.await(caller)
              }),
            { onUnhandled: receive }
          )
        )
        expect(Exit.isFailure(exit) && [Cause.squash(exit.cause), siblingFailures(exit.cause)]).toEqual([
          "no",
          []
        ])
        expect(seen).toEqual([])
      })
  )

  it.effect("L24, L26: what it fails with after that is told, once", () =>
    Effect.gen(function* () {
      const { receive, seen } = receiver()
      const { gate, work } = held<never, string>()
      const tasks = yield* TaskScope.make({ onUnhandled: receive })
      const fiber = yield* started(tasks.start((_: Ready<number>) => work, { name: "listener" }))
      fiber.interruptUnsafe()
      yield* TestClock.adjust("10 seconds")
      expect(fiber.pollUnsafe()?._tag).toBe("Failure")
      yield* Deferred.fail(gate, "no")
      expect(seen).toMatchObject([{ origin: "task", name: "listener", cause: Cause.fail("no") }])
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
