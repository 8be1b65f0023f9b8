/**
 * Metadata that a handler sends.
 *
 * Invariants
 * 1. What passes here can be sent: grpc-js hands illegal trailers to Node inside an event of the connection, where the
 *    exception ends the process.
 * 2. A handler cannot set what belongs to the protocol: its trailers would replace the status itself.
 */
import type { Metadata } from "@grpc/grpc-js"
import { fieldLength, ofTransport, singleValued } from "../../HeaderFields.ts"
import { copyUnsafe, fieldsOf, type MetadataInput } from "../metadata.ts"

/**
 * Node breaks off the whole connection at a block of more than 65,536 bytes, with every call on it. What the transport
 * adds to a block, and the details of a status, stand in the rest.
 */
const largest = 48_000

export class BadMetadata {
  readonly detail: string
  constructor(detail: string) {
    this.detail = detail
  }
}

/** A copy that can be sent, or what is wrong with it. */
export const checked = (input: MetadataInput): Metadata | BadMetadata => {
  let metadata: Metadata
  try {
    metadata = copyUnsafe(input)
  } catch (error) {
    return new BadMetadata(error instanceof Error ? error.message : String(error))
  }
  let size = 0
  for (const [key, values] of fieldsOf(metadata)) {
    if (key.startsWith(":") || ofTransport.has(key)) {
      return new BadMetadata(`Metadata key "${key}" belongs to the transport`)
    }
    if (values.length > 1 && singleValued.has(key)) {
      return new BadMetadata(`Metadata key "${key}" takes one value only`)
    }
    for (const value of values) size += fieldLength(key, value)
  }
  return size > largest
    ? new BadMetadata(`The metadata is larger than ${largest} bytes, which a connection need not carry`)
    : metadata
}
