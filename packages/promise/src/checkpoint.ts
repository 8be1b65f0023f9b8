import * as Guard from "@curfew/guard"
import { hasTimeUnsafe } from "@curfew/guard/checkpoint"
import * as Child from "@curfew/scope/Child"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { rejected, resolved, toPromise } from "./internal/bridge.ts"
import { cancelledBy, interrupted } from "./internal/launch.ts"
import { contextOf } from "./internal/place.ts"

/**
 * A point in a long computation at which it can be cancelled.
 *
 * **Guarantees**
 *
 * - **Bounded delay**: the event loop, which is where a client's leaving arrives, gets a turn whenever the computation has
 *   held the thread for a time slice, five milliseconds.
 * - **Cheap between**: within the slice it costs one look at the clock and one at the signal.
 *
 * **When cancelled**
 *
 * Rejects with {@link Cancelled}, before the turn or after it.
 *
 * **Example**
 *
 * ```ts
 * import { checkpoint } from "@curfew/promise"
 *
 * const sum = async (signal: AbortSignal) => {
 *   let total = 0
 *   for (let i = 0; i < 1000; i++) {
 *     total += i
 *     await checkpoint(signal)
 *   }
 *   return total
 * }
 * await sum(new AbortController().signal) // => 499500
 * await sum(AbortSignal.abort("enough")).catch((error) => error.reason.message) // => "enough"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const checkpoint = (signal?: AbortSignal): Promise<void> => {
  if (signal?.aborted === true) return rejected(cancelledBy(signal))
  const context = contextOf(signal) ?? Context.empty()
  if (hasTimeUnsafe(context)) return resolved
  const breathing = Child.startUnsafe(
    context,
    Effect.flatMap(Guard.checkpoint, () =>
      signal?.aborted === true ? interrupted(cancelledBy(signal).reason) : Effect.void
    )
  )
  return breathing.pollUnsafe()?._tag === "Success" ? resolved : toPromise(breathing)
}
