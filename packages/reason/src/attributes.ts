import * as Duration from "effect/Duration"
import { type CancelReason, describe } from "./CancelReason.ts"

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
  const flat: Record<string, string | number> = {
    [`${prefix}reason`]: reason._tag,
    [`${prefix}message`]: describe(reason)
  }
  for (const [field, value] of Object.entries(reason)) {
    if (field === "_tag" || field === "message" || value === undefined || value === null) continue
    if (typeof value === "string" || typeof value === "number") flat[`${prefix}${field}`] = value
    else if (field === "because") flat[`${prefix}because`] = (value as CancelReason)._tag ?? "Unknown"
    else if (Duration.isDuration(value)) flat[`${prefix}${field}_ms`] = Duration.toMillis(value)
  }
  if (scope !== undefined) flat[`${prefix}scope`] = scope
  return flat
}

const prefix = "curfew.cancel."
