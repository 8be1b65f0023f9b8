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
import { type CancelCell, CurrentCell } from "@curfew/reason/CancelCell"
import type { Owner } from "@curfew/scope"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Scheduler from "effect/Scheduler"
import { pledge } from "./bridge.ts"
import { exitOf } from "./errors.ts"
import { forwardAbort, Place } from "./place.ts"
import { type Host, Run, type SettleOptions } from "./settle.ts"

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

/** Work that stands in a place, and is a fiber once somebody asks. */
export abstract class Seated<A> implements Host {
  readonly context: Context.Context<never>
  protected readonly cell: CancelCell
  readonly #pledge = pledge<A>()
  readonly #seat: TaskScope.Place
  readonly #forget: (() => void) | undefined
  #over = false
  #filled = false

  constructor(seat: TaskScope.Place, { context, signal }: Start) {
    this.context = context
    this.#seat = seat
    seat.holder = this
    this.cell = seat.show()
    this.cell.wake = this.fill
    this.#forget = signal && forwardAbort(signal, this.cell)
  }

  /** What the fiber does: it answers for all that runs, and ends like that. Called once. */
  protected abstract work(): Effect.Effect<A, unknown, Owner>

  /** What runs, and may not be answered for yet. */
  protected abstract readonly runs: ReadonlyArray<AnyRun>

  get promise(): Promise<A> {
    return this.#pledge.promise
  }

  /** It has ended without a fiber. */
  protected end(exit: Exit.Exit<A, unknown>): void {
    this.#close()
    this.#seat.leave()
    this.#pledge.settle(exit)
  }

  #close(): void {
    this.#over = true
    this.cell.wake = undefined
    this.#forget?.()
  }

  /** Makes the fiber. */
  readonly fill = (): void => {
    if (this.#over || this.#filled) return
    this.#filled = true
    this.cell.wake = undefined
    // Deep inside other starts what the fiber forks comes a turn later, and a cancel may come before.
    const answered = Effect.onExitPrimitive(this.work(), () => {
      const left = this.runs.filter((run) => !run.entered)
      return left.length === 0 ? undefined : leaveAll(left)
    })
    const fiber = this.#seat.startNow(this.context as Context.Context<Owner>, answered)
    fiber.addObserver((exit) => {
      this.#close()
      this.#pledge.settle(exit)
    })
  }

  /** Nothing: the cancel has made the fiber before. */
  readonly stop = (): void => {}

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
  /** What is done with the work. Where nothing is cancelled, it ends as the work does. */
  readonly around?: ((settled: Effect.Effect<A, unknown>) => Effect.Effect<A, unknown, Owner>) | undefined
}

/** Starts the work in a place of the task scope; `undefined` where it takes a fiber. */
export const lightly = <A>(light: Light<A>): Promise<A> | undefined => {
  const seat = seatOf(light)
  return seat && new Running(seat, light).promise
}

class Running<A> extends Seated<A> {
  readonly #run: Run<A>
  readonly #around: Light<A>["around"]

  constructor(seat: TaskScope.Place, light: Light<A>) {
    super(seat, light)
    this.#around = light.around
    this.#run = new Run(light.work, light.settling, this)
    this.#run.begin((result) => this.end(exitOf(result)))
  }

  protected get runs(): ReadonlyArray<AnyRun> {
    return [this.#run]
  }

  protected work(): Effect.Effect<A, unknown, Owner> {
    const settled = enter(this.#run)
    return this.#around === undefined ? settled : this.#around(settled)
  }
}
