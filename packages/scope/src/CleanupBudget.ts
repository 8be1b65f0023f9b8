import * as Context from "effect/Context"
import * as Duration from "effect/Duration"

/**
 * How long clean-up may take before it is left behind as stuck. Ten seconds by default: the usual grace between
 * the two signals of a process manager is ten to thirty, and the report has to be out before the second.
 *
 * **Example**
 *
 * ```ts
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import { CleanupBudget } from "@curfew/scope"
 *
 * const program = Effect.map(CleanupBudget, Duration.toMillis)
 * Effect.runSync(program) // => 10000
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const CleanupBudget: Context.Reference<Duration.Duration> = /* @__PURE__ */ Context.Reference(
  "@curfew/scope/CleanupBudget",
  { defaultValue: () => Duration.seconds(10) }
)
