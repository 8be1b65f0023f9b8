import { type CancelReason, currentReason } from "@curfew/reason"
import { CleanupBudget, TaskScope } from "@curfew/scope"
import { Shared, type SharedCancelled } from "@curfew/singleflight"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"

/**
 * To be run first where clean-up sleeps: before its first adjustment the test clock's `sleep` opens an interruptible
 * region, which ends the finalizer of an interrupted fiber.
 */
export const primeTestClock: Effect.Effect<void> = TestClock.adjust(0)

/** One run of the work, which ends when the test says so. */
export interface Run {
  readonly end: (exit: Effect.Effect<string, string>) => void
  /** Why it was cancelled, once its clean-up has begun. */
  reason: CancelReason | undefined
  ended: boolean
}

/** Work whose every run is in the test's hands. */
export class Lab {
  readonly runs: Array<Run> = []
  active = 0
  mostActive = 0
  readonly work: Effect.Effect<string, string>

  constructor(cleanup: Effect.Effect<unknown> = Effect.void) {
    this.work = Effect.suspend(() => {
      this.active++
      this.mostActive = Math.max(this.mostActive, this.active)
      const index = this.runs.length
      const gate = Effect.callback<string, string>((resume) => {
        this.runs.push({ end: resume, reason: undefined, ended: false })
      })
      return Effect.onExit(gate, (exit) =>
        Effect.gen({ self: this }, function* () {
          const run = this.runs[index] as Run
          if (exit._tag === "Failure") {
            const reason = yield* currentReason
            run.reason = Option.getOrUndefined(reason)
            if (run.reason !== undefined) yield* cleanup
          }
          run.ended = true
          this.active--
        })
      )
    })
  }

  run(index: number): Run {
    const run = this.runs[index]
    if (run === undefined) throw new Error(`there is no run ${index}`)
    return run
  }
}

type Observed<A, E> = Fiber.Fiber<A, E | SharedCancelled>

/** Forks an observer that waits, or has its exit, when this returns. */
export const observing = <A, E>(get: Effect.Effect<A, E | SharedCancelled>): Effect.Effect<Observed<A, E>> =>
  Effect.forkChild(get, { startImmediately: true })

export const exitOf = <A, E>(fiber: Fiber.Fiber<A, E>): Exit.Exit<A, E> | undefined => fiber.pollUnsafe()

/** An owner that ends with the test, cancels what is left and waits for none of it: a red test must not hang. */
export const owner: Effect.Effect<TaskScope.TaskScope, never, Scope.Scope> = Effect.acquireRelease(
  Scope.make(),
  (scope) => Effect.provideService(Scope.close(scope, Exit.void), CleanupBudget, Duration.zero)
).pipe(Effect.flatMap((scope) => Scope.provide(TaskScope.make({ name: "lab" }), scope)))

export const sharedIn = (
  lab: Lab,
  options?: Omit<Shared.Options<string, string>, "owner">
): Effect.Effect<
  { readonly shared: Shared.Shared<string, string>; readonly tasks: TaskScope.TaskScope },
  never,
  Scope.Scope
> =>
  Effect.gen(function* () {
    const tasks = yield* owner
    const shared = yield* Shared.make(lab.work, { ...options, owner: tasks })
    return { shared, tasks }
  })
