/**
 * The work that a call may do for its client, counted in units of the handler's own.
 *
 * Invariants
 * 1. Who spends more than there is gets the call stopped, and a turn in which to hear of that.
 * 2. Nobody gets a unit that is not there; where there is none, taking does not come back.
 */
import { toCause } from "@curfew/reason"
import { countUnsafe } from "@curfew/scope/Argument"
import * as Effect from "effect/Effect"
import type { WorkBudget } from "../../ServerCall.ts"
import type { CallState } from "./callState.ts"
import { limitReason } from "./limits.ts"

export const budgetOf = (call: CallState): WorkBudget => ({
  spend: (units) =>
    Effect.suspend(() => {
      call.spent += Math.max(0, units)
      if (call.spent <= call.limits.work) return Effect.void
      call.exceeded("work")
      return Effect.yieldNow
    }),
  take: (upTo) =>
    Effect.suspend(() => {
      const units = Math.min(
        countUnsafe("the units to take of a budget", upTo, 1),
        call.limits.work - call.spent
      )
      if (units > 0) {
        call.spent += units
        return Effect.succeed(units)
      }
      call.exceeded("work")
      const reason = call.ended ?? limitReason(call.limits, "work")
      // Who masks does not hear of the cancel, and has nothing to go on with.
      return Effect.andThen(Effect.yieldNow, Effect.failCause(toCause(reason)))
    }),
  left: Effect.sync(() => Math.max(0, call.limits.work - call.spent))
})
