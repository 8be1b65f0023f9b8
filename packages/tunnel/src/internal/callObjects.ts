/**
 * The call objects that a handler written for `grpc.Server` gets: the same names, events and methods as there.
 *
 * What differs is what grpc-js gets wrong. `cancelled` is emitted only when the call was really cancelled, never
 * after an answer, and its argument is the reason. A write that is pending when the peer leaves has its callback
 * called, with `PeerGone`. The request stream of a cancelled call is destroyed rather than ended, so a cut-off upload
 * cannot look like a complete one.
 *
 * **Invariants**
 * 1. `cancelled` is set before the event is emitted, and the event comes before `close`.
 * 2. A stream is destroyed before its pending write callback is called, so that no `error` event follows from it.
 * 3. The objects hold no state of the protocol: everything they are told goes to their `Host` and back.
 */
import { EventEmitter } from "node:events"
import { Duplex, Readable, Writable } from "node:stream"
import type { CancelReason } from "@curfew/reason"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import { isMetadata } from "./metadata.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"

type WriteCallback = (error?: Error | null) => void

/** What a call object needs of the stream behind it. */
export interface Host {
  readonly path: string
  readonly metadata: Metadata
  readonly peer: string
  readonly deadline: number
  readonly sendHeaders: (metadata: Metadata) => void
  readonly sendMessage: (value: unknown, callback: WriteCallback) => void
  readonly sendStatus: (status: RpcStatus) => void
  readonly read: () => void
}

/** What the stream tells its call object. */
export interface CallObject {
  cancelled: boolean
  readonly emit: (event: string, ...args: Array<unknown>) => boolean
  /** The call was cancelled: tells listeners why, then ends the streams. */
  readonly tellCancelled: (reason: CancelReason) => void
  /** The handler's promise has settled: a call that it destroyed gets no other answer any more. */
  readonly tellLeft: () => void
}

/** The status of what a handler threw, rejected with, emitted or passed to its callback. */
export const statusOfError = (error: unknown, trailers?: Metadata | null): RpcStatus => {
  if (typeof error !== "object" || error === null) return makeStatus(Code.UNKNOWN, "Unknown error", trailers)
  const { code, details, message, metadata } = error as {
    code?: unknown
    details?: unknown
    message?: unknown
    metadata?: unknown
  }
  const text = typeof message === "string" ? message : "Unknown error"
  const carried = trailers ?? (isMetadata(metadata) ? metadata : null)
  if (typeof code !== "number" || code !== (code | 0)) return makeStatus(Code.UNKNOWN, text, carried)
  return makeStatus(code, typeof details === "string" ? details : text, carried)
}

// A registered symbol: whoever handles calls of both kinds can tell them apart without this package.
export const transportKey: unique symbol = /* @__PURE__ */ Symbol.for("curfew.transport")

/** The part that all four kinds share; grpc-js calls it the surface. */
const surface = (host: Host) => ({
  [transportKey]: "tunnel" as const,
  metadata: host.metadata,
  cancelled: false,
  getPeer: () => host.peer,
  getPath: () => host.path,
  getHost: () => host.peer,
  getDeadline: () => host.deadline,
  getAuthContext: () => ({}),
  getMetricsRecorder: () => noMetrics,
  sendMetadata: (metadata: Metadata) => host.sendHeaders(metadata)
})

const noMetrics = new Proxy({}, { get: () => () => undefined })

/** The answer of a unary or client-streaming handler. */
export const responder =
  (host: Host) =>
  (error: unknown, value?: unknown, trailers?: Metadata | null): void => {
    if (error !== null && error !== undefined) {
      host.sendStatus(statusOfError(error, trailers))
      return
    }
    host.sendMessage(value, () => undefined)
    host.sendStatus(makeStatus(Code.OK, "OK", trailers))
  }

/** An `error` event is an answer, also of a handler that has a callback for it. */
const failing = <E extends EventEmitter>(call: E, host: Host): E =>
  call.on("error", (error) => host.sendStatus(statusOfError(error)))

export const unaryCall = (host: Host, request: unknown): CallObject => {
  const call = Object.assign(failing(new EventEmitter(), host), surface(host), { request })
  return Object.assign(call, {
    tellCancelled: (reason: CancelReason) => {
      call.cancelled = true
      call.emit("cancelled", reason)
    },
    tellLeft: ignore
  })
}

/** Emits `cancelled` and destroys the stream. */
const cancellable = <S extends Readable | Writable | Duplex>(stream: S, host: Host, abandoned = ignore) => {
  const call = Object.assign(stream, surface(host))
  return Object.assign(call, {
    tellCancelled: (reason: CancelReason) => {
      call.cancelled = true
      call.emit("cancelled", reason)
      call.destroy()
    },
    tellLeft: () => {
      if (call.destroyed && !call.cancelled) abandoned()
    }
  })
}

export const readableCall = (host: Host): CallObject & Readable =>
  cancellable(failing(new Readable({ objectMode: true, read: () => host.read() }), host), host)

/**
 * Lets a handler end a writable call with trailers, or with an error as its status. What it does after the stream
 * was destroyed would vanish inside Node, so it goes to the host, which knows it for late.
 */
const answering = <S extends Writable | Duplex>(stream: S, answer: Answer, host: Host) => {
  const end = stream.end.bind(stream)
  const write = stream.write.bind(stream) as (chunk: unknown, ...rest: ReadonlyArray<unknown>) => boolean
  stream.on("error", (error) => {
    answer.failure = statusOfError(error)
    // A stream that was destroyed, by a failed `pipeline` for one, never comes to its `final`.
    if (stream.destroyed && !stream.writableFinished) host.sendStatus(answer.failure)
    else end()
  })
  return Object.assign(stream, {
    write: (chunk: unknown, ...rest: ReadonlyArray<unknown>): boolean => {
      if (!stream.destroyed || stream.writableFinished) return write(chunk, ...rest)
      const callback = rest.find((argument) => typeof argument === "function")
      host.sendMessage(chunk, (callback ?? ignore) as WriteCallback)
      return false
    },
    end: (trailers?: Metadata | null) => {
      if (trailers) answer.trailers = trailers
      if (stream.destroyed && !stream.writableFinished) host.sendStatus(finalStatus(answer))
      return end()
    }
  })
}

const ignore = (): void => undefined

const finalStatus = (answer: Answer): RpcStatus =>
  answer.failure ?? makeStatus(Code.OK, "OK", answer.trailers)

/** What the caller is told whose handler destroyed the call, without an error, in place of answering it. */
const abandoning = (stream: Writable, answer: Answer, host: Host) => (): void => {
  if (answer.failure !== undefined || stream.writableFinished || stream.writableEnded) return
  host.sendStatus(makeStatus(Code.CANCELLED, "The handler destroyed the call and did not answer it"))
}

interface Answer {
  failure: RpcStatus | undefined
  trailers: Metadata | undefined
}

const writing = (host: Host, answer: Answer) => ({
  write: (value: unknown, _encoding: string, callback: WriteCallback) => host.sendMessage(value, callback),
  final: (callback: WriteCallback) => {
    callback(null)
    host.sendStatus(finalStatus(answer))
  }
})

export const writableCall = (host: Host, request: unknown): CallObject & Writable => {
  const answer: Answer = { failure: undefined, trailers: undefined }
  const stream = new Writable({ objectMode: true, ...writing(host, answer) })
  const abandoned = abandoning(stream, answer, host)
  const call = cancellable(answering(stream, answer, host), host, abandoned)
  // Nothing but the handler itself destroys what is only written to: it will not answer.
  call.on("close", () => call.tellLeft())
  return Object.assign(call, { request })
}

export const duplexCall = (host: Host): CallObject & Duplex => {
  const answer: Answer = { failure: undefined, trailers: undefined }
  const stream = new Duplex({ objectMode: true, read: () => host.read(), ...writing(host, answer) })
  // Leaving a loop over the requests destroys a duplex too, and the handler may still answer: see `tellLeft`.
  return cancellable(answering(stream, answer, host), host, abandoning(stream, answer, host))
}
