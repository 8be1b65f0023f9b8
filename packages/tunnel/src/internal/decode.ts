/**
 * Bytes to frames.
 *
 * **Invariants**
 * 1. Never throws: bytes that are not a frame become `Malformed`, with the id when it could be read.
 * 2. Copies nothing: byte fields are views.
 * 3. Of several members of the union the last on the wire counts; fields that are not known are skipped.
 */
import {
  type ClientFrame,
  drainTag,
  type Malformed,
  type NewStream,
  noBytes,
  type ServerFrame,
  type Settings
} from "./frame.ts"
import { Reader, Truncated } from "./varint.ts"

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The text of a `string` field; bytes that are not UTF-8 raise `Truncated`. */
export const utf8Of = (bytes: Buffer): string => {
  const text = bytes.toString("latin1")
  for (let index = 0; index < text.length; index++) {
    if (text.charCodeAt(index) < 0x80) continue
    try {
      return utf8.decode(bytes)
    } catch {
      throw new Truncated("a string is not UTF-8")
    }
  }
  return text
}

/** One reader for all: decoding calls nobody who could decode meanwhile. */
const reader = new Reader(noBytes)

const newStream = (id: number): NewStream => {
  let method = ""
  let headers: Buffer | undefined
  let window = 0
  let revision = 0
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x0a) method = utf8Of(reader.slice())
    else if (tag === 0x12) headers = reader.slice()
    else if (tag === 0x18) window = reader.uint32()
    else if (tag === 0x20) revision = reader.int32()
    else reader.skip(tag & 7)
  }
  return { _tag: "NewStream", id, method, headers, window, revision }
}

const message = (id: number): ClientFrame & ServerFrame => {
  let size = 0
  let data = noBytes
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x08) size = reader.uint32()
    else if (tag === 0x12) data = reader.slice()
    else reader.skip(tag & 7)
  }
  return { _tag: "Message", id, size, data }
}

const closeStream = (id: number): ServerFrame => {
  let trailers: Buffer | undefined
  let status: Buffer | undefined
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x0a) trailers = reader.slice()
    else if (tag === 0x12) status = reader.slice()
    else reader.skip(tag & 7)
  }
  return { _tag: "CloseStream", id, trailers, status }
}

const settings = (id: number): Settings => {
  const revisions: Array<number> = []
  let window = 0
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x08) revisions.push(reader.int32())
    else if (tag === 0x0a) {
      const outer = reader.enter()
      while (!reader.done) revisions.push(reader.int32())
      reader.leave(outer)
    } else if (tag === 0x10) window = reader.uint32()
    else reader.skip(tag & 7)
  }
  return { _tag: "Settings", id, revisions, window }
}

const checkEmpty = (): void => {
  while (!reader.done) reader.skip(reader.uint32() & 7)
}

/** The last field 1 of a message that knows no fields. */
const lastBytes = (): Buffer | undefined => {
  let found: Buffer | undefined
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x0a) found = reader.slice()
    else reader.skip(tag & 7)
  }
  return found
}

/** Where the member of the union stands that is being decoded, and what it is. */
const member = { field: 0, start: 0, end: 0, number: 0, drain: false }

/**
 * The shape both directions share: an id and one member of a union. The member is decoded last, because a
 * field order other than the usual one is legal.
 */
const decodeWith = <F>(
  bytes: Buffer,
  start: number,
  end: number,
  build: (id: number) => F
): F | Malformed => {
  let id: number | undefined = 0
  let seenId = false
  member.field = 0
  member.drain = false
  try {
    reader.over(bytes, start, end)
    while (!reader.done) {
      const tag = reader.uint32()
      const field = tag >>> 3
      const wireType = tag & 7
      if (tag === 0x08) {
        id = reader.int64()
        if (id === undefined)
          return { _tag: "Malformed", id: undefined, detail: "the stream id is too large" }
        seenId = true
      } else if (field >= 2 && field <= 6 && wireType === 2) {
        member.field = field
        member.end = reader.field()
        member.start = reader.position
        reader.position = member.end
      } else if (tag === 0x38) {
        member.field = 7
        member.number = reader.uint32()
      } else if (tag === drainTag) {
        // What is in it is left for later versions to say.
        reader.position = reader.field()
        member.drain = true
      } else reader.skip(wireType)
    }
    if (member.field >= 2 && member.field <= 6) reader.over(bytes, member.start, member.end)
    return build(id)
  } catch (error) {
    if (!(error instanceof Truncated)) throw error
    return { _tag: "Malformed", id: seenId ? id : undefined, detail: error.message }
  }
}

const clientMember = (id: number): ClientFrame => {
  switch (member.field) {
    case 2:
      return newStream(id)
    case 3:
      return message(id)
    case 4:
      return { _tag: "MoreData", id, data: reader.rest() }
    case 5:
      checkEmpty()
      return { _tag: "HalfClose", id }
    case 6:
      return { _tag: "Cancel", id, reason: lastBytes() }
    case 7:
      return { _tag: "WindowUpdate", id, increment: member.number }
    default:
      return { _tag: member.drain ? "Drain" : "Unset", id }
  }
}

const serverMember = (id: number): ServerFrame => {
  switch (member.field) {
    case 2:
      return { _tag: "ResponseHeaders", id, headers: reader.rest() }
    case 3:
      return message(id)
    case 4:
      return { _tag: "MoreData", id, data: reader.rest() }
    case 5:
      return closeStream(id)
    case 6:
      return settings(id)
    case 7:
      return { _tag: "WindowUpdate", id, increment: member.number }
    default:
      return { _tag: member.drain ? "Drain" : "Unset", id }
  }
}

/** Decodes what a tunnel client sent, from a part of some bytes. */
export const decodeClientPart = (bytes: Buffer, start: number, end: number): ClientFrame | Malformed =>
  decodeWith(bytes, start, end, clientMember)

/** Decodes what a tunnel server sent, from a part of some bytes. */
export const decodeServerPart = (bytes: Buffer, start: number, end: number): ServerFrame | Malformed =>
  decodeWith(bytes, start, end, serverMember)

/** Decodes what a tunnel client sent. */
export const decodeClientFrame = (bytes: Buffer): ClientFrame | Malformed =>
  decodeClientPart(bytes, 0, bytes.length)

/** Decodes what a tunnel server sent. */
export const decodeServerFrame = (bytes: Buffer): ServerFrame | Malformed =>
  decodeServerPart(bytes, 0, bytes.length)
