/**
 * Between a `CancelReason` and the bytes that travel inside a `cancel` (the extension `cancel-reason`).
 *
 * The protocol's cancel is an empty message. A reason stands in it as field 1, which every other reader skips:
 *
 * ```proto
 * message Reason {
 *   uint32 kind = 1;    // 1 ClientGone, 2 Deadline, 3 Shutdown, 4 SiblingFailed, 5 Unobserved, 6 LimitExceeded,
 *                       // 7 Superseded, 8 Requested, 9 Unknown
 *   string text = 2;    // ClientGone.detail, Deadline.scope, LimitExceeded.detail, Requested.message
 *   string word = 3;    // ClientGone.transport, Deadline.origin, Shutdown.phase, LimitExceeded.limit
 *   int64 number = 4;   // Deadline.at, Unobserved.lingered, both in milliseconds
 *   Reason because = 5; // ClientGone.because
 * }
 * ```
 *
 * **Invariants**
 * 1. Rule `reason-bounded`: what is written is at most `maxReason` bytes: long texts are cut, and reasons in reasons
 *    end at `maxDepth`.
 * 2. Reading never throws. What is longer, deeper, malformed or of an unknown kind is no reason at all; texts are
 *    UTF-8.
 * 3. The cause of a `SiblingFailed` stays at its end: it may say what is nobody's business here. That there was one
 *    travels.
 */
import { CancelReason } from "@curfew/reason"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import { utf8Of } from "./decode.ts"
import { Reader, sizeOfBytes, sizeOfInt64, Truncated, writeInt64, writeUint32 } from "./varint.ts"

/** The longest reason that is read or written. */
export const maxReason = 2048

/** How many reasons a reason may stand in. */
const maxDepth = 3

/** Bytes of one text. Four reasons with two texts each stay below `maxReason`. */
const maxText = 440
const maxWord = 24

const kinds: ReadonlyArray<CancelReason["_tag"]> = [
  "ClientGone",
  "Deadline",
  "Shutdown",
  "SiblingFailed",
  "Unobserved",
  "LimitExceeded",
  "Superseded",
  "Requested",
  "Unknown"
]

interface Fields {
  readonly text?: string | undefined
  readonly word?: string | undefined
  readonly number?: number | undefined
  readonly because?: CancelReason | undefined
}

const fieldsOf = (reason: CancelReason): Fields => {
  switch (reason._tag) {
    case "ClientGone":
      return { text: reason.detail, word: reason.transport, because: reason.because }
    case "Deadline":
      return { text: reason.scope, word: reason.origin, number: reason.at }
    case "Shutdown":
      return { word: reason.phase }
    case "Unobserved":
      return { number: Duration.toMillis(reason.lingered) }
    case "LimitExceeded":
      return { text: reason.detail, word: reason.limit }
    case "Requested":
      return { text: reason.message }
    case "SiblingFailed":
    case "Superseded":
    case "Unknown":
      return {}
  }
}

/** The bytes of a text, cut between two characters. */
const cut = (text: string, most: number): Buffer => {
  const bytes = Buffer.from(text)
  if (bytes.length <= most) return bytes
  let end = most
  while (((bytes[end] as number) & 0xc0) === 0x80) end--
  return bytes.subarray(0, end)
}

const bytesField = (tag: number, bytes: Buffer): Buffer => {
  const into = Buffer.allocUnsafe(sizeOfBytes(bytes.length))
  into[0] = tag
  into.set(bytes, writeUint32(into, 1, bytes.length))
  return into
}

const numberField = (tag: number, value: number): Buffer => {
  const into = Buffer.allocUnsafe(1 + sizeOfInt64(value))
  into[0] = tag
  writeInt64(into, 1, value)
  return into
}

/** Encodes a reason. */
export const reasonToWire = (reason: CancelReason, depth = 0): Buffer => {
  const { because, number, text, word } = fieldsOf(reason)
  const parts = [numberField(0x08, kinds.indexOf(reason._tag) + 1)]
  if (text !== undefined) parts.push(bytesField(0x12, cut(text, maxText)))
  if (word !== undefined) parts.push(bytesField(0x1a, cut(word, maxWord)))
  if (number !== undefined && Number.isSafeInteger(Math.round(number))) {
    parts.push(numberField(0x20, Math.round(number)))
  }
  if (because !== undefined && depth < maxDepth)
    parts.push(bytesField(0x2a, reasonToWire(because, depth + 1)))
  return Buffer.concat(parts)
}

const transports = ["http1", "http2", "ws", "grpc", "tunnel"] as const

const oneOf = <T extends string>(words: ReadonlyArray<T>, word: string | undefined): T | undefined =>
  words.find((known) => known === word)

const optional = <K extends string>(key: K, value: string | undefined): { readonly [P in K]?: string } =>
  value === undefined ? {} : ({ [key]: value } as { readonly [P in K]: string })

const fromFields = (kind: number, { because, number, text, word }: Fields): CancelReason | undefined => {
  switch (kinds[kind - 1]) {
    case "ClientGone": {
      const transport = oneOf(transports, word)
      if (transport === undefined) return undefined
      return CancelReason.ClientGone({ transport, ...optional("detail", text), ...(because && { because }) })
    }
    case "Deadline": {
      const origin = oneOf(["local", "remote"], word)
      if (origin === undefined || number === undefined) return undefined
      return CancelReason.Deadline({ at: number, origin, ...optional("scope", text) })
    }
    case "Shutdown": {
      const phase = oneOf(["drain", "force"], word)
      return phase && CancelReason.Shutdown({ phase })
    }
    case "SiblingFailed":
      return CancelReason.SiblingFailed({ cause: Cause.fail("a failure at the other end of a tunnel") })
    case "Unobserved":
      return number === undefined || number < 0
        ? undefined
        : CancelReason.Unobserved({ lingered: Duration.millis(number) })
    case "LimitExceeded":
      return word === undefined
        ? undefined
        : CancelReason.LimitExceeded({ limit: word, ...optional("detail", text) })
    case "Superseded":
      return CancelReason.Superseded()
    case "Requested":
      return text === undefined ? undefined : CancelReason.Requested({ message: text })
    case "Unknown":
      return CancelReason.Unknown()
    default:
      return undefined
  }
}

const read = (bytes: Buffer, depth: number): CancelReason | undefined => {
  if (depth > maxDepth) throw new Truncated("a reason is too deep")
  const reader = new Reader(bytes)
  let kind = 0
  const fields: { -readonly [K in keyof Fields]: Fields[K] } = {}
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x08) kind = reader.uint32()
    else if (tag === 0x12) fields.text = utf8Of(reader.slice())
    else if (tag === 0x1a) fields.word = utf8Of(reader.slice())
    else if (tag === 0x20) fields.number = reader.int64()
    else if (tag === 0x2a) fields.because = read(reader.slice(), depth + 1)
    else reader.skip(tag & 7)
  }
  return fromFields(kind, fields)
}

/** Decodes a reason; what is not one is `undefined`. */
export const reasonFromWire = (bytes: Buffer): CancelReason | undefined => {
  if (bytes.length > maxReason) return undefined
  try {
    return read(bytes, 0)
  } catch (error) {
    if (!(error instanceof Truncated)) throw error
    return undefined
  }
}
