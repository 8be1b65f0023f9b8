import type { CancelReason } from "@curfew/reason"
import * as Data from "effect/Data"

/** A handler's answer other than OK. */
export class GrpcStatus extends Data.TaggedError("GrpcStatus")<{
  readonly code: number
  readonly details: string
  /** Why the server ended the call, when it did so for its own sake. */
  readonly reason?: CancelReason
}> {
  override get message(): string {
    return this.details
  }
}
