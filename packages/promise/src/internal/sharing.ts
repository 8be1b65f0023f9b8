/**
 * The options of shared work.
 *
 * Invariants
 * 1. A linger that is no length of time is refused where the work is made, not when its last caller leaves.
 */
import { CancelReason } from "@curfew/reason"
import { keepUnsafe } from "@curfew/reason/CancelCell"
import type * as TaskScope from "@curfew/scope/TaskScope"
import type * as Single from "@curfew/singleflight"
import type { Waiter, Waits } from "@curfew/singleflight/Retained"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { WorkOptions } from "../Options.ts"
import type { SharedOptions } from "../shared.ts"
import { ended, rejected } from "./bridge.ts"
import { durationOf } from "./durations.ts"
import { launchLightly } from "./launch.ts"
import { type AnyRun, Seated, seatOf } from "./light.ts"
import { isFree } from "./place.ts"

/** What is retained, for a caller that nothing cancels: it needs no fiber to wait in. */
export const retainedFor = <A>(
  find: () => Exit.Exit<A, unknown> | undefined,
  asking: Pick<WorkOptions, "signal"> | undefined
): Promise<A> | undefined => {
  try {
    const exit = isFree(asking?.signal) ? find() : undefined
    return exit && ended(exit)
  } catch (error) {
    // A key that throws when it is hashed or compared.
    return rejected(error)
  }
}

/** Waits for shared work without a fiber; `undefined` where that takes one. */
export const askLightly = <A>(
  options: WorkOptions,
  join: (waiter: Waiter<A, unknown>) => void
): Promise<A> | undefined =>
  launchLightly(options, (start) => {
    const seat = seatOf(start)
    if (seat === undefined) return undefined
    if (!keeps) {
      keeps = true
      keepUnsafe(new Asking({ context: Context.empty(), tasks: start.tasks, name: undefined }))
    }
    return new Asking<A>(start).begin(seat, start.signal, join)
  })

let keeps = false

/** Who waits for shared work: it has no fiber unless it is cancelled, or the work has to belong to it. */
class Asking<A> extends Seated<A> implements Waiter<A, unknown> {
  #waits: Waits<A, unknown> | undefined = undefined

  begin(
    seat: TaskScope.Place,
    signal: AbortSignal | undefined,
    join: (waiter: Waiter<A, unknown>) => void
  ): Promise<A> {
    this.sit(seat, signal, (reason) => this.#aborted(reason))
    join(this)
    return this.promise
  }

  joins(waits: Waits<A, unknown>): void {
    this.#waits = waits
  }

  #aborted(reason: CancelReason): void {
    // A cancel of the run, which the last one brings about by leaving, finds nobody here.
    if (!this.filled && this.#waits?.hosted === false) {
      this.leave(reason)
      this.#waits.leave()
    } else this.cell.cancel(reason)
  }

  told(exit: Exit.Exit<A, unknown>): void {
    this.end(exit)
  }

  over(): void {}

  protected get runs(): ReadonlyArray<AnyRun> {
    return []
  }

  protected work(): Effect.Effect<A, unknown> {
    return (this.#waits as Waits<A, unknown>).enter
  }
}

/** The options that need no translation, checked. */
export const plainOf = (options: SharedOptions | undefined): Single.SharedOptions => {
  const { generations, whenUnobserved } = options ?? {}
  return {
    generations,
    whenUnobserved:
      typeof whenUnobserved === "object"
        ? { linger: durationOf("linger", whenUnobserved.linger) }
        : whenUnobserved
  }
}

export const requestedShared: CancelReason = /* @__PURE__ */ CancelReason.Requested({
  message: "the shared work was cancelled"
})
