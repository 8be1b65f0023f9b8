/**
 * What HTTP/2 and Node ask of the fields that metadata becomes, for those who hand metadata from one connection to
 * another.
 *
 * Invariants
 * 1. The two sets exclude each other; what stands in neither may be sent with any number of values.
 */

const lengthOf = (value: string | Uint8Array): number =>
  typeof value === "string" ? value.length : Math.ceil(value.length / 3) * 4

/**
 * Forbidden in HTTP/2, or written by the transport.
 *
 * @stability internal
 * @since 0.1.0
 */
export const ofTransport: ReadonlySet<string> = /* @__PURE__ */ new Set([
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

/**
 * Fields of which Node sends one value only, and throws at a second.
 *
 * @stability internal
 * @since 0.1.0
 */
export const singleValued: ReadonlySet<string> = /* @__PURE__ */ new Set([
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
 * How much one value counts in a block of HTTP/2, where bytes go as base64 and each field counts 32 beside its name and
 * value.
 *
 * @stability internal
 * @since 0.1.0
 */
export const fieldLength = (key: string, value: string | Uint8Array): number =>
  32 + key.length + lengthOf(value)
