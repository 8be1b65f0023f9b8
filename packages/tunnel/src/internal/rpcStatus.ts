/**
 * Between a grpc-js status and the wire's `google.rpc.Status`.
 *
 * grpc-js carries error details as an encoded `google.rpc.Status` under `grpc-status-details-bin` in the
 * trailers; the tunnel carries them in the status itself.
 *
 * **Invariants**
 * 1. Rule `ok-is-absent`: OK is an absent status on the wire, and an absent status is OK.
 * 2. The details bytes are never interpreted, only moved.
 */
import { status as Code, Metadata } from "@grpc/grpc-js"
import { noBytes } from "./frame.ts"
import { isMetadata, MetadataProblem, metadataToWire } from "./metadata.ts"
import { metadataFromWire } from "./metadataFromWire.ts"
import { Reader, sizeOfBytes, Truncated, writeInt64, writeUint32 } from "./varint.ts"

/** How a call ended, in the words of gRPC. */
export interface RpcStatus {
  readonly code: number
  readonly details: string
  readonly metadata: Metadata
}

const detailsKey = "grpc-status-details-bin"

export const makeStatus = (code: number, details: string, metadata?: Metadata | null): RpcStatus => ({
  code,
  details,
  metadata: metadata ?? new Metadata()
})

const detailFields = (bytes: Buffer): ReadonlyArray<Buffer> => {
  const found: Array<Buffer> = []
  const reader = new Reader(bytes)
  while (!reader.done) {
    const tag = reader.uint32()
    if (tag === 0x1a) found.push(reader.slice())
    else reader.skip(tag & 7)
  }
  return found
}

const encodeStatus = (code: number, message: string, details: ReadonlyArray<Buffer>): Buffer => {
  const text = Buffer.from(message)
  const into = Buffer.allocUnsafe(
    24 + text.length + details.reduce((sum, detail) => sum + sizeOfBytes(detail.length), 0)
  )
  let at = 0
  const write = (tag: number, bytes: Buffer): void => {
    into[at] = tag
    at = writeUint32(into, at + 1, bytes.length)
    into.set(bytes, at)
    at += bytes.length
  }
  if (code !== 0) {
    into[at] = 0x08
    at = writeInt64(into, at + 1, code)
  }
  if (text.length > 0) write(0x12, text)
  for (const detail of details) write(0x1a, detail)
  return into.subarray(0, at)
}

interface StatusOnWire {
  readonly trailers: Buffer
  readonly status: Buffer | undefined
}

/** Trailers and status as they go into a `CloseStream`. Trailers of another make may throw when they are looked at. */
export const statusToWire = (status: RpcStatus, anyBytes = false): StatusOnWire | MetadataProblem => {
  try {
    return statusToWireUnsafe(status, anyBytes)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return new MetadataProblem(`The trailers cannot be read: ${why}`)
  }
}

const statusToWireUnsafe = (status: RpcStatus, anyBytes: boolean): StatusOnWire | MetadataProblem => {
  let { metadata } = status
  if (!isMetadata(metadata)) return new MetadataProblem("The trailers are not a Metadata")
  let details: ReadonlyArray<Buffer> = []
  const carried = metadata.get(detailsKey)[0]
  if (carried !== undefined) {
    metadata = metadata.clone()
    metadata.remove(detailsKey)
    try {
      if (typeof carried !== "string") details = detailFields(carried)
    } catch (error) {
      if (!(error instanceof Truncated)) throw error
      return new MetadataProblem(`The value of "${detailsKey}" is not a google.rpc.Status`)
    }
  }
  const trailers = metadataToWire(metadata, anyBytes)
  if (trailers instanceof MetadataProblem) return trailers
  return {
    trailers,
    status: status.code === Code.OK ? undefined : encodeStatus(status.code, status.details, details)
  }
}

/** A status alone, for a call that is refused. */
export const refusalToWire = (
  code: number,
  message: string
): { readonly trailers: undefined; readonly status: Buffer } => ({
  trailers: undefined,
  status: encodeStatus(code, message, [])
})

/** What a `CloseStream` says. */
export const statusFromWire = (
  trailers: Buffer | undefined,
  bytes: Buffer | undefined
): RpcStatus | MetadataProblem => {
  const metadata = metadataFromWire(trailers ?? noBytes)
  if (metadata instanceof MetadataProblem) return metadata
  if (bytes === undefined) return makeStatus(Code.OK, "OK", metadata)
  let code = 0
  let message = ""
  let detailed = false
  try {
    const reader = new Reader(bytes)
    while (!reader.done) {
      const tag = reader.uint32()
      if (tag === 0x08) code = reader.int32()
      else if (tag === 0x12) message = reader.slice().toString("utf8")
      else if (tag === 0x1a) {
        reader.slice()
        detailed = true
      } else reader.skip(tag & 7)
    }
  } catch (error) {
    if (!(error instanceof Truncated)) throw error
    return new MetadataProblem(`The status is malformed: ${error.message}`)
  }
  if (code === Code.OK) return makeStatus(Code.OK, message === "" ? "OK" : message, metadata)
  if (detailed) metadata.set(detailsKey, Buffer.from(bytes))
  return makeStatus(code > 0 && code <= 16 ? code : Code.UNKNOWN, message, metadata)
}
