import * as Cause from "effect/Cause"
import * as Option from "effect/Option"
import { Interruption } from "./CancelCell.ts"
import type { CancelReason } from "./CancelReason.ts"

/**
 * Reads the reason that an interrupt in this cause carries, the first one if there are several.
 *
 * `None` when nothing in the cause was interrupted by Curfew: a native `Fiber.interrupt` says nothing.
 *
 * **Example**
 *
 * ```ts
 * import * as Cause from "effect/Cause"
 * import { fromCause } from "@curfew/reason"
 *
 * fromCause(Cause.interrupt())._tag // => "None"
 * ```
 *
 * @see currentReason inside the cancelled work.
 * @stability unstable
 * @since 0.1.0
 */
export const fromCause = (cause: Cause.Cause<unknown>): Option.Option<CancelReason> => {
  for (const reason of cause.reasons) {
    if (reason._tag !== "Interrupt") continue
    const found = reason.annotations.get(Interruption.key)
    if (found !== undefined) return Option.some(found as CancelReason)
  }
  return Option.none()
}

/**
 * An interrupt that carries a reason, as a cause. For edges that end a fiber themselves.
 *
 * **Example**
 *
 * ```ts
 * import { CancelReason, fromCause, toCause } from "@curfew/reason"
 *
 * fromCause(toCause(CancelReason.Superseded()))._tag // => "Some"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const toCause = (reason: CancelReason): Cause.Cause<never> =>
  Cause.annotate(Cause.interrupt(), Interruption.context(reason) as never)
