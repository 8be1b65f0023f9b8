/**
 * What an edge is told about the exit of a handler that has ended.
 *
 * Invariants
 * 1. An exit that went to the receiver of dropped ones is not given to the edge as an answer too.
 * 2. A value that nobody dropped is the answer, whatever happened after it was there.
 * 3. An interrupt is a cancel only when the call's own cell was cancelled; any other is a failure of the handler.
 */
import type { CancelReason } from "@curfew/reason"
import * as Cause from "effect/Cause"
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { Answer } from "../Endpoint.ts"

export const answerTo = <A, E>(
  exit: Exit.Exit<A, E>,
  call: {
    readonly gone: CancelReason | undefined
    readonly cancelled: CancelReason | undefined
    readonly dropped: boolean
  }
): Answer<A, E> => {
  if (exit._tag === "Success" && !call.dropped) return { _tag: "Value", value: exit.value }
  if (call.gone !== undefined && (call.dropped || call.cancelled !== undefined)) {
    return { _tag: "Dropped", reason: call.gone, exit: Option.some(exit) }
  }
  if (exit._tag === "Success" || (call.cancelled !== undefined && Cause.hasInterruptsOnly(exit.cause))) {
    return { _tag: "Cancelled", reason: call.cancelled as CancelReason }
  }
  // A failure that came out of a cancelled handler was reported; its edge answers the cancel.
  return call.dropped && call.cancelled !== undefined
    ? { _tag: "Cancelled", reason: call.cancelled }
    : { _tag: "Failure", cause: exit.cause }
}
