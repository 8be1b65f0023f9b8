import * as Cause from "effect/Cause"
import * as Option from "effect/Option"
import type { CancelReason } from "./CancelReason.ts"
import { Interruption, reasonIn } from "./internal/keys.ts"

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
export const fromCause = (cause: Cause.Cause<unknown>): Option.Option<CancelReason> =>
  Option.fromUndefinedOr(reasonIn(cause))

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
