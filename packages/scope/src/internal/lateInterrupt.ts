/**
 * Cancelling a masked fiber without losing what it still produces.
 *
 * An interrupt that is pending when a mask ends replaces the value that comes out of the mask. A time limit that
 * has to hand late results over therefore does not make its interrupt pending while the fiber is masked; it waits
 * until the fiber is about to run an operation outside the mask, and interrupts it there. If no such operation
 * comes, the fiber ends with its own exit, which is then the late result.
 *
 * Invariants
 * 1. Held back is only the native interrupt. The reason is set at once, so the work can ask.
 * 2. After the mask no operation runs: the scheduler is asked before each one, says yield, and the interrupt meets
 *    the fiber at that yield. The continuation of the mask itself, up to its first operation, may run.
 * 3. Everything else is delegated to the scheduler that was there.
 */
import type { CancelCell } from "@curfew/reason/CancelCell"
import { isMaskedUnsafe } from "@curfew/reason/CancelCell"
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"

const base = new WeakMap<Scheduler.Scheduler, Scheduler.Scheduler>()

/** A context for the cell's fiber in which the cell's interrupt waits for the end of a mask. */
export const holdBack = <R>(context: Context.Context<R>, cell: CancelCell): Context.Context<R> => {
  // Without the scheduler's question the interrupt would never leave.
  if (Context.get(context as Context.Context<never>, Scheduler.PreventSchedulerYield)) return context
  const given = Context.get(context as Context.Context<never>, Scheduler.Scheduler)
  // An outer limit watches the fiber of its own cell alone, and this is another one.
  const outer = base.get(given) ?? given
  let held: Context.Context<never> | undefined
  cell.holdBack = (annotations) => {
    held = annotations
  }
  const scheduler: Scheduler.Scheduler = {
    executionMode: outer.executionMode,
    makeDispatcher: () => outer.makeDispatcher(),
    shouldYield: (fiber: Fiber.Fiber<unknown, unknown>) => {
      if (held !== undefined && fiber === cell.fiber && !isMaskedUnsafe(fiber)) {
        const annotations = held
        held = undefined
        fiber.interruptUnsafe(undefined, annotations)
        return true
      }
      return outer.shouldYield(fiber)
    }
  }
  base.set(scheduler, outer)
  return Context.add(context, Scheduler.Scheduler, scheduler) as Context.Context<R>
}
