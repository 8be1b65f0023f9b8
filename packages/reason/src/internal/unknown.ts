/**
 * The reason of an interrupt that says nothing, by itself: those who need no other do not carry the others' makers.
 *
 * Invariants
 * 1. There is one value of it.
 */
import type { CancelReason } from "../CancelReason.ts"

export const unknown: CancelReason = { _tag: "Unknown" }

export const unknownReason = (): CancelReason => unknown
