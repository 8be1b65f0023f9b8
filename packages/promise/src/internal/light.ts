/**
 * Work as most of it is: it starts under an owner, and ends before anybody asks for it. It has no fiber.
 *
 * Invariants
 * 1. It has its place in the task scope and its cell in the live tree from its start to its end.
 * 2. Whatever else happens makes a fiber of it first, once, which answers for the work that runs already, and it is that
 *    fiber's from then on: a cancel, by whatever road; the signal that its work was given, when something starts with it; a
 *    shutdown, which looks at each task. A cancel finds the fiber waiting, as if it had been there from the start.
 * 3. That takes a scheduler which lets a fiber run up to where it waits; under any other nothing is light.
 * 4. What fails is told whoever awaits the promise, and nobody else.
 */
import type { CancelReason } from "@curfew/reason"
import { type CancelCell, CurrentCell, cancelAloneUnsafe, keepUnsafe } from "@curfew/reason/CancelCell"
import type { Owner } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as Instant from "@curfew/scope/Instant"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import { Cancelled } from "../Cancelled.ts"
import { begin, Pledge } from "./bridge.ts"
import { exitOf } from "./errors.ts"
import { forwardAbort, Place } from "./place.ts"
import { type Host, keepRuns, Run, type SettleOptions } from "./settle.ts"

/** The scheduler of programs that were given none. */
const processScheduler: Scheduler.Scheduler = /* @__PURE__ */ Context.get(
  /* @__PURE__ */ Context.empty() as Context.Context<never>,
  Scheduler.Scheduler
)

/** Work of whatever result. */
export type AnyRun = Pick<Run<unknown>, "entered" | "leave">

/** What starts without a fiber, and where. */
export interface Start {
  readonly tasks: TaskScope.TaskScope
  readonly context: Context.Context<never>
  /** Stands in the live tree. */
  readonly name: string | undefined
  /** What it is cancelled by besides its scope; it has not been aborted, and has no place. */
  readonly signal?: AbortSignal | undefined
}

/** A place for work without a fiber; `undefined` where it takes one. */
export const seatOf = ({ context, name, tasks }: Start): TaskScope.Place | undefined =>
  Context.get(context, Scheduler.Scheduler) === processScheduler
    ? TaskScope.reserveUnsafe(tasks, name)
    : undefined

let keeps = false

/** Before the first is made. */
const keepLight = (): void => {
  if (keeps) return
  keeps = true
  keepRuns()
  const context = Context.empty()
  const light = { context, tasks: undefined as never, name: undefined, work: () => {}, settling: undefined }
  keepUnsafe(new Running(light))
  keepUnsafe(new Spawned(light, light.work))
}

/** Work that stands in a place, and is a fiber once somebody asks. Made first, then seated. */
export abstract class Seated<A> implements Host {
  readonly context: Context.Context<never>
  readonly #pledge = new Pledge<A>()
  #cell: CancelCell | undefined = undefined
  #seat: TaskScope.Place | undefined = undefined
  #forget: (() => void) | undefined = undefined
  #over = false
  #filled = false
  #exit: Exit.Exit<A, unknown> | undefined = undefined
  #fiber: Fiber.Fiber<A, unknown> | undefined = undefined

  constructor({ context }: Start) {
    this.context = context
  }

  /** Takes its place. */
  protected sit(
    seat: TaskScope.Place,
    signal: AbortSignal | undefined,
    cancel?: (reason: CancelReason) => unknown
  ): CancelCell {
    this.#seat = seat
    seat.holder = this
    const cell = seat.show()
    this.#cell = cell
    cell.wake = () => this.fill()
    this.#forget = signal && forwardAbort(signal, cell, cancel)
    return cell
  }

  protected get cell(): CancelCell {
    return this.#cell as CancelCell
  }

  /** Told how work of it has ended that no fiber answers for. */
  abstract over(run: AnyRun, result: PromiseSettledResult<unknown>): void

  /** What the fiber does: it answers for all that runs, and ends like that. Called once. */
  protected abstract work(): Effect.Effect<A, unknown, Owner>

  /** What runs, and may not be answered for yet. */
  protected abstract readonly runs: ReadonlyArray<AnyRun>

  get promise(): Promise<A> {
    return this.#pledge.promise
  }

  /** It has ended without a fiber. */
  protected end(exit: Exit.Exit<A, unknown>): void {
    if (this.#over) return
    this.#close()
    // Who waits for the scope's end looks for it.
    this.#exit = exit
    this.#seat?.leave()
    this.#pledge.settle(exit)
  }

  /** It is cancelled, has no fiber, and nothing of it is left to end. */
  protected leave(reason: CancelReason): void {
    this.#close()
    cancelAloneUnsafe(this.cell, reason, this.context)
    this.#seat?.leave()
    this.#pledge.refuse(new Cancelled(reason))
  }

  /** Whoever awaits the promise is told that he was cancelled; what there is goes on. */
  protected refuse(reason: CancelReason): void {
    this.#forget?.()
    this.#pledge.refuse(new Cancelled(reason))
  }

  protected get filled(): boolean {
    return this.#filled
  }

  /** How it has ended. */
  get exit(): Exit.Exit<A, unknown> | undefined {
    return this.#exit ?? this.#fiber?.pollUnsafe()
  }

  /** Its failure is that of whoever awaits the promise. */
  protected start(
    seat: TaskScope.Place,
    context: Context.Context<Owner>,
    work: Effect.Effect<A, unknown, Owner>
  ): Fiber.Fiber<A, unknown> {
    return seat.startNow(context, work)
  }

  #close(): void {
    this.#over = true
    this.cell.wake = undefined
    this.#forget?.()
  }

  /** Makes the fiber. */
  fill(): void {
    if (this.#over || this.#filled) return
    this.#filled = true
    this.cell.wake = undefined
    // Deep inside other starts what the fiber forks comes a turn later, and a cancel may come before.
    const answered = Effect.onExitPrimitive(this.work(), () => {
      const left = this.runs.filter((run) => !run.entered)
      return left.length === 0 ? undefined : leaveAll(left)
    })
    this.#fiber = this.start(this.#seat as TaskScope.Place, this.context as Context.Context<Owner>, answered)
    this.#fiber.addObserver((exit) => {
      this.#close()
      this.#pledge.settle(exit)
    })
  }

  /** Nothing: the cancel has made the fiber before. */
  stop(): void {}

  get place(): Place {
    this.fill()
    // After its end, and for what its fiber does not answer for, it is where it stood.
    return new Place(Context.add(this.context, CurrentCell, this.cell), this.cell, false)
  }
}

const leaveAll = (runs: ReadonlyArray<AnyRun>): Effect.Effect<void> =>
  Effect.forEach(runs, (run) => run.leave, { concurrency: "unbounded", discard: true }) as Effect.Effect<void>

/** Lets the fiber that runs this answer for the work. */
export const enter = <A>(run: Run<A>): Effect.Effect<A, unknown> =>
  Effect.withFiber((fiber) => run.enter(fiber))

export interface Light<A> extends Start {
  readonly work: (signal: AbortSignal) => A | PromiseLike<A>
  readonly settling: SettleOptions<A> | undefined
  /**
   * What is done with the work, with so many milliseconds left of its limit. Where nothing is cancelled, and the limit does
   * not pass, it ends as the work does.
   */
  readonly around?: Around<A> | undefined
  /** Milliseconds after which `around` must have been asked. Default: never. */
  readonly limit?: number | undefined
}

export type Around<A> = (settled: Effect.Effect<A, unknown>, left: number) => Effect.Effect<A, unknown, Owner>

// The fiber is made before the limit has passed, and waits for the rest of it: a limit that has passed starts nothing.
const ahead = 1

/** Starts the work in a place of the task scope; `undefined` where it takes a fiber. */
export const lightly = <A>(light: Light<A>): Promise<A> | undefined => {
  if (light.limit !== undefined && light.limit <= ahead) return undefined
  const seat = seatOf(light)
  if (seat === undefined) return undefined
  keepLight()
  return new Running(light).begin(seat, light)
}

class Running<A> extends Seated<A> {
  readonly #run: Run<A>
  readonly #around: Around<A> | undefined
  /** Monotonic milliseconds at which its limit passes. */
  #until = Number.POSITIVE_INFINITY
  #disarm: (() => void) | undefined = undefined

  constructor(light: Light<A>) {
    super(light)
    this.#around = light.around
    this.#run = new Run(light.work, light.settling, this)
  }

  begin(seat: TaskScope.Place, { limit, signal }: Light<A>): Promise<A> {
    this.sit(seat, signal)
    if (limit !== undefined && limit !== Number.POSITIVE_INFINITY) this.#limitTo(limit)
    begin(this.#run)
    return this.promise
  }

  over(_run: AnyRun, result: PromiseSettledResult<unknown>): void {
    this.#disarm?.()
    this.end(exitOf(result as PromiseSettledResult<A>))
  }

  #limitTo(limit: number): void {
    const { context } = this
    const clock = Context.get(context, Clock.Clock)
    this.#until = Instant.nowOf(clock) + limit
    this.#disarm = Child.armUnsafe(context, clock, limit - ahead, () => this.fill())
  }

  #left(): number {
    if (this.#until === Number.POSITIVE_INFINITY) return this.#until
    return Math.max(ahead, this.#until - Instant.nowOf(Context.get(this.context, Clock.Clock)))
  }

  protected get runs(): ReadonlyArray<AnyRun> {
    return [this.#run]
  }

  protected work(): Effect.Effect<A, unknown, Owner> {
    this.#disarm?.()
    const settled = enter(this.#run)
    return this.#around === undefined ? settled : this.#around(settled, this.#left())
  }
}

/** A task of the scope: when it fails, that is the scope's. */
export const spawnLightly = <A>(start: Start, work: Light<A>["work"]): Spawned<A> | undefined => {
  const seat = seatOf(start)
  if (seat === undefined) return undefined
  keepLight()
  const spawned = new Spawned(start, work)
  spawned.begin(seat, start.signal)
  return spawned
}

export class Spawned<A> extends Seated<A> {
  readonly #run: Run<A>

  constructor(start: Start, work: Light<A>["work"]) {
    super(start)
    this.#run = new Run(work, { name: start.name, failsLate: true }, this)
  }

  begin(seat: TaskScope.Place, signal: AbortSignal | undefined): void {
    this.sit(seat, signal)
    begin(this.#run)
  }

  over(_run: AnyRun, result: PromiseSettledResult<unknown>): void {
    if (result.status === "fulfilled") this.end(exitOf(result as PromiseSettledResult<A>))
    // The task that answers for it is told next, and tells the scope.
    else this.fill()
  }

  protected get runs(): ReadonlyArray<AnyRun> {
    return [this.#run]
  }

  protected work(): Effect.Effect<A, unknown> {
    return enter(this.#run)
  }

  protected override start(
    seat: TaskScope.Place,
    context: Context.Context<Owner>,
    work: Effect.Effect<A, unknown, Owner>
  ): Fiber.Fiber<A, unknown> {
    return seat.startTask(context, work)
  }

  cancel(reason: CancelReason): boolean {
    return this.exit === undefined && this.cell.cancel(reason)
  }

  get status(): TaskScope.TaskStatus {
    if (this.exit !== undefined) return "ended"
    if (this.cell.stuck) return "stuck"
    return this.cell.reason === undefined ? "running" : "cancelled"
  }
}
