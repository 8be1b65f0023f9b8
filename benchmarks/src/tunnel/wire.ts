/**
 * What both ends of a measured call agree on, and check: the same for every way that the call may go.
 *
 * Invariants:
 * 1. A call carries three entries of metadata, one of them its own, and a deadline; its answer has three headers, one of
 *    them the call's own. Both ends look at what they were sent, and a call that lacks any of it has failed.
 * 2. A payload has its number at both ends, so that none can be lost, doubled, cut off or taken for another.
 */
import type { Metadata } from "@grpc/grpc-js"

export const unaryBytes = 100

/** How long a call may take: long enough never to pass, so that its cost is in every figure and its effect in none. */
export const deadlineMillis = 20_000

/** `bytes value = 1` of fewer than 128 bytes, as protobuf has it: what the Go library can carry. */
const protobuf = {
  encode: (value: Buffer): Buffer => {
    if (value.length > 127)
      throw new Error(`A wrapped payload has ${value.length} bytes; at most 127 fit one length byte.`)
    const encoded = Buffer.allocUnsafe(value.length + 2)
    encoded[0] = 0x0a
    encoded[1] = value.length
    value.copy(encoded, 2)
    return encoded
  },
  decode: (encoded: Buffer): Buffer => {
    if (encoded[0] !== 0x0a || encoded[1] !== encoded.length - 2)
      throw new Error(`${encoded.length} bytes are no wrapped payload.`)
    return encoded.subarray(2)
  }
}

const identity = (bytes: Buffer): Buffer => bytes
const plain = {
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity
}
const wrapped = {
  requestSerialize: protobuf.encode,
  requestDeserialize: protobuf.decode,
  responseSerialize: protobuf.encode,
  responseDeserialize: protobuf.decode
}

const unary = { requestStream: false, responseStream: false } as const

export const definition = {
  /** Gives its request back. */
  Echo: { path: "/curfew.bench.Bench/Echo", ...unary, ...plain },
  /** The same, with messages that Go can carry. */
  EchoWrapped: { path: "/curfew.bench.Bench/EchoWrapped", ...unary, ...wrapped },
  /** Streams what an {@link Order} asks for. */
  Download: { path: "/curfew.bench.Bench/Download", requestStream: false, responseStream: true, ...plain },
  /** Takes a stream, and answers with how many messages and bytes it had. */
  Upload: { path: "/curfew.bench.Bench/Upload", requestStream: true, responseStream: false, ...plain },
  /** Holds what the call's scope lets go of, and never answers. */
  Hold: { path: "/curfew.bench.Bench/Hold", ...unary, ...plain },
  /** Answers once the `Hold` with the same number has been let go of. */
  Released: { path: "/curfew.bench.Bench/Released", ...unary, ...plain }
} as const

/** What a download has: `count` messages of `size` bytes, one every `everyMillis`, or as fast as they are taken. */
export interface Order {
  readonly size: number
  readonly count: number
  readonly everyMillis: number
}

export const encodeOrder = ({ count, everyMillis, size }: Order): Buffer => {
  const bytes = Buffer.alloc(12)
  bytes.writeUInt32BE(size, 0)
  bytes.writeUInt32BE(count, 4)
  bytes.writeUInt32BE(everyMillis, 8)
  return bytes
}

export const decodeOrder = (bytes: Buffer): Order => ({
  size: bytes.readUInt32BE(0),
  count: bytes.readUInt32BE(4),
  everyMillis: bytes.readUInt32BE(8)
})

export const encodeTotals = (messages: number, bytes: number): Buffer => {
  const encoded = Buffer.alloc(12)
  encoded.writeUInt32BE(messages, 0)
  encoded.writeDoubleBE(bytes, 4)
  return encoded
}

export const checkTotals = (encoded: Buffer, messages: number, bytes: number): void => {
  const [gotMessages, gotBytes] = [encoded.readUInt32BE(0), encoded.readDoubleBE(4)]
  if (gotMessages !== messages || gotBytes !== bytes)
    throw new Error(`${gotMessages} messages, ${gotBytes} bytes arrived, of ${messages} and ${bytes}.`)
}

/** A payload that can be told from others. */
export const payload = (size: number, number: number): Buffer => {
  const bytes = Buffer.allocUnsafe(size).fill(0x78)
  stamp(bytes, number)
  return bytes
}

const stamp = (bytes: Buffer, number: number): void => {
  bytes.writeUInt32BE(number >>> 0, 0)
  bytes.writeUInt32BE(number >>> 0, bytes.length - 4)
}

export const checkPayload = (bytes: Buffer | undefined, size: number, number: number): void => {
  if (
    bytes?.length !== size ||
    bytes.readUInt32BE(0) !== number >>> 0 ||
    bytes.readUInt32BE(size - 4) !== number >>> 0
  )
    throw new Error(
      `A message of ${bytes?.length ?? "no"} bytes came where the one with ${size} bytes and the number ${number} was due.`
    )
}

/**
 * The messages of a stream: a few buffers in turn, which nobody changes while they are on their way, and of which the
 * receiver can tell when one is missing.
 */
const kinds = 16

export const messagesOf = (size: number): ((index: number) => Buffer) => {
  const buffers = Array.from({ length: kinds }, (_, index) => payload(size, index))
  return (index) => buffers[index % kinds] as Buffer
}

export const checkMessage = (bytes: Buffer | undefined, size: number, index: number): void =>
  checkPayload(bytes, size, index % kinds)

// ── what goes beside the messages ────────────────────────────────────────────────────────────────────────────────

export const tenant = ["x-tenant", "acme-industries"] as const
export const caller = ["x-caller", "benchmark/1.0 (loopback)"] as const
export const requestKey = "x-request-id"
export const requestId = (number: number): string => `req-${number.toString(36).padStart(8, "0")}`

export const region = ["x-region", "eu-central-1"] as const
export const version = ["x-version", "2026.11.1"] as const

/** What a handler looks at before it answers; the name of the request, which goes into the answer's headers. */
export const checkRequest = (metadata: Metadata, deadline: number): string => {
  const id = metadata.get(requestKey)[0]
  if (
    typeof id !== "string" ||
    !id.startsWith("req-") ||
    metadata.get(tenant[0])[0] !== tenant[1] ||
    metadata.get(caller[0])[0] !== caller[1]
  )
    throw new Error(`A call came without its metadata: ${JSON.stringify(metadata.getMap())}.`)
  const left = deadline - Date.now()
  if (!(left > 0 && left <= deadlineMillis + 1_000))
    throw new Error(`A call came with ${left} ms until its deadline.`)
  return id
}

/** What a caller looks at. */
export const checkHeaders = (headers: Metadata | undefined, id: string): void => {
  if (
    headers?.get(requestKey)[0] !== id ||
    headers.get(region[0])[0] !== region[1] ||
    headers.get(version[0])[0] !== version[1]
  )
    throw new Error(`The answer to ${id} came with the headers ${JSON.stringify(headers?.getMap() ?? null)}.`)
}
