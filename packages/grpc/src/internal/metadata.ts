/**
 * Metadata as both ends are given it.
 *
 * Invariants
 * 1. What was given is never changed: what comes out is a copy.
 * 2. `Metadata` is known by what it can do: a process may hold several copies of grpc-js, a stub's own for instance.
 */
import { Metadata } from "@grpc/grpc-js"

type Value = string | Uint8Array

/** Metadata of grpc-js, or a record of the same. */
export type MetadataInput = Metadata | Readonly<Record<string, Value | ReadonlyArray<Value>>>

/** A copy. Throws what grpc-js throws at keys and values that are not legal. */
export const copyUnsafe = (input: MetadataInput): Metadata =>
  isMetadata(input) ? input.clone() : addUnsafe(new Metadata(), input)

/** Adds the values of the second to the first, which the caller owns. Throws as `copyUnsafe` does. */
export const addUnsafe = (metadata: Metadata, input: MetadataInput): Metadata => {
  if (isMetadata(input)) {
    // Merged values are shared between the two otherwise.
    metadata.merge(input.clone())
    metadata.setOptions({ ...metadata.getOptions(), ...input.getOptions() })
    return metadata
  }
  for (const key of Object.keys(input)) {
    const values = input[key] as Value | ReadonlyArray<Value>
    if (typeof values === "string") metadata.add(key, values)
    else for (const value of isValue(values) ? [values] : values) metadata.add(key, written(value))
  }
  return metadata
}

const written = (value: Value): string | Buffer =>
  typeof value === "string" || Buffer.isBuffer(value) ? value : Buffer.from(value)

const isValue = (values: Value | ReadonlyArray<Value>): values is Value => !Array.isArray(values)

const isMetadata = (input: MetadataInput): input is Metadata =>
  input instanceof Metadata ||
  (typeof input["clone"] === "function" && typeof input["toHttp2Headers"] === "function")
