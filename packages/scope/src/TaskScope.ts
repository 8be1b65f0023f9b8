import { CancelReason, currentReason, toCause } from "@curfew/reason"
import {
  CancelCell,
  cancelledAboveUnsafe,
  forkCellUnsafe,
  inlineUnsafe,
  interruptsOfUnsafe,
  keepUnsafe,
  startsApartUnsafe
} from "@curfew/reason/CancelCell"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { millisUnsafe } from "./Argument.ts"
import { CleanupBudget } from "./CleanupBudget.ts"
import { failureOf } from "./failureOf.ts"
import { standsIn } from "./internal/cancelling.ts"
import * as child from "./internal/child.ts"
import type { Place } from "./internal/place.ts"
import { startReady } from "./internal/startReady.ts"
import { type SpawnOptions, TaskSet } from "./internal/taskScope.ts"
import { reportUnhandled, type Unhandled } from "./OnUnhandled.ts"
import { ForeignTaskScope, type NeverReady, type Task, TaskScopeClosed } from "./Task.ts"

/**
 * Answers for tasks: what is spawned in it ends with it.
 *
 * **Guarantees**
 *
 * - **Nothing stays out (L24)**: after the scope's exit no task lives, other than stuck ones.
 * - **Typed refusal (L27)**: after `close`, `spawn` fails with `TaskScopeClosed`. What was accepted runs its body, or
 *   its `onNeverStarted`.
 * - **Parallel end (L28)**: tasks clean up side by side; the end takes as long as the longest, not the sum.
 *
 * **When cancelled**
 *
 * Every task is signalled in the same turn, before any finalizer runs. Each has the {@link CleanupBudget} to end.
 *
 * @see use for a scope around a body, make for one that a `Scope` closes.
 * @stability unstable
 * @since 0.1.0
 */
export interface TaskScope<in E = unknown> {
  readonly name: string | undefined
  /** Starts the work at once, up to its first suspension, and gives its task. */
  readonly spawn: <A, E2 extends E, R>(
    work: Effect.Effect<A, E2, R>,
    options?: {
      readonly name?: string | undefined
      /** Runs in place of a body that was cancelled before its first operation. Owns what was handed over. */
      readonly onNeverStarted?: Effect.Effect<unknown> | undefined
    }
  ) => Effect.Effect<Task<A, E2>, TaskScopeClosed, R>
  /** Like `spawn`, for work that does not keep the scope open: it is cancelled when the other tasks have ended. */
  readonly daemon: <A, E2 extends E, R>(
    work: Effect.Effect<A, E2, R>,
    options?: { readonly name?: string | undefined }
  ) => Effect.Effect<Task<A, E2>, TaskScopeClosed, R>
  /**
   * Starts work that says when it is ready, and waits for that: its word and its task. If it fails before, the
   * failure is the caller's; if it ends without a word, `NeverReady`; if the caller is cancelled first, the work is
   * cancelled and awaited. From its word on it is a task like any other.
   */
  readonly start: <A, E2 extends E, R, V>(
    work: (ready: (value: V) => Effect.Effect<void>) => Effect.Effect<A, E2, R>,
    options?: { readonly name?: string | undefined }
  ) => Effect.Effect<readonly [V, Task<A, E2>], E2 | NeverReady | TaskScopeClosed, R>
  /** Takes no new work from now on. */
  readonly close: Effect.Effect<void>
  /** Waits until no task is left but daemons: true, or false when the limit passed first. Default: no limit. */
  readonly drain: (limit?: Duration.Input) => Effect.Effect<boolean>
  /** Closes, cancels every task and waits for them within the {@link CleanupBudget}. The body goes on. */
  readonly cancel: (reason?: CancelReason) => Effect.Effect<void>
  /** How many tasks live, daemons included. */
  readonly size: Effect.Effect<number>
}

// Registered, so that a scope from a second copy of the package is known as well.
const Implementation: unique symbol = /* @__PURE__ */ Symbol.for("@curfew/scope/TaskScope") as never

class TaskScopeImpl implements TaskScope {
  readonly set: TaskSet
  #spawn: TaskScope["spawn"] | undefined = undefined
  #daemon: TaskScope["daemon"] | undefined = undefined

  constructor(set: TaskSet) {
    this.set = set
  }

  get [Implementation](): TaskSet {
    return this.set
  }

  get name(): string | undefined {
    return this.set.name
  }

  // Functions of their own, so that they can be handed on; made when somebody asks.
  get spawn(): TaskScope["spawn"] {
    this.#spawn ??= (work, options) => start(this.set, work, options, false)
    return this.#spawn
  }

  get daemon(): TaskScope["daemon"] {
    this.#daemon ??= (work, options) => start(this.set, work, options, true)
    return this.#daemon
  }

  get start(): TaskScope["start"] {
    return (work, options) => startReady(this.set, work, options?.name)
  }

  get close(): Effect.Effect<void> {
    return Effect.sync(() => this.set.close())
  }

  get drain(): TaskScope["drain"] {
    return (limit = Duration.infinity) =>
      Effect.suspend(() => {
        const millis = millisUnsafe("the duration of the time limit", limit)
        // A limit of zero still finds an idle scope idle.
        return this.set.idle ? Effect.succeed(true) : this.set.awaitIdle({ within: millis })
      })
  }

  get cancel(): TaskScope["cancel"] {
    return (reason = requested) =>
      Effect.flatMap(CleanupBudget, (budget) => {
        this.set.cell.cancel(reason)
        return Effect.withFiber((fiber) => {
          // A task of this scope, and what it forked, would wait for itself, also from behind a mask or a shield.
          return standsIn(fiber, this.set.cell) ? Effect.void : this.set.awaitEnded(budget)
        })
      })
  }

  get size(): Effect.Effect<number> {
    return Effect.sync(() => this.set.size)
  }
}

/** Before the task begins: whatever reading them does, nothing of it is there yet. */
const readOnce = (options: Parameters<TaskScope["spawn"]>[1]): typeof options =>
  options === undefined ? undefined : { name: options.name, onNeverStarted: options.onNeverStarted }

const start = <A, E, R>(
  set: TaskSet,
  work: Effect.Effect<A, E, R>,
  options: Parameters<TaskScope["spawn"]>[1],
  daemon: boolean
): Effect.Effect<Task<A, E>, TaskScopeClosed, R> =>
  Effect.withFiber((fiber) => {
    const task = set.spawnUnsafe(fiber.context as Context.Context<R>, work, readOnce(options), daemon)
    return task === undefined ? Effect.fail(new TaskScopeClosed({ scope: set.name })) : Effect.succeed(task)
  })

/** The mechanism behind a task scope; throws where there is none. */
const setOf = (scope: TaskScope): TaskSet => {
  const set: unknown = (scope as Partial<TaskScopeImpl>)[Implementation]
  if (set === undefined) throw new ForeignTaskScope({ scope })
  return set as TaskSet
}

const requested: CancelReason = /* @__PURE__ */ CancelReason.Requested({
  message: "the task scope was cancelled"
})
const scopeEnded: CancelReason = /* @__PURE__ */ CancelReason.Requested({
  message: "the task scope has ended"
})

/**
 * What {@link use} can be told besides its policy, which is `failFast` by default.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface UseOptions {
  readonly name?: string | undefined
  /** Receives the failures of supervised tasks, and of siblings. Default: the surrounding {@link OnUnhandled}. */
  readonly onUnhandled?: ((unhandled: Unhandled) => Effect.Effect<unknown>) | undefined
}

/**
 * Runs a body with a task scope and returns when the body and every task have ended.
 *
 * **Guarantees**
 *
 * - **Fail fast (L25)**: by default the first failure in time cancels the siblings and the body with `SiblingFailed`
 *   and comes out unwrapped. Later failures are attached to it as {@link SiblingFailures}, and each reaches
 *   {@link OnUnhandled} once, as the first does when the caller was cancelled and cannot get it.
 * - **Supervise (L26)**: with that policy a failing task touches nobody; its failure reaches `onUnhandled` exactly
 *   once.
 * - **Nothing stays out (L24)**: no task outlives the call, other than stuck ones.
 *
 * **When cancelled**
 *
 * Body and tasks are signalled in one turn and awaited, the tasks within the {@link CleanupBudget}.
 *
 * **Gotchas**
 *
 * What tasks may fail with comes from the annotation of the body's parameter, as in the example. Without one they may
 * not fail at all, and the compiler refuses a `spawn` of work that can.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { TaskScope } from "@curfew/scope"
 *
 * const program = TaskScope.use((tasks: TaskScope.TaskScope<string>) =>
 *   Effect.gen(function* () {
 *     yield* tasks.spawn(Effect.never)
 *     yield* tasks.spawn(Effect.fail("no route"))
 *   })
 * )
 * Effect.runSync(Effect.flip(program)) // => "no route"
 * ```
 *
 * @see gather in `@curfew/gather` for a fixed set of items with results.
 * @stability unstable
 * @since 0.1.0
 */
export const use: {
  <A, E, R>(
    body: (tasks: TaskScope) => Effect.Effect<A, E, R>,
    options: UseOptions & { readonly policy: "supervise" }
  ): Effect.Effect<A, E, R>
  <A, E, R, TE = never>(
    body: (tasks: TaskScope<TE>) => Effect.Effect<A, E, R>,
    options?: UseOptions & { readonly policy?: "failFast" | undefined }
  ): Effect.Effect<A, E | TE, R>
} = <A, E, R, TE>(
  body: (tasks: TaskScope<TE>) => Effect.Effect<A, E, R>,
  options?: UseOptions & { readonly policy?: "failFast" | "supervise" | undefined }
): Effect.Effect<A, E | TE, R> =>
  Effect.withFiber((fiber) => {
    const name = options?.name
    const ancestor = cancelledAboveUnsafe(fiber)
    if (ancestor !== undefined) return Effect.failCause(toCause(ancestor))
    const group = startGroup(forkCellUnsafe(fiber, "tasks", name), options)
    const running = startBody(fiber, group, body, name)
    const { set } = group
    const ended = running.pollUnsafe()
    // Mostly nothing is left of what has ended at once: there is nothing to wait for, to stop or to tell.
    if (
      ended?._tag === "Success" &&
      set.size === 0 &&
      set.failures === undefined &&
      interruptsOfUnsafe(fiber) === undefined
    ) {
      finish(group, scopeEnded)
      return ended
    }
    const waited = child.startAndAwait(
      () => running,
      (exit) => conclude<A, E, TE>(group, exit),
      () => Effect.void
    )
    // A finalizer around the whole, not only around the wait: a body that ends at once, after it has cancelled what it
    // stands in, leaves tasks behind and never comes to a wait. It is entered within the operation that starts the body.
    return inlineUnsafe(
      fiber,
      Effect.onExitPrimitive(waited, (exit) => {
        const stopped = exit._tag === "Failure" && Cause.hasInterruptsOnly(exit.cause)
        if (group.ended && !stopped) return undefined
        return Effect.andThen(
          group.ended ? Effect.void : stopGroup(group),
          stopped ? tellLost(group) : Effect.void
        )
      })
    )
  })

/** The body has ended: what is left is waited for, and cancelled where that has to be. */
const conclude = <A, E, TE>(group: Group, exit: Exit.Exit<A, E>): Effect.Effect<A, E | TE> => {
  const { set } = group
  const result = (): Effect.Effect<A, E | TE> => {
    const failed = set.failures?.annotated as Cause.Cause<E | TE> | undefined
    return failed === undefined ? exit : Effect.failCause(failed)
  }
  // Mostly nothing is left, and nobody has to wait for that.
  if (set.size === 0) {
    const telling = finish(group, scopeEnded)
    return telling === undefined ? result() : Effect.flatMap(telling, result)
  }
  const ended = Effect.suspend(() => endGroup(group, scopeEnded))
  return Effect.flatMap(
    set.idle ? ended : Effect.andThen(set.awaitIdle({ orCancelled: true }), ended),
    result
  )
}

/** The cells and the set behind one call of `use`: `whole` holds the body and the tasks side by side. */
interface Group {
  readonly whole: CancelCell
  readonly set: TaskSet
  body: Fiber.Fiber<unknown, unknown> | undefined
  /** What a supervised body failed with. */
  failure: Cause.Cause<unknown> | undefined
  /** No task of it is left, other than stuck ones. */
  ended: boolean
}

let keeps = false

const startGroup = (
  whole: CancelCell,
  options: (UseOptions & { readonly policy?: "failFast" | "supervise" | undefined }) | undefined
): Group => {
  if (!keeps) {
    keeps = true
    keepUnsafe(
      new TaskScopeImpl(new TaskSet({ name: undefined, policy: "failFast", cell: child.keptCell() }))
    )
  }
  return {
    whole,
    body: undefined,
    failure: undefined,
    ended: false,
    set: new TaskSet({
      name: options?.name,
      policy: options?.policy ?? "failFast",
      cell: new CancelCell("tasks", { name: options?.name, parent: whole }),
      onFirstFailure: (cause) => whole.cancel(CancelReason.SiblingFailed({ cause })),
      onUnhandled: options?.onUnhandled
    })
  }
}

const startBody = <A, E, R, TE>(
  fiber: Fiber.Fiber<unknown, unknown>,
  group: Group,
  body: (tasks: TaskScope<TE>) => Effect.Effect<A, E, R>,
  name: string | undefined
): Fiber.Fiber<A, E> => {
  const { set, whole } = group
  const cell = new CancelCell("scope", { name, parent: whole })
  const running = child.forkUnsafe(
    fiber.context as Context.Context<R>,
    cell,
    Effect.suspend(() => body(new TaskScopeImpl(set))),
    {
      settle: (exit) => {
        // A body that fails counts like a task that fails, unless it only ended by the cancel of the whole.
        const failure = exit._tag === "Failure" ? failureOfBody(exit.cause, whole) : undefined
        if (failure === undefined) return undefined
        // It has ended: the cancel that its failure sends must not replace its exit while its children clean up.
        cell.fiber = undefined
        if (set.policy === "failFast") {
          set.fail(failure, name)
        } else {
          group.failure = failure
          whole.cancel(CancelReason.SiblingFailed({ cause: failure }))
        }
        return undefined
      }
    }
  )
  group.body = running
  return running
}

/** The caller was interrupted: hand its reason down, and wait for the body and the tasks. */
const stopGroup = (group: Group): Effect.Effect<void> =>
  Effect.flatMap(currentReason, (reason) => {
    group.whole.inherit(Option.getOrElse(reason, CancelReason.Unknown))
    const bodyEnded = group.body === undefined ? Effect.void : child.awaitEnd(group.body)
    return Effect.andThen(
      bodyEnded,
      Effect.suspend(() => endGroup(group, scopeEnded))
    )
  })

/** The caller ended by an interrupt: the failure that would have been its result has nobody to go to. */
const tellLost = (group: Group): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { set, whole } = group
    const failure = set.failures?.first?.cause ?? group.failure
    return failure === undefined
      ? Effect.void
      : set.receiving(reportUnhandled("task", set.failures?.first?.name ?? set.name, failure, whole.reason))
  })

/** Cancels what is left of the set, which takes nothing more then, waits within the budget, and tells the siblings. */
const endGroup = (group: Group, reason: CancelReason): Effect.Effect<void> => {
  const { set } = group
  if (set.size === 0) return finish(group, reason) ?? Effect.void
  set.cell.cancel(reason)
  return Effect.uninterruptible(
    Effect.flatMap(CleanupBudget, (budget) =>
      Effect.flatMap(set.awaitEnded(budget), () => leaveGroup(group) ?? Effect.void)
    )
  )
}

const finish = (group: Group, reason: CancelReason): Effect.Effect<void> | undefined => {
  group.set.end(reason)
  return leaveGroup(group)
}

/** No task is left, other than stuck ones. Gives what there is to tell of siblings. */
const leaveGroup = (group: Group): Effect.Effect<void> | undefined => {
  const { set, whole } = group
  set.cell.unlink()
  whole.unlink()
  group.ended = true
  const untold = set.failures?.untold()
  if (untold === undefined || untold.length === 0) return undefined
  // Side by side, so that receivers that do not end cost one budget and not one each.
  return Effect.uninterruptible(
    Effect.forEach(untold, ({ cause, name }) => set.receiving(reportUnhandled("sibling", name, cause)), {
      concurrency: "unbounded",
      discard: true
    })
  )
}

const failureOfBody = (cause: Cause.Cause<unknown>, whole: CancelCell): Cause.Cause<unknown> | undefined =>
  failureOf(cause) ?? (whole.reason === undefined ? cause : undefined)

/**
 * Makes a supervising task scope that lives as long as the surrounding `Scope`.
 *
 * **Guarantees**
 *
 * - **Supervise (L26)**: a failing task touches nobody; its failure reaches `onUnhandled` exactly once.
 * - **Nothing stays out (L24)**: closing the `Scope` cancels every task and waits, within the
 *   {@link CleanupBudget}.
 *
 * **When cancelled**
 *
 * A cancel of the scope that it was made in signals the tasks at once; closing the `Scope` waits for them.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { TaskScope } from "@curfew/scope"
 *
 * const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const tasks = yield* TaskScope.make({ name: "mailers" })
 *     const task = yield* tasks.spawn(Effect.succeed("sent"))
 *     return yield* task.join
 *   })
 * )
 * Effect.runSync(program) // => "sent"
 * ```
 *
 * @see use where a failure has to stop the siblings.
 * @stability unstable
 * @since 0.1.0
 */
export const make = (options?: {
  readonly name?: string | undefined
  /** Receives the failures of tasks. Default: the {@link OnUnhandled} where each task was spawned. */
  readonly onUnhandled?: ((unhandled: Unhandled) => Effect.Effect<unknown>) | undefined
}): Effect.Effect<TaskScope, never, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    const masked = startsApartUnsafe(fiber)
    return makeIn(() => forkCellUnsafe(fiber, "tasks", options?.name, masked), options)
  })

/**
 * Makes a supervising task scope under a given cell.
 *
 * @stability internal
 * @since 0.1.0
 */
export const makeIn = (
  makeCell: () => CancelCell,
  options?: Parameters<typeof make>[0] & {
    /** Told each task once it has started; it may have ended by then. */
    readonly onTask?: ((cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>) => void) | undefined
  }
): Effect.Effect<TaskScope, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(
        () =>
          new TaskScopeImpl(
            new TaskSet({
              name: options?.name,
              policy: "supervise",
              cell: makeCell(),
              onUnhandled: options?.onUnhandled,
              onTask: options?.onTask
            })
          )
      ),
      ({ set }) => {
        // Nothing lives in it, nor listens to it, and so nobody could tell one reason from another.
        if (set.size === 0 && set.cell.size === 0 && set.cell.listenerCount === 0) {
          set.cell.cancel(scopeEnded)
          set.cell.unlink()
          return Effect.void
        }
        return Effect.flatMap(currentReason, (reason) => {
          set.cell.cancel(Option.getOrElse(reason, () => scopeEnded))
          return Effect.flatMap(CleanupBudget, (budget) =>
            Effect.map(set.awaitEnded(budget), () => set.cell.unlink())
          )
        })
      }
    ),
    (scope): TaskScope => scope
  )

/**
 * A function that spawns from callbacks: it starts the work at once in the scope and gives the task, or `undefined`
 * when the scope takes no new work. The services come from where the function was made.
 *
 * **Guarantees**
 *
 * - **Owned**: what it starts is a task like any other; a cancel of the scope reaches it.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { TaskScope } from "@curfew/scope"
 *
 * const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const tasks = yield* TaskScope.make()
 *     const spawn = yield* TaskScope.makeRuntime(tasks)
 *     const task = spawn(Effect.succeed(42))
 *     return task === undefined ? 0 : yield* task.join
 *   })
 * )
 * Effect.runSync(program) // => 42
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const makeRuntime = <R = never>(
  scope: TaskScope
): Effect.Effect<
  <A, E>(
    work: Effect.Effect<A, E, R>,
    options?: {
      readonly name?: string | undefined
      readonly onNeverStarted?: Effect.Effect<unknown> | undefined
    }
  ) => Task<A, E> | undefined,
  never,
  R
> =>
  Effect.withFiberSucceed((fiber) => {
    const { context } = fiber
    return (work, options) => setOf(scope).spawnUnsafe(context as Context.Context<R>, work, options, false)
  })

/**
 * Starts owned work from a primitive's own mechanism; the caller's cell is kept as the way to ask outwards.
 *
 * @stability internal
 * @since 0.1.0
 */
export const spawnUnsafe = <A, E, R>(
  scope: TaskScope,
  context: Context.Context<R>,
  work: Effect.Effect<A, E, R>,
  options: Omit<SpawnOptions, "onNeverStarted"> & { readonly daemon?: boolean | undefined }
): (Task<A, E> & { readonly fiber: Fiber.Fiber<A, E>; readonly cell: CancelCell }) | undefined =>
  setOf(scope).spawnUnsafe(context, work, options, options.daemon === true)

/**
 * Hands running work over to a scope; false when the scope is closed. Whoever gives it away reports its failure.
 *
 * @stability internal
 * @since 0.1.0
 */
export const adoptUnsafe = (
  scope: TaskScope,
  cell: CancelCell,
  fiber: Fiber.Fiber<unknown, unknown>
): boolean => setOf(scope).adoptUnsafe(cell, fiber)

/**
 * Takes a place in a scope for what a callback begins and the next one mostly ends, without a fiber; `undefined` when
 * the scope takes nothing. It counts as a task until it is given back. Should it need a fiber after all, it is filled,
 * although the scope may be closed or cancelled by then; its `holder` is told when it is cancelled.
 *
 * @stability internal
 * @since 0.1.0
 */
export const reserveUnsafe = (scope: TaskScope, name: string | undefined): Place | undefined =>
  setOf(scope).reserveUnsafe(name)

/**
 * Has each place that was taken in a scope filled or given back, for whoever is about to look at its tasks one by one.
 *
 * @stability internal
 * @since 0.1.0
 */
export const fillPlacesUnsafe = (scope: TaskScope): void => setOf(scope).fillPlaces()

/**
 * Calls back once no task is left but daemons: now, or in the turn in which the last one ends. Gives the removal.
 *
 * @stability internal
 * @since 0.1.0
 */
export const whenIdleUnsafe = (scope: TaskScope, call: () => void): (() => void) =>
  setOf(scope).whenIdle(call)

/**
 * Gives a task up as stuck before its scope ends: one record, and nobody waits for it any more. `startedAt` is the wall
 * clock, milliseconds since 1970, at which its clean-up began.
 *
 * @stability internal
 * @since 0.1.0
 */
export const leaveBehindUnsafe = (
  scope: TaskScope,
  task: Task<unknown, unknown>,
  startedAt: number
): void => {
  setOf(scope).leaveBehind(task, startedAt)
}

export type { Place } from "./internal/place.ts"
export type { Known } from "./internal/taskState.ts"
export type { Task, TaskStatus } from "./Task.ts"
export { ForeignTaskScope, InterruptedElsewhere, NeverReady, TaskCancelled, TaskScopeClosed } from "./Task.ts"
