/**
 * From the wire's `Metadata` message to grpc-js `Metadata`.
 *
 * Calls repeat themselves: the same keys, and most of the same values, as the call before. What was there before is
 * recognized by its bytes, and is neither made nor checked again.
 *
 * **Invariants**
 * 1. What comes from the wire is exactly what grpc-js would have let into a `Metadata`: its own check is asked once for
 *    a key, and for every value that is not plain text.
 * 2. Never throws: what cannot be read, or what grpc-js would not take, is a `MetadataProblem`.
 * 3. What is kept of the peers is bounded: so many keys, and of each its last value, all of them short. Whether a value is
 *    the one that is kept takes the same time for all values of its length.
 * 4. The bytes are copied: nothing that comes out is a view of them.
 */
import { Metadata } from "@grpc/grpc-js"
import { noBytes } from "./frame.ts"
import { MetadataProblem } from "./metadata.ts"
import { Reader, Truncated } from "./varint.ts"

/** A key as it came, and what grpc-js makes of it. */
interface KnownKey {
  readonly key: string
  readonly name: string
  readonly binary: boolean
  /** Its last value. */
  last: string
}

const knownKeys = new Map<string, KnownKey>()
const maxKnownKeys = 1024

/** The known keys again, by their bytes. */
const slots: Array<KnownKey | undefined> = new Array(256).fill(undefined)

/** Longer keys and longer values are not kept. */
const longestKept = 64

/** Raises grpc-js' own complaint about a key that is not legal. */
const knownKey = (key: string): KnownKey => {
  const known = knownKeys.get(key)
  if (known !== undefined) return known
  const name = key.toLowerCase()
  const binary = name.endsWith("-bin")
  new Metadata().set(key, binary ? noBytes : "")
  const made = { key, name, binary, last: "" }
  if (key.length > longestKept) return made
  if (knownKeys.size >= maxKnownKeys) {
    knownKeys.clear()
    slots.fill(undefined)
  }
  knownKeys.set(key, made)
  return made
}

/** The key that the reader stands before. */
const readKey = (from: Reader): KnownKey | string => {
  const { slot } = from
  const likely = slots[slot]
  const key = from.latin1(likely === undefined ? "" : likely.key)
  if (likely !== undefined && likely.key === key) return likely
  // One that is not legal is only a problem where it has values.
  const known = knownKeys.get(key)
  if (known === undefined) return key
  slots[slot] = known
  return known
}

/** Metadata from the wire: what it is made of has been checked as grpc-js checks it, at the cost of its bytes. */
class WireMetadata extends Metadata {
  /** Adds the next value that the reader stands before. */
  put(known: KnownKey, from: Reader): void {
    const { name } = known
    const held = known.binary ? Buffer.from(from.slice()) : textOf(known, from)
    const values = this.internalRepr.get(name)
    if (values === undefined) this.internalRepr.set(name, [held])
    else values.push(held)
  }
}

const textOf = (known: KnownKey, from: Reader): string => {
  const { last } = known
  const text = from.latin1(last)
  if (text === last) return last
  check(known.name, text)
  if (text.length <= longestKept) known.last = text
  return text
}

/** What grpc-js lets into a value that is not binary goes from the space to the tilde. */
const check = (name: string, text: string): void => {
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code < 0x20 || code > 0x7e) new Metadata().set(name, text)
  }
}

/** One reader for all: decoding calls nobody who could decode meanwhile. */
const reader = new Reader(noBytes)
/** A second one, for the values of an entry, whose key may stand behind them. */
const valueReader = new Reader(noBytes)

/** Where the values of an entry stand. */
const starts: Array<number> = []
const ends: Array<number> = []

const addEntry = (into: WireMetadata, bytes: Buffer): void => {
  let key: KnownKey | string = ""
  let lists = 0
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x0a) key = readKey(reader)
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
      if (tag === 0x0a) {
        if (typeof key === "string") key = knownKey(key)
        into.put(key, valueReader)
      } else valueReader.skip(tag & 7)
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
