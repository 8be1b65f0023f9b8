import type { CancelReason } from "@curfew/reason"
import * as Data from "effect/Data"

/**
 * What `OnUnhandled` is told, as a defect of origin `cleanup`, when a cancelled run overran its clean-up budget. The run
 * stands in the registry of stuck work until it ends after all, and no longer holds up the next generation.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class SharedStuck extends /* @__PURE__ */ Data.TaggedError("SharedStuck")<{
  /** The name of the run; in a map it carries the key. */
  readonly name: string
  /** Why it was cancelled. */
  readonly reason: CancelReason | undefined
}> {
  override get message(): string {
    return `The clean-up of the shared work "${this.name}" overran its budget; a new run may start beside it.`
  }
}
