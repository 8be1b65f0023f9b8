import type { CancelReason } from "@curfew/reason"
import * as Data from "effect/Data"

/**
 * The error of a gather one of whose items was interrupted by somebody else. A typed error, because an interrupt would
 * make the whole look cancelled although nobody cancelled it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class ChildCancelled extends /* @__PURE__ */ Data.TaggedError("ChildCancelled")<{
  /** The place of the item: its index, or its key in a record. */
  readonly index: number | string
  /** Why it was interrupted; `Unknown` when its interrupt says nothing. */
  readonly reason: CancelReason
}> {
  override get message(): string {
    return `The item at ${JSON.stringify(this.index)} was interrupted by somebody else (${this.reason._tag}).`
  }
}
