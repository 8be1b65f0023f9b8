/**
 * Waiting for one child that was cancelled, as a task scope waits for its tasks.
 *
 * Invariants
 * 1. The waiter is masked, and goes on when the child's fiber has ended or the budget is used up.
 * 2. A child that overruns the budget stands by itself in the live tree and in the stuck registry until it ends.
 */
import type { CancelCell } from "@curfew/reason/CancelCell"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { CleanupBudget } from "../CleanupBudget.ts"
import { enterUnsafe, logStuck } from "../Stuck.ts"
import { endedWithin } from "./timer.ts"

/** Waits until a child that was cancelled has ended, at most for the clean-up budget; it is stuck then. */
export const awaitCancelled = (cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> =>
  Effect.flatMap(CleanupBudget, (budget) =>
    endedWithin(
      budget,
      (ended) => fiber.addObserver(() => ended(Effect.void)),
      (startedAt) => {
        cell.abandon()
        const record = {
          kind: "task",
          name: cell.name,
          reason: cell.reason,
          span: fiber.cache.span?._tag === "Span" ? fiber.cache.span.name : undefined,
          startedAt,
          source: undefined
        } as const
        fiber.addObserver(enterUnsafe(record, fiber.context))
        return logStuck(record)
      }
    )
  )
