/**
 * Metadata on its way from one connection to another.
 *
 * **Invariants**
 * 1. What comes out can be sent: grpc-js hands illegal trailers to Node inside an event of the connection, where the
 *    exception ends the process, and Node breaks off a whole connection at a block that is too large.
 * 2. What belongs to one connection stays there: encodings, lengths, the time-out, which goes on as a deadline.
 * 3. Everything else keeps its order, its values and its bytes.
 */
import { Metadata } from "@grpc/grpc-js"

/** Forbidden in HTTP/2, or written by the transport. */
const ofTheConnection: ReadonlySet<string> = new Set([
  "connection",
  "content-length",
  "content-type",
  "date",
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

/** Of these Node sends one value only, and throws at a second. Of what two peers disagree on the first one counts. */
const single: ReadonlySet<string> = new Set([
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

/** Below Node's 65,536 for a block, with room for what the transport adds. */
const largest = 60_000

/** What HTTP/2 counts for each field beside its name and value. */
const perField = 32

const sentLength = (value: string | Buffer): number =>
  typeof value === "string" ? value.length : Math.ceil(value.length / 3) * 4

/** A copy for the next connection; `undefined` when it is larger than a connection need carry. */
export const carried = (metadata: Metadata): Metadata | undefined => {
  const copy = new Metadata()
  let size = 0
  for (const [key, values] of Object.entries(metadata.toJSON())) {
    if (key.startsWith(":") || ofTheConnection.has(key)) continue
    for (const value of single.has(key) ? values.slice(0, 1) : values) {
      size += key.length + sentLength(value) + perField
      copy.add(key, value)
    }
  }
  return size > largest ? undefined : copy
}
