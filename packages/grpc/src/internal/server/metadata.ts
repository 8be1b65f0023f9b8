/**
 * Metadata that a handler sends.
 *
 * Invariants
 * 1. What passes here can be sent: grpc-js hands illegal trailers to Node inside an event of the connection, where the
 *    exception ends the process.
 * 2. A handler cannot set what belongs to the protocol: its trailers would replace the status itself.
 */
import type { Metadata } from "@grpc/grpc-js"
import { copyUnsafe, type MetadataInput } from "../metadata.ts"

/** Forbidden in HTTP/2, or written by the transport. */
const transportKeys: ReadonlySet<string> = new Set([
  "connection",
  "content-length",
  "content-type",
  "grpc-accept-encoding",
  "grpc-encoding",
  "grpc-message",
  "grpc-status",
  "grpc-timeout",
  "host",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade"
])

/** Headers of which Node sends one value only, and throws at a second. */
const singleKeys: ReadonlySet<string> = new Set([
  "access-control-allow-credentials",
  "access-control-max-age",
  "access-control-request-method",
  "age",
  "alt-svc",
  "authorization",
  "content-encoding",
  "content-language",
  "content-location",
  "content-md5",
  "content-range",
  "date",
  "dnt",
  "etag",
  "expires",
  "from",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-range",
  "if-unmodified-since",
  "last-modified",
  "location",
  "max-forwards",
  "proxy-authorization",
  "range",
  "referer",
  "retry-after",
  "tk",
  "upgrade-insecure-requests",
  "user-agent",
  "x-content-type-options"
])

/**
 * Node breaks off the whole connection at a block of more than 65,536 bytes, with every call on it. What the transport
 * adds to a block, and the details of a status, stand in the rest.
 */
const largest = 48_000

/** What HTTP/2 counts for each field beside its name and value. */
const perField = 32

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
  for (const [key, values] of Object.entries(metadata.toJSON())) {
    if (key.startsWith(":") || transportKeys.has(key)) {
      return new BadMetadata(`Metadata key "${key}" belongs to the transport`)
    }
    if (values.length > 1 && singleKeys.has(key)) {
      return new BadMetadata(`Metadata key "${key}" takes one value only`)
    }
    for (const value of values) size += key.length + sentLength(value) + perField
  }
  return size > largest
    ? new BadMetadata(`The metadata is larger than ${largest} bytes, which a connection need not carry`)
    : metadata
}

const sentLength = (value: string | Buffer): number =>
  typeof value === "string" ? value.length : Math.ceil(value.length / 3) * 4
