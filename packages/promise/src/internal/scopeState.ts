/**
 * A cancel scope as a value: the keeper, a fiber that stands in a `CancelScope.run` around an `Effect.scoped` around a
 * `TaskScope.use`, and waits there until somebody disposes the value and the tasks have ended.
 *
 * Invariants
 * 1. The keeper is a task of the scope above or of the owner: whoever surrounds the scope waits for it, disposed or not.
 * 2. The scope is open, with tasks and finalizers at hand, when the constructor returns, or it is over. Only one that is
 *    made dozens of synchronous starts of fibers deep opens in a later turn; until then it refuses, and says so.
 * 3. What the body of the `use` hears is what the scope hears: its own cancel, one from above, its deadline, the failure of
 *    a task. The scope's signal and its reason are read off that body's cell.
 * 4. The outcome is told once, when the keeper has ended. Nobody need be there: a promise of it is made only when somebody
 *    asks.
 */

import * as Guard from "@curfew/guard"
import { CancelReason, toCause } from "@curfew/reason"
import { type CancelCell, CurrentCell, keepUnsafe } from "@curfew/reason/CancelCell"
import { CancelScope as Run, reportUnhandled, TaskScopeClosed } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import * as Child from "@curfew/scope/Child"
import * as Instant from "@curfew/scope/Instant"
import { takePosition } from "@curfew/scope/Stuck"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Cancelled } from "../Cancelled.ts"
import type { CancelGuard, CancelScope, CancelScopeOptions } from "../cancelScope.ts"
import { checkpoint } from "../checkpoint.ts"
import type { Work } from "../Options.ts"
import type { Task } from "../Task.ts"
import { Pledge, quiet, rejected, toPromise } from "./bridge.ts"
import { durationOf } from "./durations.ts"
import { reasonOf, servicesOf, startOf } from "./launch.ts"
import { lightly, spawnLightly } from "./light.ts"
import { always, CurrentTasks, InDaemon, Place, placeOf, remember, startUnsafe } from "./place.ts"
import { runNow } from "./runNow.ts"
import { checkWork, keepRuns, settle, settleRunning } from "./settle.ts"
import { named, type Spawn, spawn } from "./tasks.ts"

const requested: CancelReason = /* @__PURE__ */ CancelReason.Requested({ message: "cancel was called" })

interface Open extends Spawn {
  readonly finalizers: Scope.Scope
  /** Of the body of the `use`. */
  readonly cell: CancelCell
}

let keeps = false

export const openScope = (options: CancelScopeOptions | undefined): ScopeState => {
  if (!keeps) {
    keeps = true
    keepRuns()
    keepUnsafe(new ScopeState(undefined))
  }
  return new ScopeState(options?.name).open(options)
}

export class ScopeState implements CancelScope {
  readonly name: string | undefined
  #keeper: Fiber.Fiber<void, unknown> | undefined = undefined
  /** Of the keeper: what `cancel` cancels. */
  #cell: CancelCell | undefined = undefined
  #open: Open | undefined = undefined
  #over = false
  #reason: CancelReason | undefined = undefined
  #failure: Cause.Cause<unknown> | undefined = undefined
  /** What clean-ups threw. */
  readonly #broken: Array<Cause.Cause<unknown>> = []
  #controller: AbortController | undefined = undefined
  #disposing = false
  #dispose: (() => void) | undefined = undefined
  #ended: Promise<void> | undefined = undefined

  constructor(name: string | undefined) {
    this.name = name
  }

  /** Starts what keeps it. To be called once, at once. */
  open(options: CancelScopeOptions | undefined): this {
    const deadline = Duration.toMillis(durationOf("deadline", options?.deadline ?? Duration.infinity))
    const { parent } = options ?? {}
    if (parent?.cancelled === false && placeOf(parent.signal)?.cell?.ended === true) {
      throw new TaskScopeClosed({ scope: parent.name })
    }
    const { name, owner } = startOf(options)
    const signal = options?.signal ?? parent?.signal
    const adapt = options === undefined ? undefined : servicesOf(options)
    const start = { signal, owner, name, kind: "scope", adapt } as const
    const started = startUnsafe(this.#keep(deadline), start)
    if (started._tag === "Refused") {
      this.#over = true
      this.#reason = started.reason
    } else {
      this.#keeper = started.fiber
      this.#cell = started.cell
    }
    return this
  }

  #keep(deadline: number): Effect.Effect<void> {
    const tasks = TaskScope.use((tasks: TaskScope.TaskScope<unknown>) =>
      Effect.withFiber<void, never, Scope.Scope>((fiber) => {
        this.#entered(tasks, fiber as Fiber.Fiber<unknown, unknown>)
        return this.#stay(tasks, fiber as Fiber.Fiber<unknown, unknown>)
      })
    )
    // Without a deadline the keeper is the scope: what cancels it ends in the same exit.
    const run: Effect.Effect<Run.Outcome<void> | undefined, unknown> =
      deadline === Number.POSITIVE_INFINITY
        ? Effect.as(Effect.scoped(tasks), undefined)
        : Effect.flatMap(Instant.after(Duration.millis(deadline)), (at) =>
            Run.run(() => Effect.scoped(tasks), { name: this.name, deadline: at })
          )
    // The keeper itself does not fail: it would fail the scope above, and its failure is for who disposes it.
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.exit(restore(run)), (exit) => this.#leave(exit))
    )
  }

  /** Until it was disposed and no task is left but daemons: one wait for both. */
  #stay(tasks: TaskScope.TaskScope, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> {
    return Effect.callback((resume) => {
      let forget: (() => void) | undefined
      const end = () => {
        forget = TaskScope.whenIdleUnsafe(tasks, () => Child.resumeWith(fiber, resume, Effect.void))
      }
      if (this.#disposing) end()
      else this.#dispose = end
      return Effect.sync(() => {
        this.#dispose = undefined
        forget?.()
      })
    })
  }

  #entered(tasks: TaskScope.TaskScope, fiber: Fiber.Fiber<unknown, unknown>): void {
    const inside = fiber.context as Context.Context<Scope.Scope>
    const own = Context.add(inside, CurrentTasks, tasks) as Context.Context<never>
    const context = Context.get(own, InDaemon) ? Context.add(own, InDaemon, false) : own
    const cell = fiber.getRef(CurrentCell) as CancelCell
    this.#open = { tasks, context, cell, finalizers: Context.get(inside, Scope.Scope) }
    if (this.#controller !== undefined) this.#connect(this.#controller)
  }

  #leave(exit: Exit.Exit<Run.Outcome<void> | undefined, unknown>): Effect.Effect<void> {
    const reason = this.reason
    this.#over = true
    this.#reason =
      exit._tag === "Success" && exit.value?._tag === "Cancelled" ? (reason ?? exit.value.reason) : reason
    const failed = exit._tag === "Failure" && !Cause.hasInterruptsOnly(exit.cause)
    this.#failure = failed ? exit.cause : this.#broken[0]
    if (this.#broken.length === 0) return Effect.void
    const broken = failed ? this.#broken : this.#broken.slice(1)
    return Effect.forEach(broken, (cause) => reportUnhandled("cleanup", this.name, cause, reason), {
      discard: true
    })
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      this.#connect(this.#controller)
    }
    return this.#controller.signal
  }

  #connect(controller: AbortController): void {
    const { reason } = this
    const open = this.#open
    if (open !== undefined) {
      const { cell, context } = open
      remember(controller.signal, new Place(context, cell, false))
    }
    if (reason !== undefined) controller.abort(new Cancelled(reason))
    else open?.cell.listen((heard) => controller.abort(new Cancelled(heard)))
  }

  get cancelled(): boolean {
    return this.reason !== undefined
  }

  get reason(): CancelReason | undefined {
    return this.#over ? this.#reason : (this.#open?.cell.reason ?? this.#cell?.reason)
  }

  // Functions of their own, so that they can be handed on; made when somebody asks.
  get cancel(): CancelScope["cancel"] {
    return (reason) =>
      !this.#over && this.reason === undefined && this.#cell?.cancel(reasonOf(reason, requested)) === true
  }

  #inside(): Open {
    if (this.reason !== undefined) throw new Cancelled(this.reason)
    if (this.#over) throw new TaskScopeClosed({ scope: this.name })
    if (this.#open !== undefined) return this.#open
    throw new Error(
      "The scope was made deep inside other starts and opens in the next turn; await a promise first."
    )
  }

  get run(): CancelScope["run"] {
    return (work, options) => this.#run(work, options?.name)
  }

  #run<A>(work: Work<A>, given: string | undefined): Promise<A> {
    try {
      const { context, tasks } = this.#inside()
      const name = given ?? (work.name || undefined)
      checkWork(work)
      const light = lightly({ tasks, context, work, settling: { name }, name })
      if (light !== undefined) return light
      const task = TaskScope.spawnUnsafe(tasks, context, settle(work, { name }), { name, observed: always })
      return task === undefined ? rejected(new TaskScopeClosed({ scope: this.name })) : toPromise(task.fiber)
    } catch (error) {
      return rejected(error)
    }
  }

  get spawn(): CancelScope["spawn"] {
    return <A>(first: string | Work<A>, second?: Work<A>): Task<A> =>
      spawn(this.#inside(), ...named(first, second))
  }

  get daemon(): CancelScope["daemon"] {
    return <A>(first: string | Work<A>, second?: Work<A>): Task<A> =>
      spawn(this.#inside(), ...named(first, second), true)
  }

  get defer(): CancelScope["defer"] {
    const defer: CancelScope["defer"] = (cleanup, options) => this.#defer(cleanup, options?.name, defer)
    return defer
  }

  #defer(cleanup: () => unknown, given: string | undefined, called: CancelScope["defer"]): void {
    const { context, finalizers } = this.#inside()
    const name = given ?? (cleanup.name || "defer")
    const limited = boundedAt(settle(cleanup, { name }), { name, source: takePosition(called) })
    const bound = Effect.catchCause(Effect.asVoid(limited), (cause) =>
      Effect.sync(() => {
        this.#broken.push(cause)
      })
    )
    runNow(context, Scope.addFinalizer(finalizers, Effect.provideContext(bound, context)))
  }

  get onCancel(): CancelScope["onCancel"] {
    return (cleanup) => this.#onCancel(cleanup)
  }

  #onCancel(cleanup: (reason: CancelReason) => unknown): CancelGuard {
    const { context, finalizers } = this.#inside()
    const guard = Guard.guard((reason) => Effect.orDie(settle(() => cleanup(reason), { name: cleanup.name })))
    const { disarm } = runNow(context, Effect.provideService(guard, Scope.Scope, finalizers))
    return { disarm: () => runNow(context, disarm) }
  }

  get checkpoint(): CancelScope["checkpoint"] {
    return () => checkpoint(this.signal)
  }

  /** Promises what is there when everything has ended; the first failure is the exit. */
  #atEnd<A>(value: () => Exit.Exit<A, unknown>): Promise<A> {
    this.#disposing = true
    const dispose = this.#dispose
    this.#dispose = undefined
    dispose?.()
    const pledge = new Pledge<A>()
    const end = () => pledge.settle(this.#failure === undefined ? value() : Exit.failCause(this.#failure))
    if (this.#keeper === undefined) end()
    else this.#keeper.addObserver(end)
    return pledge.promise
  }

  /** Runs a body as one of the tasks, and gives its value when the scope has ended. */
  around<A>(body: (scope: CancelScope) => A | PromiseLike<A>): Promise<A> {
    const name = body.name || this.name
    checkWork(body)
    const { context, tasks } = this.#inside()
    const light = spawnLightly({ tasks, context, name }, () => body(this))
    if (light === undefined)
      return this.#around(
        settle(() => body(this), { name, failsLate: true }),
        name
      )
    // Its failure is the scope's, whose end tells it.
    quiet(light.promise)
    return this.#valueOf(() => light.exit)
  }

  /** The same for a body that runs already. */
  aroundRunning<A>(body: PromiseLike<A>): Promise<A> {
    const { name } = this
    return this.#around(settleRunning(body, { name, failsLate: true }), name)
  }

  #around<A>(work: Effect.Effect<A, unknown>, name: string | undefined): Promise<A> {
    const { context, tasks } = this.#inside()
    const task = TaskScope.spawnUnsafe(tasks, context, work, { name })
    if (task === undefined) throw new TaskScopeClosed({ scope: this.name })
    return this.#valueOf(() => task.fiber.pollUnsafe())
  }

  #valueOf<A>(exit: () => Exit.Exit<A, unknown> | undefined): Promise<A> {
    // A body that overran its clean-up budget was left behind, and has no exit.
    return this.#atEnd(() => exit() ?? Exit.failCause(toCause(this.reason ?? requested)))
  }

  [Symbol.asyncDispose](): Promise<void> {
    // The same outcome for everyone who asks.
    this.#ended ??= this.#atEnd(() => Exit.void)
    return this.#ended
  }
}
