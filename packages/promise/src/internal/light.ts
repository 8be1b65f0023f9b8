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
import type * as Fiber from "effect/Fiber"
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

type Around<A> = (settled: Effect.Effect<A, unknown>) => Effect.Effect<A, unknown, Owner>

export interface Light<A> {
  readonly work: (signal: AbortSignal) => A | PromiseLike<A>
  readonly settling: SettleOptions<A> | undefined
  /** Stands in the live tree. */
  readonly name: string | undefined
  /** What the work is cancelled by besides its scope; it has not been aborted, and has no place. */
  readonly signal?: AbortSignal | undefined
  /** What is done with the work. Where nothing is cancelled, it ends as the work does. */
  readonly around?: Around<A> | undefined
}

/** Starts the work in a place of the task scope; `undefined` where it takes a fiber. */
export const lightly = <A>(
  tasks: TaskScope.TaskScope,
  context: Context.Context<never>,
  light: Light<A>
): Promise<A> | undefined => {
  if (Context.get(context, Scheduler.Scheduler) !== processScheduler) return undefined
  const place = TaskScope.reserveUnsafe(tasks, light.name)
  return place === undefined ? undefined : new Running(place, context, light).promise
}

class Running<A> implements Host {
  readonly #pledge = pledge<A>()
  readonly context: Context.Context<never>
  readonly #seat: TaskScope.Place
  readonly #cell: CancelCell
  readonly #run: Run<A>
  readonly #around: Around<A> | undefined
  #forget: (() => void) | undefined
  #over = false
  #fiber: Fiber.Fiber<A, unknown> | undefined

  constructor(seat: TaskScope.Place, context: Context.Context<never>, light: Light<A>) {
    this.context = context
    this.#seat = seat
    this.#around = light.around
    seat.holder = this
    this.#cell = seat.show()
    this.#cell.wake = this.fill
    if (light.signal !== undefined) this.#forget = forwardAbort(light.signal, this.#cell)
    this.#run = new Run(light.work, light.settling, this)
    this.#run.begin((result) => this.#settled(result))
  }

  get promise(): Promise<A> {
    return this.#pledge.promise
  }

  #settled(result: PromiseSettledResult<A>): void {
    this.#end()
    this.#seat.leave()
    this.#pledge.settle(exitOf(result))
  }

  #end(): void {
    this.#over = true
    this.#cell.wake = undefined
    this.#forget?.()
  }

  /** Makes the fiber. */
  readonly fill = (): void => {
    if (this.#over || this.#fiber !== undefined) return
    this.#cell.wake = undefined
    const waiting = Effect.withFiber<A, unknown>((fiber) => this.#run.enter(fiber))
    const work = this.#around === undefined ? waiting : this.#around(waiting)
    // A shield starts a fiber of its own, and deep inside other starts a cancel may come before that one waits.
    const answered = Effect.onExitPrimitive(work, () =>
      this.#run.entered ? undefined : (this.#run.leave as Effect.Effect<void>)
    )
    this.#fiber = this.#seat.startNow(this.context as Context.Context<Owner>, answered)
    this.#fiber.addObserver((exit) => {
      this.#end()
      this.#pledge.settle(exit)
    })
  }

  /** Nothing: the cancel has made the fiber before. */
  readonly stop = (): void => {}

  get #inside(): Context.Context<never> {
    return Context.add(this.context, CurrentCell, this.#cell)
  }

  get place(): Place {
    this.fill()
    // After its end, and for what its fiber does not answer for, it is where it stood.
    return new Place(this.#inside, this.#cell, false)
  }
}
