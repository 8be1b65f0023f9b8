/**
 * The status that answers a call.
 *
 * Invariants
 * 1. Every exit of a handler has exactly one status, and none of them is OK by mistake.
 * 2. What a handler did not say for its peer's ears is not told: an unforeseen failure is UNKNOWN, without its text.
 * 3. Code, details and trailers are such that the transport can write them.
 */
import { type CancelReason, describe } from "@curfew/reason"
import { foreignInterrupt } from "@curfew/request"
import { failureOf } from "@curfew/scope"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import { GrpcError } from "../../GrpcError.ts"
import { BadMetadata, checked } from "./metadata.ts"

/** What goes out. */
export interface Outgoing {
  readonly code: number
  readonly details: string
  readonly trailers: Metadata | undefined
}

/** What is to be told in the server's own log. */
export interface Told {
  readonly status: Outgoing
  /** Set when nobody foresaw this: it is logged as an error. */
  readonly unforeseen: Cause.Cause<unknown> | undefined
}

export const outgoing = (code: number, details: string, trailers?: Metadata | undefined): Outgoing => ({
  code: Number.isInteger(code) && code > 0 && code <= 16 ? code : Code.UNKNOWN,
  // The header is percent-encoded, and encoding throws at half a character.
  details: shortened(details.replace(/\p{Surrogate}/gu, "\ufffd")),
  trailers
})

/** As they are sent. Trailers that do not fit beside them would break off the connection, with every call on it. */
const longestDetails = 12_000

const shortened = (details: string): string => {
  // No character is longer than nine when it is percent-encoded.
  if (details.length * 9 <= longestDetails) return details
  let sent = 0
  let at = 0
  for (const character of details) {
    sent += encodeURI(character).length
    if (sent > longestDetails) return `${details.slice(0, at)}…`
    at += character.length
  }
  return details
}

const ok: Outgoing = { code: Code.OK, details: "OK", trailers: undefined }

export const okWith = (trailers: Metadata | undefined): Outgoing =>
  trailers === undefined ? ok : { ...ok, trailers }

/** A reason as it begins the details of a status. */
export const sentenceOf = (reason: CancelReason): string => {
  const text = describe(reason)
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`
}

/** A reason as the details of the status that answers its call. */
export const detailsOf = (reason: CancelReason): string => {
  switch (reason._tag) {
    case "Deadline":
      return "Deadline exceeded"
    case "Shutdown":
      return "The server is shutting down"
    case "LimitExceeded":
      return sentenceOf(reason)
    default:
      return describe(reason)
  }
}

/** A failure that says its status: a `GrpcError`, or an error in the shape of grpc-js's own. */
export const spoken = (error: unknown): GrpcError | undefined => {
  if (error instanceof GrpcError) return error
  if (typeof error !== "object" || error === null) return undefined
  const { code, details, metadata } = error as Partial<GrpcError>
  return Number.isInteger(code) && typeof details === "string"
    ? new GrpcError({ code: code as number, details, metadata })
    : undefined
}

const cannotSend = "The trailers of the answer cannot be sent"

const defect = ({ detail }: BadMetadata): Cause.Cause<never> =>
  Cause.die(new Error(`${detail}; the trailers of a status cannot be sent with it.`))

export const statusOfError = (error: GrpcError, trailers: Metadata | undefined): Told => {
  const own = error.metadata === undefined ? undefined : checked(error.metadata)
  if (own instanceof BadMetadata) {
    return {
      status: outgoing(Code.INTERNAL, cannotSend),
      unforeseen: defect(own)
    }
  }
  if (own !== undefined && trailers !== undefined) {
    own.merge(trailers)
    const merged = checked(own)
    if (merged instanceof BadMetadata)
      return { status: outgoing(Code.INTERNAL, cannotSend), unforeseen: defect(merged) }
  }
  const details = error.code === Code.OK ? `A failure cannot be OK: ${error.details}` : error.details
  return { status: outgoing(error.code, details, own ?? trailers), unforeseen: undefined }
}

const failed = (trailers: Metadata | undefined): Outgoing =>
  outgoing(Code.UNKNOWN, "The handler failed", trailers)

/** The status of what a handler failed with. */
export const statusOfCause = (
  cause: Cause.Cause<unknown>,
  trailers: Metadata | undefined,
  mapError: ((error: unknown) => GrpcError | undefined) | undefined
): Told => {
  const failure = failureOf(cause)
  if (failure === undefined) {
    return {
      status: outgoing(foreignInterrupt.grpc, "The handler was interrupted from elsewhere"),
      unforeseen: cause
    }
  }
  // A defect beside a failure is the worse news.
  if (!Cause.hasDies(failure)) {
    const error = Cause.squash(failure)
    try {
      const said = spoken(error) ?? mapError?.(error)
      if (said !== undefined) return statusOfError(said, trailers)
    } catch (thrown) {
      // The error itself may throw when it is looked at, and so may `mapError`. (`Cause.combine` would compare it.)
      const both = Cause.fromReasons([...failure.reasons, ...Cause.die(thrown).reasons])
      return { status: failed(trailers), unforeseen: both }
    }
  }
  return { status: failed(trailers), unforeseen: failure }
}
