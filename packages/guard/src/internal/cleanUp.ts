/**
 * Running a guard's clean-up: what `onCancel` and `guard` share.
 *
 * Invariants
 * 1. It is called masked, from a finalizer, after an own cancellation was found.
 * 2. It ends within the clean-up budget, whatever the clean-up does.
 * 3. A defect of the clean-up reaches the receiver of unhandled failures once, and joins the cause as an annotation
 *    of one more interrupt: the exit stays a pure interrupt.
 */
import type { CancelReason } from "@curfew/reason"
import { reportUnhandled } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { CleanupDefect } from "../CleanupDefect.ts"

export const cleanUp = <R>(
  cleanup: (reason: CancelReason) => Effect.Effect<unknown, never, R>,
  reason: CancelReason,
  cause: Cause.Cause<unknown>,
  /** Where the guard was set up, for the record of one that gets stuck. */
  source: () => string | undefined
): Effect.Effect<void, never, R> =>
  Effect.catchCause(
    Effect.asVoid(
      boundedAt(
        Effect.suspend(() => cleanup(reason)),
        { name: "guard", source }
      )
    ),
    (defect) =>
      Effect.andThen(
        reportUnhandled("cleanup", "guard", defect, reason),
        Effect.failCause(Cause.annotate(interruptOf(cause), CleanupDefect.context(defect) as never))
      )
  )

const interruptOf = (cause: Cause.Cause<unknown>): Cause.Cause<never> =>
  Cause.fromReasons(cause.reasons.filter((reason) => reason._tag === "Interrupt"))
