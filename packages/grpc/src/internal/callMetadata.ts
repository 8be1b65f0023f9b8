/**
 * The metadata that a call starts with.
 *
 * Invariants
 * 1. What the caller gave is never changed: every call has a copy.
 * 2. Illegal metadata is a typed error before anything is sent, never an exception.
 * 3. The trace context is that of the call's own span, whatever the caller copied in; where there is no real span,
 *    the caller's stays.
 */
import { Metadata } from "@grpc/grpc-js"
import type * as Tracer from "effect/Tracer"
import { GrpcError } from "../GrpcError.ts"

type Value = string | Uint8Array

/** Metadata of grpc-js, or a record of the same. */
export type MetadataInput = Metadata | Readonly<Record<string, Value | ReadonlyArray<Value>>>

const add = (into: Metadata, key: string, value: Value): void => {
  into.add(key, typeof value === "string" ? value : Buffer.from(value))
}

const toMetadata = (input: MetadataInput): Metadata => {
  if (input instanceof Metadata) return input.clone()
  // A `Metadata` of another copy of grpc-js, such as a stub's own.
  if (typeof input["toHttp2Headers"] === "function") return (input as unknown as Metadata).clone()
  const metadata = new Metadata()
  for (const [key, values] of Object.entries(input)) {
    if (typeof values === "string" || values instanceof Uint8Array) add(metadata, key, values)
    else for (const value of values) add(metadata, key, value)
  }
  return metadata
}

const traceParent = (span: Tracer.Span): string | undefined =>
  /^[0-9a-f]{32}$/.test(span.traceId) && /^[0-9a-f]{16}$/.test(span.spanId)
    ? `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`
    : undefined

export const callMetadata = (
  inputs: ReadonlyArray<MetadataInput | undefined>,
  span: Tracer.Span,
  waitForReady: boolean | undefined,
  method: string
): Metadata | GrpcError => {
  const metadata = new Metadata()
  try {
    for (const input of inputs) {
      if (input === undefined) continue
      const own = toMetadata(input)
      metadata.merge(own)
      metadata.setOptions({ ...metadata.getOptions(), ...own.getOptions() })
    }
  } catch (error) {
    return GrpcError.make(
      "INVALID_ARGUMENT",
      `The metadata of the call is not legal (${error instanceof Error ? error.message : String(error)}): use lower-case ` +
        "keys, text as values, and bytes only below keys that end in -bin.",
      { method }
    )
  }
  const parent = traceParent(span)
  if (parent !== undefined) metadata.set("traceparent", parent)
  if (waitForReady !== undefined) metadata.setOptions({ ...metadata.getOptions(), waitForReady })
  return metadata
}
