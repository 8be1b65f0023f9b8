/**
 * Under which keys contexts and causes know of cancellation.
 *
 * Invariants
 * 1. A context holds a cell and never what it takes to cancel one: who only reads where it stands carries nothing of that.
 */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type { CancelReason } from "../CancelReason.ts"
import type { Cell } from "./cell.ts"

/**
 * The cell that the running fiber belongs to, if any. Forked fibers, items of a concurrent `all`, sides of a race
 * and bodies of a time-out inherit it with the context.
 *
 * @stability internal
 * @since 0.1.0
 */
export const CurrentCell: Context.Reference<Cell | undefined> = /* @__PURE__ */ Context.Reference(
  "@curfew/reason/CurrentCell",
  { defaultValue: (): Cell | undefined => undefined }
)

/**
 * The annotation under which an interrupt that Curfew sends carries its reason.
 *
 * @see fromCause to read it.
 * @stability internal
 * @since 0.1.0
 */
export class Interruption extends /* @__PURE__ */ Context.Service<Interruption, CancelReason>()(
  "@curfew/reason/Interruption"
) {}

/** The reason that an interrupt in this cause carries, the first one if there are several. */
export const reasonIn = (cause: Cause.Cause<unknown>): CancelReason | undefined => {
  for (const reason of cause.reasons) {
    if (reason._tag !== "Interrupt") continue
    const found = reason.annotations.get(Interruption.key)
    if (found !== undefined) return found as CancelReason
  }
  return undefined
}
