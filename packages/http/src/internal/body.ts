/**
 * The body of a request that nobody reads, or not yet.
 *
 * Node stops reading a connection when an unread body fills its buffers, and a connection that is not read reports
 * neither FIN nor RST. What is read here is read so that the client's leaving is heard.
 *
 * Invariants
 * 1. A handler that reads the body, now or later, gets all of it, in order, by every way that node knows: the bytes wait
 *    in the request itself. Only a body that is drained is gone.
 * 2. No more than the limit of the buffer waits there. Over it node's own back pressure holds, or the body is refused.
 * 3. A body over its limit is told once, from its declared length before a byte of it came, or by counting.
 * 4. Over HTTP/2 a body has a window of its own, and hides nothing: there it is only counted.
 * 5. Nothing is put around a request that has no body, or one whose length was said and can neither break the limit nor
 *    fill what node buffers: its parser holds clients to what they said.
 */
import type { NodeRequest } from "./peer.ts"

/**
 * What becomes of a body that nobody reads. `drain`: when it fills node's buffers and nobody reads, it is thrown
 * away, what waits there too. `buffer`: it is read ahead, up to so many bytes; over them `pause` stops reading, and `reject` answers 413
 * when nobody reads. `ignore`: it is left to the handler.
 */
export type UnreadBody =
  | "drain"
  | "ignore"
  | { readonly buffer: number; readonly whenFull?: "pause" | "reject" | undefined }

/** The body of one request. */
export interface BodyWatch {
  /** What came so far. Over HTTP/2, what was read. */
  readonly received: number
  readonly tooLarge: boolean
  readonly unwatch: () => void
}

export interface BodyOptions {
  readonly body?: UnreadBody | undefined
  readonly bodyBytes?: number | undefined
  readonly onTooLarge?: (() => void) | undefined
}

const readAhead = 1024 * 1024

/** Of a body that needs no watch. */
export const unwatched: BodyWatch = { received: 0, tooLarge: false, unwatch: () => {} }

/** The bytes that the head of a request promises: none without a word of them, and any number in chunks. */
export const promised = (request: NodeRequest): number => {
  if (request.httpVersionMajor >= 2) {
    const length = request.headers["content-length"]
    if (length !== undefined) return Number(length)
    return "stream" in request && request.stream?.endAfterHeaders === true ? 0 : Number.POSITIVE_INFINITY
  }
  // Node makes its table of headers when somebody asks for it, and mostly nobody does.
  const { rawHeaders } = request
  let length = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length === 14 && name.toLowerCase() === "content-length") length = Number(rawHeaders[i + 1])
    else if (name.length === 17 && name.toLowerCase() === "transfer-encoding") return Number.POSITIVE_INFINITY
  }
  return length
}

/** Whether there is something to see to. */
export const watches = (
  request: NodeRequest,
  body: UnreadBody,
  bodyBytes: number,
  length: number
): boolean => {
  if (length > bodyBytes) return true
  const fills = request.httpVersionMajor < 2 && body !== "ignore"
  if (length !== Number.POSITIVE_INFINITY) return fills && length >= request.readableHighWaterMark
  return fills || bodyBytes !== Number.POSITIVE_INFINITY
}

const watchOf = /* @__PURE__ */ Symbol("@curfew/http/body")

interface WatchedRequest {
  [watchOf]: Watch
}

class Watch implements BodyWatch {
  received = 0
  tooLarge = false
  readonly request: NodeRequest
  readonly push: NodeRequest["push"]
  readonly #body: UnreadBody
  readonly #bytes: number
  readonly #onTooLarge: (() => void) | undefined

  constructor(request: NodeRequest, { body = { buffer: readAhead }, bodyBytes, onTooLarge }: BodyOptions) {
    this.request = request
    this.push = request.push
    this.#body = request.httpVersionMajor < 2 ? body : "ignore"
    this.#bytes = bodyBytes ?? Number.POSITIVE_INFINITY
    this.#onTooLarge = onTooLarge
  }

  refuse(): void {
    if (this.tooLarge) return
    this.tooLarge = true
    this.#onTooLarge?.()
  }

  /** A part has come; `more`: whether node would read on. */
  count(chunk: Buffer, more: boolean): boolean {
    const { request } = this
    const body = this.#body
    this.received += chunk.length
    if (this.received > this.#bytes) this.refuse()
    if (more || body === "ignore") return more
    if (body === "drain") {
      if (!isRead(request)) request.resume()
      return more
    }
    if (request.readableLength < body.buffer) return true
    if (body.whenFull === "reject" && !isRead(request)) this.refuse()
    return more
  }

  unwatch(): void {
    this.request.push = this.push
  }
}

/** One function for all requests. Node hands each part of a body to `push`, and goes on reading as long as that says so. */
function push(this: NodeRequest, chunk: unknown, encoding?: BufferEncoding): boolean {
  const watch = (this as unknown as WatchedRequest)[watchOf]
  const more = watch.push.call(this, chunk, encoding)
  return chunk === null ? more : watch.count(chunk as Buffer, more)
}

export const watchBody = (
  request: NodeRequest,
  options: BodyOptions,
  length = promised(request)
): BodyWatch => {
  const { body = { buffer: readAhead }, bodyBytes = Number.POSITIVE_INFINITY } = options
  if (!watches(request, body, bodyBytes, length)) return unwatched
  const watch = new Watch(request, options)
  if (length !== Number.POSITIVE_INFINITY && length > bodyBytes) watch.refuse()
  else if (watchOf in request) return watchAgain(request, watch)
  else {
    ;(request as unknown as WatchedRequest)[watchOf] = watch
    request.push = push
  }
  return watch
}

/** Of a second edge around the same request: the first one's function is what it calls. */
const watchAgain = (request: NodeRequest, watch: Watch): BodyWatch => {
  request.push = (chunk: unknown, encoding?: BufferEncoding): boolean => {
    const more = watch.push.call(request, chunk, encoding)
    return chunk === null ? more : watch.count(chunk as Buffer, more)
  }
  return watch
}

/** Somebody has asked for the body. */
const isRead = (request: NodeRequest): boolean =>
  request.readableFlowing !== null || request.listenerCount("readable") > 0
