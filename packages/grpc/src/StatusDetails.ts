import type { Metadata } from "@grpc/grpc-js"
import protobuf from "protobufjs/minimal.js"

/**
 * One entry of a rich status: a message of any type, still encoded.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface StatusDetail {
  /** `type.googleapis.com/google.rpc.QuotaFailure`, say. */
  readonly typeUrl: string
  /** The encoded message. */
  readonly value: Uint8Array
}

/**
 * The trailer in which a rich status travels, an encoded `google.rpc.Status`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const key = "grpc-status-details-bin"

/**
 * What the trailers tell about a status in detail, or `undefined` when they tell nothing that can be read.
 *
 * **Guarantees**
 *
 * - **Never in the way**: details that are malformed are no details. The status itself stands.
 *
 * @see encode
 * @stability unstable
 * @since 0.1.0
 */
export const decode = (trailers: Metadata | undefined): ReadonlyArray<StatusDetail> | undefined => {
  const bytes = trailers?.get(key)[0]
  if (bytes === undefined || typeof bytes === "string") return undefined
  try {
    return readStatus(bytes)
  } catch {
    return undefined
  }
}

/**
 * The bytes of a rich status, for the trailer {@link key}.
 *
 * **Example**
 *
 * ```ts
 * import { Metadata } from "@grpc/grpc-js"
 * import { StatusDetails } from "@curfew/grpc"
 *
 * const detail = { typeUrl: "type.googleapis.com/google.rpc.RetryInfo", value: Buffer.from([10, 2, 8, 1]) }
 * const trailers = new Metadata()
 * trailers.set(StatusDetails.key, StatusDetails.encode({ code: 8, details: "slow down", statusDetails: [detail] }))
 *
 * const found = StatusDetails.decode(trailers)
 * found?.[0]?.typeUrl // => "type.googleapis.com/google.rpc.RetryInfo"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const encode = (status: {
  readonly code: number
  readonly details: string
  readonly statusDetails?: ReadonlyArray<StatusDetail> | undefined
}): Buffer => {
  const writer = protobuf.Writer.create()
  writer.uint32(codeTag).int32(status.code).uint32(messageTag).string(status.details)
  for (const { typeUrl, value } of status.statusDetails ?? []) {
    writer.uint32(detailsTag).fork().uint32(typeUrlTag).string(typeUrl).uint32(valueTag).bytes(value).ldelim()
  }
  return Buffer.from(writer.finish())
}

// Field number and wire type of google/rpc/status.proto and google/protobuf/any.proto.
const codeTag = 0x08
const messageTag = 0x12
const detailsTag = 0x1a
const typeUrlTag = 0x0a
const valueTag = 0x12

const readStatus = (bytes: Uint8Array): ReadonlyArray<StatusDetail> => {
  const reader = protobuf.Reader.create(bytes)
  const found: Array<StatusDetail> = []
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag === detailsTag) found.push(readAny(reader.bytes()))
    else reader.skipType(tag & 7)
  }
  return found
}

const readAny = (bytes: Uint8Array): StatusDetail => {
  const reader = protobuf.Reader.create(bytes)
  let typeUrl = ""
  let value: Uint8Array = new Uint8Array()
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag === typeUrlTag) typeUrl = reader.string()
    else if (tag === valueTag) value = Uint8Array.from(reader.bytes())
    else reader.skipType(tag & 7)
  }
  return { typeUrl, value }
}
