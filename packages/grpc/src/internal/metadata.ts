/**
 * Metadata as both ends are given it.
 *
 * Invariants
 * 1. What was given is never changed: what comes out is a copy.
 * 2. `Metadata` is known by what it can do: a process may hold several copies of grpc-js, a stub's own for instance.
 * 3. What is let into a copy is what grpc-js lets in: its own check is asked for a key that was not let in before, and for
 *    every value that is not short plain text.
 */
import { isUint8Array } from "node:util/types"
import { Metadata } from "@grpc/grpc-js"

type Value = string | Uint8Array
type Fields = ReadonlyMap<string, ReadonlyArray<string | Buffer>>

/** Keys that grpc-js has let in as they are, for text. Bounded: a program may make them up. */
const plainKeys = new Set<string>()
const maxPlainKeys = 1024

/** Longer text, and longer keys, are left to grpc-js. */
const shortText = 64

/** What grpc-js lets into a value that is not binary goes from the space to the tilde. */
const isPlain = (text: string): boolean => {
  const { length } = text
  if (length > shortText) return false
  for (let index = 0; index < length; index++) {
    const code = text.charCodeAt(index)
    if (code < 0x20 || code > 0x7e) return false
  }
  return true
}

/** Metadata of this module's own making. */
class Copy extends Metadata {
  static in(metadata: Metadata): Fields {
    const held: unknown = (metadata as Copy).internalRepr
    return held instanceof Map ? held : new Map(Object.entries(metadata.toJSON()))
  }

  override add(key: string, value: string | Buffer): void {
    if (typeof value !== "string" || !plainKeys.has(key) || !isPlain(value)) {
      super.add(key, value)
      if (typeof value === "string") notePlain(key)
      return
    }
    const values = this.internalRepr.get(key)
    if (values === undefined) this.internalRepr.set(key, [value])
    else values.push(value)
  }
}

const notePlain = (key: string): void => {
  if (key.length > shortText || key !== key.toLowerCase()) return
  if (plainKeys.size >= maxPlainKeys) plainKeys.clear()
  plainKeys.add(key)
}

/** What metadata holds, where it is; for looking only. */
export const fieldsOf = (metadata: Metadata): Fields => Copy.in(metadata)

/** Metadata of grpc-js, or a record of the same. */
export type MetadataInput = Metadata | Readonly<Record<string, Value | ReadonlyArray<Value>>>

/** A value that a program does not have gets into `Metadata` all the same: grpc-js looks at text and at buffers. */
const filled = (metadata: Metadata): Metadata => {
  for (const [key, values] of fieldsOf(metadata)) {
    for (const value of values) {
      if (typeof value !== "string" && !isUint8Array(value))
        throw new TypeError(`Metadata key "${key}" has a value that is neither text nor bytes`)
    }
  }
  return metadata
}

/** A copy. Throws what grpc-js throws at keys and values that are not legal. */
export const copyUnsafe = (input: MetadataInput): Metadata =>
  isMetadata(input) ? filled(input.clone()) : addUnsafe(new Copy(), input)

/** Adds the values of the second to the first, which the caller owns. Throws as `copyUnsafe` does. */
export const addUnsafe = (metadata: Metadata, input: MetadataInput): Metadata => {
  if (isMetadata(input)) {
    // Merged values are shared between the two otherwise.
    metadata.merge(filled(input.clone()))
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
