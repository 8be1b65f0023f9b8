/**
 * The status that answers a call.
 *
 * Invariants
 * 1. Every exit of a handler has exactly one status, and none of them is OK by mistake.
 * 2. What a handler did not say for its peer's ears is not told: an unforeseen failure is UNKNOWN, without its text.
 * 3. Code, details and trailers are such that the transport can write them.
 */
import { foreignInterrupt } from "@curfew/request"
import { failureOf } from "@curfew/scope"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import { GrpcError } from "../GrpcError.ts"
import { BadMetadata, checked } from "./serverMetadata.ts"

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
  details: details.replace(/\p{Surrogate}/gu, "\ufffd"),
  trailers
})

const ok: Outgoing = { code: Code.OK, details: "OK", trailers: undefined }

export const okWith = (trailers: Metadata | undefined): Outgoing =>
  trailers === undefined ? ok : { ...ok, trailers }

/** A failure that says its status: a `GrpcError`, or an error in the shape of grpc-js's own. */
export const spoken = (error: unknown): GrpcError | undefined => {
  if (error instanceof GrpcError) return error
  if (typeof error !== "object" || error === null) return undefined
  const { code, details, metadata } = error as Partial<GrpcError>
  return Number.isInteger(code) && typeof details === "string"
    ? new GrpcError({ code: code as number, details, metadata })
    : undefined
}

export const statusOfError = (error: GrpcError, trailers: Metadata | undefined): Told => {
  const own = error.metadata === undefined ? undefined : checked(error.metadata)
  if (own instanceof BadMetadata) {
    return {
      status: outgoing(Code.INTERNAL, "The trailers of the answer cannot be sent"),
      unforeseen: Cause.die(new Error(`${own.detail}; the trailers of a status cannot be sent with it.`))
    }
  }
  if (own !== undefined && trailers !== undefined) own.merge(trailers)
  const details = error.code === Code.OK ? `A failure cannot be OK: ${error.details}` : error.details
  return { status: outgoing(error.code, details, own ?? trailers), unforeseen: undefined }
}

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
    const said = spoken(error) ?? mapError?.(error)
    if (said !== undefined) return statusOfError(said, trailers)
  }
  return { status: outgoing(Code.UNKNOWN, "The handler failed", trailers), unforeseen: failure }
}
