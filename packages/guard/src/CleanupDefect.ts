import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Option from "effect/Option"

/**
 * The annotation under which an interrupt carries the defect of a guard's clean-up.
 *
 * @see cleanupDefect to read it.
 * @stability unstable
 * @since 0.1.0
 */
export class CleanupDefect extends /* @__PURE__ */ Context.Service<CleanupDefect, Cause.Cause<never>>()(
  "@curfew/guard/CleanupDefect"
) {}

/**
 * Reads the defect of a guard's clean-up from a cause, if there was one.
 *
 * **Example**
 *
 * ```ts
 * import * as Cause from "effect/Cause"
 * import { cleanupDefect } from "@curfew/guard"
 *
 * cleanupDefect(Cause.interrupt())._tag // => "None"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const cleanupDefect = (cause: Cause.Cause<unknown>): Option.Option<Cause.Cause<never>> => {
  for (const reason of cause.reasons) {
    const found = reason.annotations.get(CleanupDefect.key)
    if (found !== undefined) return Option.some(found as Cause.Cause<never>)
  }
  return Option.none()
}
