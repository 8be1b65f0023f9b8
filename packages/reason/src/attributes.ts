import * as Duration from "effect/Duration"
import { type CancelReason, describe } from "./CancelReason.ts"
import { fieldsOf, prefix } from "./internal/fields.ts"

/**
 * Says a {@link CancelReason} as flat attributes, for spans and log lines.
 *
 * | attribute | value |
 * | --- | --- |
 * | `curfew.cancel.reason` | the tag |
 * | `curfew.cancel.message` | the sentence of `describe` |
 * | `curfew.cancel.scope` | the name of the scope that was cancelled, or whose deadline passed |
 * | `curfew.cancel.because` | the tag of the reason that the peer gave for leaving |
 * | `curfew.cancel.<field>` | the fields of the tag that are words or numbers; `lingered_ms` in milliseconds |
 *
 * **Gotchas**
 *
 * The cause of a `SiblingFailed` is not in it: the failed sibling has a span and a log line of its own.
 *
 * **Example**
 *
 * ```ts
 * import { attributes, CancelReason } from "@curfew/reason"
 *
 * const seen = attributes(CancelReason.LimitExceeded({ limit: "streams" }))
 * seen["curfew.cancel.reason"] // => "LimitExceeded"
 * seen["curfew.cancel.message"] // => "the limit streams is exceeded"
 * seen["curfew.cancel.limit"] // => "streams"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const attributes = (
  reason: CancelReason,
  /** The name of the scope that was cancelled, where it is known. */
  scope?: string | undefined
): Record<string, string | number> => {
  const flat = fieldsOf(reason)
  flat[`${prefix}message`] = describe(reason)
  // Whoever made it may have put anything there.
  const { because, lingered } = reason as {
    readonly because?: CancelReason | null
    readonly lingered?: unknown
  }
  if (typeof because === "object" && because !== null) flat[`${prefix}because`] = because._tag ?? "Unknown"
  if (Duration.isDuration(lingered)) flat[`${prefix}lingered_ms`] = Duration.toMillis(lingered)
  if (scope !== undefined) flat[`${prefix}scope`] = scope
  return flat
}
