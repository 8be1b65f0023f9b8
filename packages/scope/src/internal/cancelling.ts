/**
 * Effects over a cell that several surfaces offer.
 *
 * Invariants
 * 1. Waiting leaves no listener behind, whether it is answered or interrupted.
 */
import type { CancelReason } from "@curfew/reason"
import type { CancelCell } from "@curfew/reason/CancelCell"
import * as Effect from "effect/Effect"
import { awaitEnd } from "./child.ts"

export const awaitCancelled = (cell: CancelCell): Effect.Effect<CancelReason> =>
  Effect.callback((resume) => {
    if (cell.reason !== undefined) {
      resume(Effect.succeed(cell.reason))
      return
    }
    return Effect.sync(cell.listen((reason) => resume(Effect.succeed(reason))))
  })

export const cancelAndWait = (cell: CancelCell, reason: CancelReason): Effect.Effect<void> =>
  Effect.withFiber((waiter) => {
    const { fiber } = cell
    cell.cancel(reason)
    // A fiber that waits for its own end would wait for ever; the cancel ends it at its next operation instead.
    return fiber === undefined || fiber === waiter ? Effect.void : awaitEnd(fiber)
  })
