/**
 * Work that its caller may leave: it stands in its owner, and who waits for it is a promise and a listener.
 *
 * Invariants
 * 1. The place is the work's, from its start to its end. The caller has none: when its signal is aborted its promise is
 *    rejected in that turn, and the work does not hear of it.
 * 2. A cancel of the work, which only its owner can send, reaches both: the caller leaves in that turn, and does not wait for
 *    the clean-up.
 * 3. Exactly one of the caller and `abandoned` has what becomes of the work. Who is told first was there last: an abort that
 *    comes after the end of the work changes nothing.
 * 4. What `abandoned` has to do is done by a fiber in the place, which is made for it if there is none.
 */
import type { CancelReason } from "@curfew/reason"
import { CancelCell, cancelAloneUnsafe, keepUnsafe } from "@curfew/reason/CancelCell"
import type * as TaskScope from "@curfew/scope/TaskScope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { begin } from "./bridge.ts"
import { exitOf } from "./errors.ts"
import { type AnyRun, enter, Seated, type Start, seatOf } from "./light.ts"
import { keepRuns, Run } from "./settle.ts"

export interface Leavable<A> {
  readonly work: (signal: AbortSignal) => A | PromiseLike<A>
  readonly name: string | undefined
  /** Receives the exit when the caller has left. */
  readonly abandoned: (exit: Exit.Exit<A, unknown>) => Effect.Effect<void>
  /** It has a use for values as well. */
  readonly wantsValues: boolean
}

/** Starts the work in a place of the task scope; `undefined` where it takes a fiber. */
export const leavably = <A>(start: Start, leavable: Leavable<A>): Promise<A> | undefined => {
  const seat = seatOf(start)
  if (seat === undefined) return undefined
  if (!keeps) {
    keeps = true
    keepRuns()
    const none = { work: () => {}, name: undefined, abandoned: () => Effect.void, wantsValues: false }
    keepUnsafe(new Leaving({ context: Context.empty(), tasks: start.tasks, name: undefined }, none))
  }
  return new Leaving(start, leavable).begin(seat, start.signal)
}

let keeps = false

class Leaving<A> extends Seated<A> {
  readonly #leavable: Leavable<A>
  readonly #run: Run<A>
  /** Nobody waits any more. */
  #left = false
  /** The caller is told how it ended. */
  #settled = false

  constructor(start: Start, leavable: Leavable<A>) {
    super(start)
    this.#leavable = leavable
    this.#run = new Run(leavable.work, leavable, this)
  }

  begin(seat: TaskScope.Place, signal: AbortSignal | undefined): Promise<A> {
    this.sit(seat, signal, (reason) => this.#aborted(reason))
    begin(this.#run)
    return this.promise
  }

  over(_run: AnyRun, result: PromiseSettledResult<unknown>): void {
    // The fiber that answers for it is told next, and has it received.
    if (this.#left && (this.#leavable.wantsValues || result.status === "rejected")) this.fill()
    else this.end(exitOf(result as PromiseSettledResult<A>))
  }

  protected get runs(): ReadonlyArray<AnyRun> {
    return [this.#run]
  }

  protected work(): Effect.Effect<A, unknown> {
    this.cell.listen((reason) => this.#leave(reason))
    return Effect.onExitPrimitive(enter(this.#run), (exit) => {
      if (this.#left) return this.#leavable.abandoned(exit)
      this.#settled = true
      return undefined
    })
  }

  #aborted(reason: CancelReason): void {
    if (!this.#leave(reason)) return
    // Who counts cancels counts this one: what waited was cancelled, and has ended by that.
    const { parent } = this.cell
    const waiter = new CancelCell("task", { name: this.#leavable.name, parent })
    cancelAloneUnsafe(waiter, reason, this.context)
    waiter.unlink()
  }

  #leave(reason: CancelReason): boolean {
    if (this.#left || this.#settled) return false
    this.#left = true
    this.refuse(reason)
    return true
  }
}
