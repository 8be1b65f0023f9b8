/**
 * From grpc-js `Metadata` to the wire's `Metadata` message.
 *
 * The wire carries a `-bin` value as its bare bytes inside a protobuf string, without base64, so only bytes that
 * are valid UTF-8 survive every peer. Between two ends that agreed on `binary-metadata` the field holds any bytes; on
 * the wire a string and bytes look the same.
 *
 * **Invariants**
 * 1. Rule `metadata-utf8`: never throws, whatever a handler gives for metadata. What cannot be carried comes back as a
 *    `MetadataProblem`; it fails one call, not the tunnel.
 * 2. The order of keys and of the values of a key is kept, so decoded metadata encodes to the same bytes.
 * 3. The metadata stays as it is: a timeout goes out with it and does not get into it.
 */
import { isUtf8 } from "node:buffer"
import { isUint8Array } from "node:util/types"
import { Metadata } from "@grpc/grpc-js"
import { noBytes } from "./frame.ts"
import { timeoutKey } from "./timeout.ts"
import { sizeOfBytes, writeUint32 } from "./varint.ts"

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

const notValue = (name: string): string =>
  `The value of "${name}" is neither text nor a Buffer: leave the key out where there is nothing to send`

type Value = string | Buffer
type Fields = ReadonlyMap<string, ReadonlyArray<Value>>

/** What metadata holds, where it is: a list of it in an object would cost more than to write it. */
class Held extends Metadata {
  static in(metadata: Metadata): Fields {
    const held: unknown = (metadata as Held).internalRepr
    return held instanceof Map ? held : new Map(Object.entries(metadata.toJSON()))
  }
}

/** Of each key of the metadata that is being encoded: the bytes of its values, and of its entry. */
const inners: Array<number> = []
const sizes: Array<number> = []

/** A call into the engine costs more than short texts do. */
const shortText = 48

const notAscii = /[^\0-\x7f]/

const isAscii = (text: string): boolean => {
  if (text.length > shortText) return !notAscii.test(text)
  let all = 0
  for (let index = 0; index < text.length; index++) all |= text.charCodeAt(index)
  return all < 0x80
}

/** Whether every peer takes the value. What grpc-js lets into a string is ASCII. */
const travels = (value: Value): boolean =>
  typeof value === "string" ? isAscii(value) || isUtf8(Buffer.from(value, "latin1")) : isUtf8(value)

const writeHead = (into: Buffer, at: number, tag: number, length: number): number => {
  into[at] = tag
  return writeUint32(into, at + 1, length)
}

const writeText = (into: Buffer, start: number, text: string): number => {
  const { length } = text
  const at = writeHead(into, start, 0x0a, length)
  if (length > shortText) into.write(text, at, "latin1")
  else for (let index = 0; index < length; index++) into[at + index] = text.charCodeAt(index)
  return at + length
}

const writeValue = (into: Buffer, start: number, value: Value): number => {
  if (typeof value === "string") return writeText(into, start, value)
  const at = writeHead(into, start, 0x0a, value.length)
  into.set(value, at)
  return at + value.length
}

/** Encodes metadata as the wire's `Metadata` message; with a timeout, which then is the only one. */
export const metadataToWire = (
  metadata: Metadata,
  anyBytes = false,
  timeout?: string
): Buffer | MetadataProblem => {
  const fields = Held.in(metadata)
  let total = 0
  let index = 0
  for (const [name, values] of fields) {
    let inner = 0
    for (const value of values) {
      // grpc-js lets `undefined` and `null` in, and what its regular expression takes for text.
      if (typeof value !== "string" && !isUint8Array(value)) return new MetadataProblem(notValue(name))
      if (!anyBytes && !travels(value)) return new MetadataProblem(notUtf8(name))
      inner += sizeOfBytes(value.length)
    }
    inners[index] = inner
    const size = sizeOfBytes(name.length) + sizeOfBytes(inner)
    sizes[index++] = size
    if (timeout === undefined || name !== timeoutKey) total += sizeOfBytes(size)
  }
  const ofTimeout = timeout === undefined ? 0 : sizeOfBytes(timeout.length)
  const sizeOfTimeout = timeout === undefined ? 0 : sizeOfBytes(timeoutKey.length) + sizeOfBytes(ofTimeout)
  if (timeout !== undefined) total += sizeOfBytes(sizeOfTimeout)
  if (total === 0) return noBytes
  const into = Buffer.allocUnsafe(total)
  let at = 0
  index = 0
  for (const [name, values] of fields) {
    const entry = index++
    if (timeout !== undefined && name === timeoutKey) continue
    at = writeEntry(into, at, name, sizes[entry] as number, inners[entry] as number)
    for (const value of values) at = writeValue(into, at, value)
  }
  if (timeout !== undefined)
    writeText(into, writeEntry(into, at, timeoutKey, sizeOfTimeout, ofTimeout), timeout)
  return into
}

/** An entry up to its values. */
const writeEntry = (into: Buffer, start: number, name: string, size: number, inner: number): number => {
  const at = writeText(into, writeHead(into, start, 0x0a, size), name)
  return writeHead(into, at, 0x12, inner)
}
