/**
 * Between grpc-js `Metadata` and the wire's `Metadata` message.
 *
 * The wire carries a `-bin` value as its bare bytes inside a protobuf string, without base64, so only bytes that
 * are valid UTF-8 survive every peer. Between two ends that agreed on `binary-metadata` the field holds any bytes; on
 * the wire a string and bytes look the same.
 *
 * **Invariants**
 * 1. Rule `metadata-utf8`: never throws, whatever a handler gives for metadata. What cannot be carried comes back as a
 *    `MetadataProblem`; it fails one call, not the tunnel.
 * 2. The order of keys and of the values of a key is kept, so decoded metadata encodes to the same bytes.
 */
import { isUtf8 } from "node:buffer"
import { Metadata } from "@grpc/grpc-js"
import { noBytes } from "./frame.ts"
import { timeoutKey } from "./timeout.ts"
import { Reader, sizeOfBytes, Truncated, writeUint32 } from "./varint.ts"

export class MetadataProblem {
  readonly detail: string
  constructor(detail: string) {
    this.detail = detail
  }
}

/** Told by what it can do: a process may hold several copies of grpc-js. */
export const isMetadata = (value: unknown): value is Metadata =>
  typeof value === "object" &&
  value !== null &&
  typeof (value as { getMap?: unknown }).getMap === "function" &&
  typeof (value as { clone?: unknown }).clone === "function"

const notUtf8 = (name: string): string =>
  `The value of "${name}" is not UTF-8, and the other end of the tunnel takes nothing else: send it as base64`

/** Encodes metadata as the wire's `Metadata` message; with a timeout, which then stands in it and nowhere else. */
export const metadataToWire = (
  metadata: Metadata,
  anyBytes = false,
  timeout?: string
): Buffer | MetadataProblem => {
  const entries: Array<{ key: Buffer; values: ReadonlyArray<Buffer>; inner: number; size: number }> = []
  let total = 0
  // A copy of the list of keys: the metadata stays as it is.
  const contents = metadata.toJSON()
  if (timeout !== undefined) contents[timeoutKey] = [timeout]
  for (const name of Object.keys(contents)) {
    const values: Array<Buffer> = []
    let inner = 0
    for (const value of contents[name] ?? []) {
      const bytes = typeof value === "string" ? Buffer.from(value, "latin1") : value
      if (!anyBytes && !isUtf8(bytes)) return new MetadataProblem(notUtf8(name))
      values.push(bytes)
      inner += sizeOfBytes(bytes.length)
    }
    const key = Buffer.from(name, "latin1")
    const size = sizeOfBytes(key.length) + sizeOfBytes(inner)
    entries.push({ key, values, inner, size })
    total += sizeOfBytes(size)
  }
  if (total === 0) return noBytes
  const into = Buffer.allocUnsafe(total)
  let at = 0
  const head = (tag: number, length: number): void => {
    into[at] = tag
    at = writeUint32(into, at + 1, length)
  }
  const write = (tag: number, bytes: Buffer): void => {
    head(tag, bytes.length)
    into.set(bytes, at)
    at += bytes.length
  }
  for (const { inner, key, size, values } of entries) {
    head(0x0a, size)
    write(0x0a, key)
    head(0x12, inner)
    for (const value of values) write(0x0a, value)
  }
  return into
}

const addEntry = (into: Metadata, bytes: Buffer): void => {
  const reader = new Reader(bytes)
  let key = ""
  const values: Array<Buffer> = []
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x0a) key = reader.slice().toString("latin1")
    else if (tag === 0x12) {
      const list = new Reader(reader.slice())
      while (!list.done) {
        const inner = list.uint32()
        if (inner === 0x0a) values.push(list.slice())
        else list.skip(inner & 7)
      }
    } else reader.skip(tag & 7)
  }
  const binary = key.toLowerCase().endsWith("-bin")
  for (const value of values) into.add(key, binary ? Buffer.from(value) : value.toString("latin1"))
}

/** Decodes the wire's `Metadata` message; the bytes are copied. */
export const metadataFromWire = (bytes: Buffer): Metadata | MetadataProblem => {
  const metadata = new Metadata()
  const reader = new Reader(bytes)
  try {
    while (!reader.done) {
      const tag = reader.uint32()
      if (tag === 0x0a) addEntry(metadata, reader.slice())
      else reader.skip(tag & 7)
    }
    return metadata
  } catch (error) {
    if (error instanceof Truncated) return new MetadataProblem(`The metadata is malformed: ${error.message}`)
    return new MetadataProblem(error instanceof Error ? error.message : "The metadata is malformed")
  }
}
