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
 * 3. What comes from the wire is exactly what grpc-js would have let into a `Metadata`: its own check is asked once for
 *    a key, and for every value that is not plain text.
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

/** Of each key of the metadata that is being encoded: the bytes of its values, and of its entry. */
const inners: Array<number> = []
const sizes: Array<number> = []

const notAscii = /[^\0-\x7f]/

/** Whether every peer takes the value. What grpc-js lets into a string is ASCII. */
const travels = (value: string | Buffer): boolean =>
  typeof value === "string" ? !notAscii.test(value) || isUtf8(Buffer.from(value, "latin1")) : isUtf8(value)

const writeHead = (into: Buffer, at: number, tag: number, length: number): number => {
  into[at] = tag
  return writeUint32(into, at + 1, length)
}

/** Short texts are written here: a call into the engine costs more than they do. */
const shortText = 48

const writeText = (into: Buffer, start: number, text: string): number => {
  const { length } = text
  const at = writeHead(into, start, 0x0a, length)
  if (length > shortText) into.write(text, at, "latin1")
  else for (let index = 0; index < length; index++) into[at + index] = text.charCodeAt(index)
  return at + length
}

const writeValue = (into: Buffer, start: number, value: string | Buffer): number => {
  if (typeof value === "string") return writeText(into, start, value)
  const at = writeHead(into, start, 0x0a, value.length)
  into.set(value, at)
  return at + value.length
}

/** Encodes metadata as the wire's `Metadata` message; with a timeout, which then stands in it and nowhere else. */
export const metadataToWire = (
  metadata: Metadata,
  anyBytes = false,
  timeout?: string
): Buffer | MetadataProblem => {
  // A list of the keys of its own: the metadata stays as it is.
  const contents = metadata.toJSON()
  if (timeout !== undefined) contents[timeoutKey] = [timeout]
  const names = Object.keys(contents)
  let total = 0
  for (let index = 0; index < names.length; index++) {
    const name = names[index] as string
    const values = contents[name] ?? []
    let inner = 0
    for (const value of values) {
      if (!anyBytes && !travels(value)) return new MetadataProblem(notUtf8(name))
      inner += sizeOfBytes(value.length)
    }
    inners[index] = inner
    const size = sizeOfBytes(name.length) + sizeOfBytes(inner)
    sizes[index] = size
    total += sizeOfBytes(size)
  }
  if (total === 0) return noBytes
  const into = Buffer.allocUnsafe(total)
  let at = 0
  for (let index = 0; index < names.length; index++) {
    const name = names[index] as string
    at = writeHead(into, at, 0x0a, sizes[index] as number)
    at = writeText(into, at, name)
    at = writeHead(into, at, 0x12, inners[index] as number)
    for (const value of contents[name] ?? []) at = writeValue(into, at, value)
  }
  return into
}

/** A key as it came, and what grpc-js makes of it. */
interface KnownKey {
  readonly name: string
  readonly binary: boolean
}

/** Keys repeat from call to call, so what grpc-js thinks of one is asked once. Bounded, as a peer may send any. */
const knownKeys = new Map<string, KnownKey>()
const maxKnownKeys = 1024

/** Raises grpc-js' own complaint about a key that is not legal. */
const knownKey = (key: string): KnownKey => {
  const known = knownKeys.get(key)
  if (known !== undefined) return known
  const binary = key.toLowerCase().endsWith("-bin")
  const probe = new Metadata()
  probe.set(key, binary ? noBytes : "")
  const made = { name: Object.keys(probe.toJSON())[0] ?? key, binary }
  if (knownKeys.size >= maxKnownKeys) knownKeys.clear()
  knownKeys.set(key, made)
  return made
}

/** Metadata from the wire: what it is made of has been checked as grpc-js checks it, at the cost of its bytes. */
class WireMetadata extends Metadata {
  /** Adds the next value that the reader stands before. */
  put({ binary, name }: KnownKey, from: Reader): void {
    const held = binary ? Buffer.from(from.slice()) : checked(name, from.latin1())
    const values = this.internalRepr.get(name)
    if (values === undefined) this.internalRepr.set(name, [held])
    else values.push(held)
  }
}

/** What grpc-js lets into a value that is not binary goes from the space to the tilde. */
const checked = (name: string, text: string): string => {
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code < 0x20 || code > 0x7e) new Metadata().set(name, text)
  }
  return text
}

/** One reader for all: decoding calls nobody who could decode meanwhile. */
const reader = new Reader(noBytes)
/** A second one, for the values of an entry, whose key may stand behind them. */
const valueReader = new Reader(noBytes)

/** Where the values of an entry stand. */
const starts: Array<number> = []
const ends: Array<number> = []

const addEntry = (into: WireMetadata, bytes: Buffer): void => {
  let key = ""
  let lists = 0
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x0a) key = reader.latin1()
    else if (tag === 0x12) {
      const end = reader.field()
      starts[lists] = reader.position
      ends[lists++] = end
      reader.position = end
    } else reader.skip(tag & 7)
  }
  for (let list = 0; list < lists; list++) {
    valueReader.over(bytes, starts[list], ends[list])
    while (!valueReader.done) {
      const tag = valueReader.uint32()
      if (tag === 0x0a) into.put(knownKey(key), valueReader)
      else valueReader.skip(tag & 7)
    }
  }
}

/** Decodes the wire's `Metadata` message; the bytes are copied. */
export const metadataFromWire = (bytes: Buffer): Metadata | MetadataProblem => {
  const metadata = new WireMetadata()
  if (bytes.length === 0) return metadata
  try {
    reader.over(bytes)
    while (!reader.done) {
      const tag = reader.uint32()
      if (tag === 0x0a) {
        const outer = reader.enter()
        addEntry(metadata, bytes)
        reader.leave(outer)
      } else reader.skip(tag & 7)
    }
    return metadata
  } catch (error) {
    if (error instanceof Truncated) return new MetadataProblem(`The metadata is malformed: ${error.message}`)
    return new MetadataProblem(error instanceof Error ? error.message : "The metadata is malformed")
  }
}
