/**
 * The metadata that a call starts with.
 *
 * Invariants
 * 1. Illegal metadata, and more of it than a connection carries, is a typed error before anything is sent, never an
 *    exception.
 * 2. The trace context is that of the call's own span, whatever the caller copied in; where there is no real span,
 *    the caller's stays.
 */
import { Metadata } from "@grpc/grpc-js"
import type * as Tracer from "effect/Tracer"
import { GrpcError } from "../../GrpcError.ts"
import { fieldLength } from "../../HeaderFields.ts"
import { addUnsafe, copyUnsafe, fieldsOf, type MetadataInput } from "../metadata.ts"

/**
 * Node breaks off the whole connection at a block of more than 65,536 bytes, with every call on it. What the transport
 * adds to a block stands in the rest.
 */
const largest = 60_000

const sentLength = (metadata: Metadata): number => {
  let sent = 0
  for (const [key, values] of fieldsOf(metadata)) {
    for (const value of values) sent += fieldLength(key, value)
  }
  return sent
}

const traceParent = (span: Tracer.Span): string | undefined =>
  /^[0-9a-f]{32}$/.test(span.traceId) && /^[0-9a-f]{16}$/.test(span.spanId)
    ? `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`
    : undefined

export const callMetadata = (
  usual: MetadataInput | undefined,
  given: MetadataInput | undefined,
  span: Tracer.Span | undefined,
  waitForReady: boolean | undefined,
  method: string
): Metadata | GrpcError => {
  let metadata: Metadata
  try {
    const first = given === undefined ? usual : (usual ?? given)
    metadata = first === undefined ? new Metadata() : copyUnsafe(first)
    if (usual !== undefined && given !== undefined) addUnsafe(metadata, given)
  } catch (error) {
    return GrpcError.make(
      "INVALID_ARGUMENT",
      `The metadata of the call is not legal (${error instanceof Error ? error.message : String(error)}): use lower-case ` +
        "keys, text as values, and bytes only below keys that end in -bin.",
      { method }
    )
  }
  if ((usual ?? given) !== undefined && sentLength(metadata) > largest) {
    return GrpcError.make(
      "INVALID_ARGUMENT",
      `The metadata of the call is larger than ${largest} bytes, which a connection need not carry: send less of it, or send it in a message.`,
      { method }
    )
  }
  const parent = span && traceParent(span)
  if (parent !== undefined) metadata.set("traceparent", parent)
  if (waitForReady !== undefined) metadata.setOptions({ ...metadata.getOptions(), waitForReady })
  return metadata
}
