/**
 * How a stream at the tunnel server is closed on the wire.
 *
 * **Invariants**
 * 1. Every status can be sent: one that cannot be carried, or that is larger than metadata may be, has a refusal in its place,
 *    and that is told, because it is what is observed.
 */
import { status as Code } from "@grpc/grpc-js"
import { MetadataProblem } from "./metadata.ts"
import { makeStatus, type RpcStatus, refusalToWire, statusToWire } from "./rpcStatus.ts"

/** The status of a stream as it goes out. */
export interface Closing {
  readonly trailers: Buffer | undefined
  readonly status: Buffer | undefined
  /** What it was replaced by. */
  readonly replaced?: RpcStatus | undefined
}

export const closingOf = (status: RpcStatus, anyBytes: boolean, most: number): Closing => {
  const wire = statusToWire(status, anyBytes)
  if (wire instanceof MetadataProblem) return refusal(Code.INTERNAL, wire.detail)
  const size = wire.trailers.length + (wire.status?.length ?? 0)
  return size <= most ? wire : refusal(Code.RESOURCE_EXHAUSTED, tooMuchMetadata(most))
}

const refusal = (code: number, details: string): Closing => ({
  ...refusalToWire(code, details),
  replaced: makeStatus(code, details)
})

export const tooMuchMetadata = (most: number): string => `The response metadata is larger than ${most} bytes`
