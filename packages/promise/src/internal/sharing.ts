/**
 * The options of shared work.
 *
 * Invariants
 * 1. A linger that is no length of time is refused where the work is made, not when its last caller leaves.
 */
import { CancelReason } from "@curfew/reason"
import type * as Single from "@curfew/singleflight"
import type * as Exit from "effect/Exit"
import type { WorkOptions } from "../Options.ts"
import type { SharedOptions } from "../shared.ts"
import { ended } from "./bridge.ts"
import { durationOf } from "./durations.ts"
import { isFree } from "./place.ts"

/** What is retained, for a caller that nothing cancels: it needs no fiber to wait in. */
export const retainedFor = <A>(
  find: () => Exit.Exit<A, unknown> | undefined,
  asking: Pick<WorkOptions, "signal"> | undefined
): Promise<A> | undefined => {
  const exit = isFree(asking?.signal) ? find() : undefined
  return exit && ended(exit)
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
