/**
 * What a reason says without any words of ours.
 *
 * Invariants
 * 1. No sentence stands here: the log lines of primitives would carry those of all reasons into each bundle.
 */
import type { CancelReason } from "../CancelReason.ts"

export const prefix = "curfew.cancel."

/**
 * The part of `attributes` that needs no words of ours: the tag, and the fields that are words or numbers.
 *
 * @stability internal
 * @since 0.1.0
 */
export const fieldsOf = (reason: CancelReason): Record<string, string | number> => {
  const flat: Record<string, string | number> = {}
  for (const [field, value] of Object.entries(reason)) {
    if (typeof value === "string" || typeof value === "number")
      flat[prefix + (field === "_tag" ? "reason" : field)] = value
  }
  return flat
}
