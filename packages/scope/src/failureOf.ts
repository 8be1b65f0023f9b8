import * as Cause from "effect/Cause"

/**
 * The part of a cause that is not an interrupt, or `undefined` when there is none: what was cancelled is not a failure.
 *
 * **Example**
 *
 * ```ts
 * import * as Cause from "effect/Cause"
 * import { failureOf } from "@curfew/scope"
 *
 * failureOf(Cause.interrupt()) // => undefined
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const failureOf = <E>(cause: Cause.Cause<E>): Cause.Cause<E> | undefined => {
  const reasons = cause.reasons.filter((reason) => reason._tag !== "Interrupt")
  if (reasons.length === 0) return undefined
  return reasons.length === cause.reasons.length ? cause : Cause.fromReasons(reasons)
}
