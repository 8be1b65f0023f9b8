/**
 * Metadata that a handler sends.
 *
 * Invariants
 * 1. What passes here can be sent: grpc-js hands illegal trailers to Node inside an event of the connection, where the
 *    exception ends the process.
 * 2. A handler cannot set what belongs to the protocol: its trailers would replace the status itself.
 */
import { Metadata, type MetadataValue } from "@grpc/grpc-js"

/** Headers and trailers as a handler gives them: `Metadata`, or a record. */
export type MetadataInput =
  | Metadata
  | Readonly<Record<string, MetadataValue | Uint8Array | ReadonlyArray<MetadataValue | Uint8Array>>>

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
    metadata = isMetadata(input) ? input.clone() : fromRecord(input)
  } catch (error) {
    return new BadMetadata(error instanceof Error ? error.message : String(error))
  }
  for (const [key, values] of Object.entries(metadata.toJSON())) {
    if (key.startsWith(":") || transportKeys.has(key)) {
      return new BadMetadata(`Metadata key "${key}" belongs to the transport`)
    }
    if (values.length > 1 && singleKeys.has(key)) {
      return new BadMetadata(`Metadata key "${key}" takes one value only`)
    }
  }
  return metadata
}

const isMetadata = (input: MetadataInput): input is Metadata =>
  input instanceof Metadata ||
  (typeof (input as { clone?: unknown }).clone === "function" &&
    typeof (input as { toHttp2Headers?: unknown }).toHttp2Headers === "function")

const fromRecord = (record: Exclude<MetadataInput, Metadata>): Metadata => {
  const metadata = new Metadata()
  for (const [key, value] of Object.entries(record)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      metadata.add(key, typeof one === "string" || Buffer.isBuffer(one) ? one : Buffer.from(one))
    }
  }
  return metadata
}
