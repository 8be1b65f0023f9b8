/**
 * One generation of shared work: at most one run, and those who observe it.
 *
 * Invariants
 * 1. A generation goes `waiting`, `running`, `cleaningUp`, `over`; it skips what does not happen, and a clean-up that
 *    overruns its budget is `stuck` before it is `over`. It starts at most once.
 * 2. An observer is in the set from the operation in which it came until it is delivered to or leaves, whichever is
 *    first; both take it out in O(1), and only the one that did acts on it.
 * 3. All observers are delivered the same exit. It is never an interrupt: that becomes `SharedCancelled`.
 * 4. When the source is cancelled the observers are told in the turn of the cancel; they do not wait for the clean-up.
 *    A run whose own exit is known by then is delivered instead.
 * 5. A failure of which no observer can be told is reported once, by the run's own fiber.
 * 6. A run is a task of the owner. When the owner takes none, it is attached to one of its observers, the host, who does
 *    not go on before the run is over or stuck.
 * 7. Neither timer outlives the run: the linger is disarmed by a new observer and by the end, the watch by the end.
 * 8. User code is called from the run's fiber only, and a throw of it is a defect of the run.
 * 9. Its scope is made when its work reads its context; what was never read has none to close.
 */
import { CancelReason, fromCause } from "@curfew/reason"
import { CancelCell, rootsUnsafe } from "@curfew/reason/CancelCell"
import { failureOf, ownerClosedTotal, reportUnhandled } from "@curfew/scope"
import { millisUnsafe } from "@curfew/scope/Argument"
import * as Child from "@curfew/scope/Child"
import { enterUnsafe } from "@curfew/scope/Stuck"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import { SharedCancelled } from "../SharedCancelled.ts"
import { SharedStuck } from "../SharedStuck.ts"
import { type Observer, Observers } from "./observers.ts"
import type { Settings } from "./settings.ts"
import { enterRun, type Run } from "./waits.ts"

export type Phase = "waiting" | "running" | "cleaningUp" | "stuck" | "over"

/** Where a generation stands: the slot of its key. */
export interface Place<K, A, E> {
  readonly key: K
  readonly name: string
  /** What a run does, in a context that has a `Scope`. */
  readonly work: Effect.Effect<A, E>
  /** Nobody shall join this generation any more. */
  readonly forget: (generation: object) => void
  /** The run has ended with this exit, to be held for so many milliseconds. */
  readonly settle: (generation: object, exit: Exit.Exit<A, E | SharedCancelled>, millis: number) => void
  /** The generation is no longer in the way of another. */
  readonly release: (generation: object) => void
  /** The runs that a generation which waits for its turn waits for. */
  readonly ahead: Iterable<Run>
}

export class Generation<K, A, E> extends Observers<A, E> implements Run, TaskScope.Known {
  phase: Phase = "waiting"
  readonly #settings: Settings<K, A, E>
  readonly #place: Place<K, A, E>
  /** What fibers inside the run wait for, and how many of them. */
  #awaits: Map<Run, number> | undefined = undefined
  #cell: CancelCell | undefined = undefined
  #task: TaskScope.Task<A, E> | undefined = undefined
  #span: Tracer.AnySpan | undefined = undefined
  #scope: Scope.Closeable | undefined = undefined
  /** The run's own exit, from the end of its scope on; its fiber may still wait for children. */
  #exit: Exit.Exit<A, E | SharedCancelled> | undefined = undefined
  #retainFor = 0
  #host: Observer<A, E> | undefined = undefined
  #whenOver: (() => void) | undefined = undefined
  #disarmLinger: (() => void) | undefined = undefined
  /** The cancel came from here: nobody but the watch enters an overrun into the registry. */
  #ours = false
  #watch: Fiber.Fiber<unknown> | undefined = undefined
  #leaveStuck: (() => void) | undefined = undefined

  constructor(settings: Settings<K, A, E>, place: Place<K, A, E>) {
    super()
    this.#settings = settings
    this.#place = place
  }

  get name(): string {
    return this.#place.name
  }

  get needs(): Iterable<Run> {
    return this.#is("waiting") ? this.#place.ahead : (this.#awaits?.keys() ?? [])
  }

  awaits(run: Run): void {
    this.#awaits ??= new Map()
    this.#awaits.set(run, (this.#awaits.get(run) ?? 0) + 1)
  }

  awaitsNoMore(run: Run): void {
    const count = this.#awaits?.get(run) ?? 0
    if (count > 1) this.#awaits?.set(run, count - 1)
    else this.#awaits?.delete(run)
  }

  // The phase changes in calls; a comparison with the field itself would be narrowed across them.
  #is(phase: Phase): boolean {
    return this.phase === phase
  }

  add(observer: Observer<A, E>): void {
    this.#disarm()
    this.enter(observer)
    for (const run of observer.inside) run.awaits(this)
    if (this.#span !== undefined && observer.fiber !== undefined) link(this.#span, observer.fiber)
  }

  /** The run is attached to the observer, which leaves only when that is over. */
  hostedBy(observer: Observer<A, E>): boolean {
    return observer === this.#host
  }

  /** An observer was interrupted: it goes at once, unless the run is attached to it. */
  leave(observer: Observer<A, E>): Effect.Effect<void> {
    this.leaveNow(observer)
    return observer === this.#host ? this.#awaitOver(observer.host) : Effect.void
  }

  /** The same for one that is not the host. */
  leaveNow(observer: Observer<A, E>): void {
    if (this.#remove(observer) && this.observers === 0) this.#unobserved(observer.fiber)
  }

  #remove(observer: Observer<A, E>): boolean {
    if (!this.drop(observer)) return false
    for (const run of observer.inside) run.awaitsNoMore(this)
    return true
  }

  #unobserved(last: Fiber.Fiber<unknown, unknown> | undefined): void {
    const { clock, context, linger } = this.#settings
    if ((!this.#is("waiting") && !this.#is("running")) || this.#exit !== undefined) return
    if (linger === Number.POSITIVE_INFINITY) return
    const cancel = () => {
      if (this.observers === 0) this.cancel(CancelReason.Unobserved({ lingered: Duration.millis(linger) }))
    }
    // Through the dispatcher when the stack is deep: the last observer may have been a run that lost its own last one.
    if (linger <= 0) {
      if (last === undefined) cancel()
      else Child.resumeWith(last, cancel, Effect.void)
    } else
      this.#disarmLinger = Child.armUnsafe(context, clock, linger, () => {
        this.#disarmLinger = undefined
        cancel()
      })
  }

  #disarm(): void {
    const disarm = this.#disarmLinger
    this.#disarmLinger = undefined
    disarm?.()
  }

  start(): void {
    const { context, counts, owner } = this.#settings
    this.phase = "running"
    const work = this.#work
    const task = TaskScope.spawnUnsafe(owner, context, work, this)
    const fiber = task === undefined ? this.#attach(work) : task.fiber
    if (fiber === undefined) {
      this.#drop(CancelReason.Shutdown({ phase: "drain" }))
      return
    }
    this.#task = task
    counts.started++
    const exit = fiber.pollUnsafe()
    if (exit === undefined) fiber.addObserver((exit) => this.#ended(exit))
    else this.#ended(exit)
  }

  /** The owner is closed: the run belongs to one of its observers, if there is any. */
  #attach(work: Effect.Effect<A, E>): Fiber.Fiber<A, E> | undefined {
    const host = this.first
    if (host === undefined) return undefined
    this.#host = host
    ownerClosedTotal.updateUnsafe(1, host.host.context)
    const cell = new CancelCell("shared", { name: this.name })
    this.shown(cell)
    const body = { settle: (exit: Exit.Exit<A, E>) => this.ended(exit) }
    return Child.forkUnsafe(this.furnish(this.#settings.context), cell, work, body)
  }

  get #work(): Effect.Effect<A, E> {
    const work = this.#place.work
    if (!this.#settings.linked) return work
    const entered = Effect.withFiber<A, E>((fiber) => {
      const { span } = fiber.cache
      this.#span = span
      if (span !== undefined)
        for (let one = this.first; one !== undefined; one = one.next)
          if (one.fiber !== undefined) link(span, one.fiber)
      // Its span ends when its scope has closed.
      return Effect.onExitPrimitive(work, (exit) => this.#conclude(exit))
    })
    return Effect.withSpan(entered, this.name, { root: true })
  }

  // What a task is known by.

  get kind(): "shared" {
    return "shared"
  }

  /** The observers are told a failure, or the run reports it itself: the owner does not, and no sibling is cancelled. */
  observed(): boolean {
    return true
  }

  /** The work has read its context: from here on it has a `Scope`. */
  furnish(given: Context.Context<never>): Context.Context<never> {
    this.#scope = Scope.makeUnsafe()
    return Context.add(given, Scope.Scope, this.#scope) as Context.Context<never>
  }

  ended(exit: Exit.Exit<A, E>): Effect.Effect<void> | undefined {
    return this.#settings.linked ? undefined : this.#conclude(exit)
  }

  /** Somebody has looked at the run, or it waits: from here on it hears of its cancel. */
  shown(cell: CancelCell): void {
    this.#cell = cell
    if (this.#is("over") || cell.ended) return
    enterRun(cell, this)
    cell.listen((reason) => this.#cancelled(reason))
  }

  #conclude(exit: Exit.Exit<A, E>): Effect.Effect<void> | undefined {
    const scope = this.#scope
    return scope === undefined || scope.state._tag === "Empty"
      ? this.#seal(exit, this.name)
      : this.#close(scope, exit, this.name)
  }

  /** What its finalizers fail with belongs to the exit of the work. */
  #close(scope: Scope.Closeable, exit: Exit.Exit<A, E>, name: string): Effect.Effect<void> {
    const closed = Effect.onExitPrimitive(exit, () => Scope.closeUnsafe(scope, exit))
    return Effect.flatMap(Effect.exit(closed), (whole) => {
      const sealed = this.#seal(whole, name) ?? Effect.void
      // Failures of the work itself are in the fiber's exit already.
      return whole._tag === "Failure" && exit._tag === "Success"
        ? Effect.andThen(sealed, Effect.failCause(whole.cause) as Effect.Effect<never>)
        : sealed
    })
  }

  /** The work and its scope have ended: decide the exit, and report what nobody will be told. */
  #seal(exit: Exit.Exit<A, E>, name: string): Effect.Effect<void> | undefined {
    const failure = Exit.isFailure(exit) ? failureOf(exit.cause) : undefined
    if (!this.#is("running"))
      return failure && reportUnhandled("abandoned work", name, failure, this.#cell?.reason)
    const { retain } = this.#settings
    let broken: Effect.Effect<void> | undefined
    this.#exit = Exit.isSuccess(exit) ? exit : this.#failed(exit.cause, failure)
    if (retain !== undefined && (failure !== undefined || Exit.isSuccess(exit))) {
      try {
        this.#retainFor = millisUnsafe("what retain gives", retain(exit, this.#place.key))
      } catch (error) {
        // A value that could not be held has somebody to tell; a failure is told itself, and this beside it.
        if (failure === undefined) this.#exit = Exit.die(error)
        else broken = reportUnhandled("cleanup", name, Cause.die(error))
      }
    }
    const untold =
      this.observers === 0 && Exit.isFailure(this.#exit)
        ? reportUnhandled("abandoned work", name, this.#exit.cause)
        : undefined
    return broken === undefined || untold === undefined ? (broken ?? untold) : Effect.andThen(broken, untold)
  }

  #failed(cause: Cause.Cause<E>, failure: Cause.Cause<E> | undefined): Exit.Exit<A, E | SharedCancelled> {
    if (failure !== undefined) return Exit.failCause(failure)
    const reason = Option.getOrElse(fromCause(cause), CancelReason.Unknown)
    return Exit.fail(new SharedCancelled({ name: this.#place.name, reason }))
  }

  /** Cancels the run, or takes back a start that has not happened. True iff that was the first cancel. */
  cancel(reason: CancelReason): boolean {
    if (this.#is("waiting")) {
      this.#drop(reason)
      return true
    }
    if (!this.#is("running")) return false
    this.#ours = true
    // In its first run it may have no cell yet.
    if (this.#cell === undefined) rootsUnsafe()
    const first =
      this.#cell === undefined ? this.#task?.cancelUnsafe(reason) === true : this.#cell.cancel(reason)
    if (this.#is("cleaningUp")) this.#startWatch()
    return first
  }

  #drop(reason: CancelReason): void {
    this.phase = "over"
    this.#disarm()
    this.#place.forget(this)
    this.#deliver(Exit.fail(new SharedCancelled({ name: this.#place.name, reason })))
    this.#place.release(this)
  }

  /** Heard from the cell, whoever cancelled: interrupts are pending, and no finalizer has run. */
  #cancelled(reason: CancelReason): void {
    if (!this.#is("running")) return
    this.phase = "cleaningUp"
    this.#disarm()
    this.#place.forget(this)
    this.#deliver(this.#exit ?? Exit.fail(new SharedCancelled({ name: this.#place.name, reason })))
  }

  #ended(exit: Exit.Exit<A, E>): void {
    const { counts } = this.#settings
    const { phase } = this
    this.phase = "over"
    this.#disarm()
    this.#watch?.interruptUnsafe()
    if (phase === "stuck") {
      counts.stuck--
      this.#leaveStuck?.()
      return
    }
    this.#whenOver?.()
    if (phase === "running") {
      // Without an exit the run was cancelled before its first operation.
      const outcome = this.#exit ?? this.#failed(Exit.isFailure(exit) ? exit.cause : Cause.empty, undefined)
      this.#place.settle(this, outcome, this.#retainFor)
      this.#deliver(outcome)
    }
    this.#place.release(this)
  }

  #deliver(exit: Exit.Exit<A, E | SharedCancelled>): void {
    for (let observer = this.first; observer !== undefined; observer = this.first) {
      this.#remove(observer)
      if (observer === this.#host && !this.#is("over")) this.#whenOver = () => observer.tell(exit)
      else observer.tell(exit)
    }
  }

  /** Waits until the run is over or stuck; for the host. */
  #awaitOver(host: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.#is("over") || this.#is("stuck")) resume(Effect.void)
      else this.#whenOver = () => Child.resumeWith(host, resume, Effect.void)
    })
  }

  /** Another generation waits for this one. A clean-up that the owner ordered is watched from here on. */
  awaited(): void {
    if (this.#is("cleaningUp")) this.#startWatch()
  }

  #startWatch(): void {
    const { budget, clock, context } = this.#settings
    if (this.#watch !== undefined || Duration.toMillis(budget) === Number.POSITIVE_INFINITY) return
    const startedAt = clock.currentTimeMillisUnsafe()
    this.#watch = Child.startUnsafe(
      context,
      Effect.andThen(
        clock.sleep(budget),
        Effect.suspend(() => this.#overran(startedAt))
      )
    )
  }

  #overran(startedAt: number): Effect.Effect<void> {
    const { context, counts, owner } = this.#settings
    const { name } = this.#place
    const reason = this.#cell?.reason
    this.phase = "stuck"
    counts.stuck++
    if (this.#ours) this.#leaveBehind(startedAt)
    this.#whenOver?.()
    this.#place.release(this)
    if (!this.#ours) return Effect.void
    const report = reportUnhandled("cleanup", name, Cause.die(new SharedStuck({ name, reason })), reason)
    const task = TaskScope.spawnUnsafe(owner, context, report, { name })
    return task === undefined ? report : Effect.void
  }

  #leaveBehind(startedAt: number): void {
    if (this.#task !== undefined) {
      TaskScope.leaveBehindUnsafe(this.#settings.owner, this.#task, startedAt)
      return
    }
    const reason = this.#cell?.reason
    const span = this.#span?._tag === "Span" ? this.#span.name : undefined
    this.#cell?.abandon()
    this.#leaveStuck = enterUnsafe(
      { kind: "task", name: this.#place.name, reason, span, startedAt, source: undefined },
      this.#settings.context
    )
  }
}

const link = (run: Tracer.AnySpan, observer: Fiber.Fiber<unknown, unknown>): void => {
  const { span } = observer.cache
  if (span === undefined) return
  if (run._tag === "Span") run.addLinks([{ span, attributes: { link: "observer" } }])
  if (span._tag === "Span") span.addLinks([{ span: run, attributes: { link: "shared" } }])
}
