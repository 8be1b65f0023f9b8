import { type CancelReason, describe } from "@curfew/reason"
import * as Data from "effect/Data"

/**
 * The error of an observer whose shared work was cancelled at its source: by `cancel`, by the end of its owner, or by an
 * interrupt from inside the work. A typed error, because an interrupt would make the observer look cancelled although
 * nobody cancelled it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class SharedCancelled extends /* @__PURE__ */ Data.TaggedError("SharedCancelled")<{
  /** The name of the run; in a map it carries the key. */
  readonly name: string
  /** Why; `Unknown` when the interrupt says nothing. */
  readonly reason: CancelReason
}> {
  override get message(): string {
    return `The shared work "${this.name}" was cancelled: ${describe(this.reason)}.`
  }
}
