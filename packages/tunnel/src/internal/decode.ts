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

const newStreamOf = (id: number, bytes: Buffer): NewStream => {
  const reader = new Reader(bytes)
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

const messageOf = (id: number, bytes: Buffer): ClientFrame & ServerFrame => {
  const reader = new Reader(bytes)
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

const closeStreamOf = (id: number, bytes: Buffer): ServerFrame => {
  const reader = new Reader(bytes)
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

const settingsOf = (id: number, bytes: Buffer): Settings => {
  const reader = new Reader(bytes)
  const revisions: Array<number> = []
  let window = 0
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x08) revisions.push(reader.int32())
    else if (tag === 0x0a) {
      const packed = new Reader(reader.slice())
      while (!packed.done) revisions.push(packed.int32())
    } else if (tag === 0x10) window = reader.uint32()
    else reader.skip(tag & 7)
  }
  return { _tag: "Settings", id, revisions, window }
}

const checkEmpty = (bytes: Buffer): void => {
  const reader = new Reader(bytes)
  while (!reader.done) reader.skip(reader.uint32() & 7)
}

/** The last field 1 of a message that knows no fields. */
const lastBytes = (bytes: Buffer): Buffer | undefined => {
  const reader = new Reader(bytes)
  let found: Buffer | undefined
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x0a) found = reader.slice()
    else reader.skip(tag & 7)
  }
  return found
}

type Member = { field: number; bytes: Buffer; number: number; drain: boolean }

/**
 * The shape both directions share: an id and one member of a union. The member is decoded last, because a
 * field order other than the usual one is legal.
 */
const decodeWith = <F>(bytes: Buffer, build: (id: number, member: Member) => F): F | Malformed => {
  let id: number | undefined = 0
  let seenId = false
  try {
    const reader = new Reader(bytes)
    const member: Member = { field: 0, bytes: noBytes, number: 0, drain: false }
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
        member.bytes = reader.slice()
      } else if (tag === 0x38) {
        member.field = 7
        member.number = reader.uint32()
      } else if (tag === drainTag) {
        // What is in it is left for later versions to say.
        reader.slice()
        member.drain = true
      } else reader.skip(wireType)
    }
    return build(id, member)
  } catch (error) {
    if (!(error instanceof Truncated)) throw error
    return { _tag: "Malformed", id: seenId ? id : undefined, detail: error.message }
  }
}

const clientMember = (id: number, { bytes, drain, field, number }: Member): ClientFrame => {
  switch (field) {
    case 2:
      return newStreamOf(id, bytes)
    case 3:
      return messageOf(id, bytes)
    case 4:
      return { _tag: "MoreData", id, data: bytes }
    case 5:
      checkEmpty(bytes)
      return { _tag: "HalfClose", id }
    case 6:
      return { _tag: "Cancel", id, reason: lastBytes(bytes) }
    case 7:
      return { _tag: "WindowUpdate", id, increment: number }
    default:
      return { _tag: drain ? "Drain" : "Unset", id }
  }
}

const serverMember = (id: number, { bytes, drain, field, number }: Member): ServerFrame => {
  switch (field) {
    case 2:
      return { _tag: "ResponseHeaders", id, headers: bytes }
    case 3:
      return messageOf(id, bytes)
    case 4:
      return { _tag: "MoreData", id, data: bytes }
    case 5:
      return closeStreamOf(id, bytes)
    case 6:
      return settingsOf(id, bytes)
    case 7:
      return { _tag: "WindowUpdate", id, increment: number }
    default:
      return { _tag: drain ? "Drain" : "Unset", id }
  }
}

/** Decodes what a tunnel client sent. */
export const decodeClientFrame = (bytes: Buffer): ClientFrame | Malformed => decodeWith(bytes, clientMember)

/** Decodes what a tunnel server sent. */
export const decodeServerFrame = (bytes: Buffer): ServerFrame | Malformed => decodeWith(bytes, serverMember)
