import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"

/**
 * The annotation under which a first failure carries those that came after it. An annotation, not a reason of the
 * cause: a defect beside a typed failure would make that failure uncatchable, and a second failure would be dropped
 * in silence.
 *
 * **Example**
 *
 * ```ts
 * import * as Cause from "effect/Cause"
 * import { SiblingFailures, siblingFailures } from "@curfew/scope"
 *
 * siblingFailures(Cause.fail("first")) // => []
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export class SiblingFailures extends /* @__PURE__ */ Context.Service<
  SiblingFailures,
  ReadonlyArray<Cause.Cause<unknown>>
>()("@curfew/scope/SiblingFailures") {}

/**
 * The failures of siblings that came after the one in this cause.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const siblingFailures = (cause: Cause.Cause<unknown>): ReadonlyArray<Cause.Cause<unknown>> => {
  for (const reason of cause.reasons) {
    const found = reason.annotations.get(SiblingFailures.key)
    if (found !== undefined) return found as ReadonlyArray<Cause.Cause<unknown>>
  }
  return []
}
