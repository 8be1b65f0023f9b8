import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { boundedAt } from "./bounded.ts"
import { reportUnhandled } from "./OnUnhandled.ts"

/**
 * Runs a receiver of a late result as clean-up, for those who write primitives of their own: masked, within the clean-up
 * budget, and its own defect reported. `source` is where the receiver was handed over.
 *
 * @stability internal
 * @since 0.1.0
 */
export const receive = <R>(
  receiver: () => Effect.Effect<unknown, never, R>,
  name: string | undefined,
  source?: (() => string | undefined) | undefined
): Effect.Effect<void, never, R> =>
  Effect.uninterruptible(
    Effect.catchCause(
      Effect.asVoid(
        boundedAt(Effect.suspend(receiver), {
          name: name === undefined ? "onLate" : `onLate of ${name}`,
          source
        })
      ),
      (cause: Cause.Cause<never>) => reportUnhandled("late result", name, cause)
    )
  )
