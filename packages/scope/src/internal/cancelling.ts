/**
 * Effects over a cell that several surfaces offer.
 *
 * Invariants
 * 1. Waiting leaves no listener behind, whether it is answered or interrupted.
 * 2. Nobody waits for himself: from inside the scope, behind a mask or a shield as well, a wait for its end returns.
 */
import type { CancelReason } from "@curfew/reason"
import { type CancelCell, CurrentCell } from "@curfew/reason/CancelCell"
import { isInside } from "@curfew/reason/Outer"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { awaitEnd, resumeWith } from "./child.ts"

/** Whether the fiber works inside the cell: the cell's end may then have to wait for the fiber's. */
export const standsIn = (fiber: Fiber.Fiber<unknown, unknown>, cell: CancelCell): boolean => {
  const own = fiber.getRef(CurrentCell)
  return fiber === cell.fiber || (own !== undefined && isInside(own, cell))
}

export const awaitCancelled = (cell: CancelCell): Effect.Effect<CancelReason> =>
  Effect.withFiber((waiter) =>
    Effect.callback((resume) => {
      if (cell.reason !== undefined) {
        resume(Effect.succeed(cell.reason))
        return
      }
      return Effect.sync(cell.listen((reason) => resumeWith(waiter, resume, Effect.succeed(reason))))
    })
  )

export const cancelAndWait = (cell: CancelCell, reason: CancelReason): Effect.Effect<void> =>
  Effect.withFiber((waiter) => {
    const { fiber } = cell
    cell.cancel(reason)
    // Who waits for his own end waits for ever; the cancel ends him at his next operation outside a mask instead.
    return fiber === undefined || standsIn(waiter, cell) ? Effect.void : awaitEnd(fiber)
  })
