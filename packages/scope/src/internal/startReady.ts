/**
 * Starting a task and waiting for its word.
 *
 * Invariants
 * 1. Starting the task and beginning to wait for it are one operation.
 * 2. Before its word a failure is the caller's alone; after it, the policy's of the scope. Never both. The failure
 *    that a caller can no longer take, because it was interrupted in the same turn, is the policy's too.
 * 3. A caller that is interrupted before the word takes the task with it, and waits for its end within the clean-up
 *    budget; what overruns that is stuck.
 */
import { CancelReason, currentReason } from "@curfew/reason"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { CleanupBudget } from "../CleanupBudget.ts"
import { failureOf } from "../failureOf.ts"
import { NeverReady, type Task, TaskScopeClosed } from "../Task.ts"
import * as child from "./child.ts"
import type { TaskSet } from "./taskScope.ts"

export const startReady = <A, E, R, V>(
  set: TaskSet,
  work: (ready: (value: V) => Effect.Effect<void>) => Effect.Effect<A, E, R>,
  name: string | undefined
): Effect.Effect<readonly [V, Task<A, E>], E | NeverReady | TaskScopeClosed, R> =>
  Effect.withFiber((fiber) => {
    let word: { readonly value: V } | undefined
    let left = false
    let task: ReturnType<TaskSet["spawnUnsafe"]> | undefined
    const waited = Effect.callback<readonly [V, Task<A, E>], E | NeverReady | TaskScopeClosed>((resume) => {
      const tell = () => {
        if (word !== undefined && task !== undefined) resume(Effect.succeed([word.value, task as Task<A, E>]))
      }
      const ready = (value: V): Effect.Effect<void> =>
        Effect.sync(() => {
          if (word !== undefined) return
          word = { value }
          tell()
        })
      const started = set.spawnUnsafe(
        fiber.context as Context.Context<R>,
        Effect.suspend(() => work(ready)),
        { name, observed: () => word === undefined && !left },
        false
      )
      if (started === undefined) {
        resume(Effect.fail(new TaskScopeClosed({ scope: set.name })))
        return
      }
      task = started
      started.fiber.addObserver((exit) => {
        if (word === undefined) child.resumeWith(fiber, resume, unready(exit, name))
      })
      tell()
    })
    return Effect.onExitPrimitive(waited, (exit) => {
      if (exit._tag === "Success" || word !== undefined || task === undefined) return undefined
      // The caller has got what the task failed with, or that it was never ready.
      if (!Cause.hasInterruptsOnly(exit.cause)) return undefined
      // From here on nobody waits for its failure but the scope's policy.
      left = true
      return stop(set, task)
    })
  })

const unready = <E>(
  exit: Exit.Exit<unknown, E>,
  name: string | undefined
): Effect.Effect<never, E | NeverReady> => {
  const failure = exit._tag === "Failure" ? failureOf(exit.cause) : undefined
  return failure === undefined ? Effect.fail(new NeverReady({ task: name })) : Effect.failCause(failure)
}

const stop = (set: TaskSet, task: Started): Effect.Effect<void> =>
  Effect.flatMap(CleanupBudget, (budget) =>
    Effect.flatMap(currentReason, (reason) => {
      task.cancelUnsafe(Option.getOrElse(reason, CancelReason.Unknown))
      return Effect.andThen(set.awaitTask(task, budget), set.tellUntold(task))
    })
  )

type Started = NonNullable<ReturnType<TaskSet["spawnUnsafe"]>>
