/**
 * What an answer of a handler is as a status.
 *
 * Invariants
 * 1. Every answer has one: also what cannot be encoded, what is more than the client may get, and what nobody waits for.
 * 2. A limit has the code that the program gave it, whichever way it was passed.
 */
import type { CancelReason } from "@curfew/reason"
import { statusOf } from "@curfew/request"
import type { Answer } from "@curfew/request/Endpoint"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import type { CallLimits, LimitName } from "../../ServerLimits.ts"
import type { CallState } from "./callState.ts"
import { cannotEncode, encode } from "./handling.ts"
import { limitReason } from "./limits.ts"
import { type MethodSpec, streams } from "./method.ts"
import {
  detailsOf,
  type Outgoing,
  okWith,
  outgoing,
  statusOfCause,
  statusOfError,
  type Told
} from "./status.ts"

export const unavailable: Outgoing = outgoing(Code.UNAVAILABLE, "The server is shutting down")

export const limitCode = ({ options, table }: MethodSpec, limit: LimitName): number =>
  table.statusOf(limit, options.limitStatus)

export const statusOfAnswer = (
  spec: MethodSpec,
  call: CallState,
  answer: Answer<unknown, unknown>
): Told & { readonly bytes?: Buffer | undefined } => {
  switch (answer._tag) {
    case "Value": {
      if (streams(call.kind)) return { status: okWith(call.trailers), unforeseen: undefined }
      const bytes = encode(spec, answer.value)
      if (!Buffer.isBuffer(bytes)) {
        const status = outgoing(Code.INTERNAL, cannotEncode)
        return { status, unforeseen: Cause.fail(bytes.error) }
      }
      return call.counted(bytes.length)
        ? { status: okWith(call.trailers), unforeseen: undefined, bytes }
        : {
            status: cancelledStatus(spec, call, "responseBytes"),
            unforeseen: undefined
          }
    }
    case "Failure":
      return statusOfCause(answer.cause, call.trailers, spec.options.mapError)
    case "Cancelled":
    case "Dropped":
      return call.chosen === undefined
        ? { status: statusOfReason(spec, answer.reason, call.trailers), unforeseen: undefined }
        : statusOfError(call.chosen, call.trailers)
  }
}

const cancelledStatus = (spec: MethodSpec, call: CallState, limit: keyof CallLimits): Outgoing =>
  statusOfReason(spec, limitReason(call.limits, limit), call.trailers)

const statusOfReason = (spec: MethodSpec, reason: CancelReason, trailers: Metadata | undefined): Outgoing => {
  const code =
    reason._tag === "LimitExceeded" ? limitCode(spec, reason.limit as LimitName) : statusOf(reason).grpc
  return outgoing(code, detailsOf(reason), trailers)
}
