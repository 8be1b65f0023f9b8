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
 * 4. What they share stands on their prototypes: a call costs one object and no closure.
 */
import { EventEmitter } from "node:events"
import { Duplex, Readable, Writable } from "node:stream"
import type { CancelReason } from "@curfew/reason"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import type { TunnelOrigin } from "../TunnelAuth.ts"
import { type CallInfo, infoKey } from "./callInfo.ts"
import type { AuthContext } from "./link.ts"
import { isMetadata } from "./metadata.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"

type WriteCallback = (error?: Error | null) => void

const hostKey: unique symbol = Symbol("host")
const answerKey: unique symbol = Symbol("answer")

/** What a call object needs of the stream behind it. */
export interface Host {
  /** What the library knows of the call. */
  readonly info: CallInfo
  readonly path: string
  readonly metadata: Metadata
  readonly peer: string
  readonly origin: TunnelOrigin
  readonly authContext: AuthContext
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

/** Under this one stands the tunnel that the call came through. */
const originKey: unique symbol = /* @__PURE__ */ Symbol.for("curfew.tunnel")

const noMetrics = new Proxy({}, { get: () => () => undefined })

/** The part that all four kinds share; grpc-js calls it the surface. It stands on their prototypes. */
const surface: PropertyDescriptorMap & ThisType<Handled> = {
  [transportKey]: { value: "tunnel" },
  [originKey]: {
    get() {
      return this[hostKey].origin
    }
  },
  [infoKey]: {
    get() {
      return this[hostKey].info
    }
  },
  getPeer: {
    value() {
      return this[hostKey].peer
    }
  },
  getPath: {
    value() {
      return this[hostKey].path
    }
  },
  getHost: {
    value() {
      return this[hostKey].peer
    }
  },
  getDeadline: {
    value() {
      return this[hostKey].deadline
    }
  },
  getAuthContext: {
    value() {
      return this[hostKey].authContext
    }
  },
  getMetricsRecorder: { value: () => noMetrics },
  sendMetadata: {
    value(metadata: Metadata) {
      this[hostKey].sendHeaders(metadata)
    }
  }
}

interface Handled {
  readonly [hostKey]: Host
}

/** The answer of a unary or client-streaming handler. */
export const responder =
  (host: Host) =>
  (error: unknown, value?: unknown, trailers?: Metadata | null): void => {
    if (error !== null && error !== undefined) {
      host.sendStatus(statusOfError(error, trailers))
      return
    }
    host.sendMessage(value, ignore)
    host.sendStatus(makeStatus(Code.OK, "OK", trailers))
  }

/** Emits `cancelled`, with `cancelled` set before. */
const cancelled = (call: CallObject, reason: CancelReason): void => {
  call.cancelled = true
  call.emit("cancelled", reason)
}

/** An `error` event is an answer, also of a handler that has a callback for it. */
function answerError(this: Handled, error: unknown): void {
  this[hostKey].sendStatus(statusOfError(error))
}

class UnaryCall extends EventEmitter implements CallObject {
  cancelled = false
  readonly metadata: Metadata
  readonly request: unknown
  readonly [hostKey]: Host

  constructor(host: Host, request: unknown) {
    super()
    this[hostKey] = host
    this.metadata = host.metadata
    this.request = request
    this.on("error", answerError)
  }

  tellCancelled(reason: CancelReason): void {
    cancelled(this, reason)
  }

  tellLeft(): void {}
}

class ReadableCall extends Readable implements CallObject {
  cancelled = false
  readonly metadata: Metadata
  readonly [hostKey]: Host

  constructor(host: Host) {
    super({ objectMode: true })
    this[hostKey] = host
    this.metadata = host.metadata
    this.on("error", answerError)
  }

  override _read(): void {
    this[hostKey].read()
  }

  tellCancelled(reason: CancelReason): void {
    cancelled(this, reason)
    this.destroy()
  }

  tellLeft(): void {}
}

/** What a call that is written to will be answered with. */
interface Answer {
  failure: RpcStatus | undefined
  trailers: Metadata | undefined
}

/** A call that is written to. */
type Answering = (WritableCall | DuplexCall) & Handled

/**
 * Lets a handler end a writable call with trailers, or with an error as its status. What it does after the stream
 * was destroyed would vanish inside Node, so it goes to the host, which knows it for late.
 */
function failWith(this: Answering, error: unknown): void {
  this[answerKey].failure = statusOfError(error)
  // A stream that was destroyed, by a failed `pipeline` for one, never comes to its `final`.
  if (this.destroyed && !this.writableFinished) this[hostKey].sendStatus(this[answerKey].failure)
  else endWritable.call(this)
}

/** The stream's own `end`, which takes no trailers. */
const endWritable: (this: Writable) => void = Writable.prototype.end

const isGone = (call: Writable): boolean => call.destroyed && !call.writableFinished

const writeLate = (call: Answering, chunk: unknown, rest: ReadonlyArray<unknown>): false => {
  const callback = rest.find((argument) => typeof argument === "function")
  call[hostKey].sendMessage(chunk, (callback ?? ignore) as WriteCallback)
  return false
}

const noteEnd = (call: Answering, trailers: Metadata | null | undefined): void => {
  const answer = call[answerKey]
  if (trailers) answer.trailers = trailers
  if (isGone(call)) call[hostKey].sendStatus(finalStatus(answer))
}

const ignore = (): void => undefined

const finalStatus = (answer: Answer): RpcStatus =>
  answer.failure ?? makeStatus(Code.OK, "OK", answer.trailers)

/** What the caller is told whose handler destroyed the call, without an error, in place of answering it. */
const tellAbandoned = (call: Answering): void => {
  if (!call.destroyed || call.cancelled) return
  if (call[answerKey].failure !== undefined || call.writableFinished || call.writableEnded) return
  call[hostKey].sendStatus(makeStatus(Code.CANCELLED, "The handler destroyed the call and did not answer it"))
}

const finish = (call: Answering, callback: WriteCallback): void => {
  callback(null)
  call[hostKey].sendStatus(finalStatus(call[answerKey]))
}

class WritableCall extends Writable implements CallObject {
  cancelled = false
  readonly metadata: Metadata
  readonly request: unknown
  readonly [hostKey]: Host
  readonly [answerKey]: Answer = { failure: undefined, trailers: undefined }

  constructor(host: Host, request: unknown) {
    super({ objectMode: true })
    this[hostKey] = host
    this.metadata = host.metadata
    this.request = request
    this.on("error", failWith)
    // Nothing but the handler itself destroys what is only written to: it will not answer.
    this.on("close", this.tellLeft)
  }

  override _write(value: unknown, _encoding: string, callback: WriteCallback): void {
    this[hostKey].sendMessage(value, callback)
  }

  override _final(callback: WriteCallback): void {
    finish(this, callback)
  }

  override write(chunk: unknown, ...rest: ReadonlyArray<never>): boolean {
    return isGone(this) ? writeLate(this, chunk, rest) : super.write(chunk, ...rest)
  }

  override end(trailers?: unknown): this {
    noteEnd(this, trailers as Metadata | null | undefined)
    return super.end()
  }

  tellCancelled(reason: CancelReason): void {
    cancelled(this, reason)
    this.destroy()
  }

  tellLeft(): void {
    tellAbandoned(this)
  }
}

class DuplexCall extends Duplex implements CallObject {
  cancelled = false
  readonly metadata: Metadata
  readonly [hostKey]: Host
  readonly [answerKey]: Answer = { failure: undefined, trailers: undefined }

  constructor(host: Host) {
    super({ objectMode: true })
    this[hostKey] = host
    this.metadata = host.metadata
    this.on("error", failWith)
  }

  override _read(): void {
    this[hostKey].read()
  }

  override _write(value: unknown, _encoding: string, callback: WriteCallback): void {
    this[hostKey].sendMessage(value, callback)
  }

  override _final(callback: WriteCallback): void {
    finish(this, callback)
  }

  override write(chunk: unknown, ...rest: ReadonlyArray<never>): boolean {
    return isGone(this) ? writeLate(this, chunk, rest) : super.write(chunk, ...rest)
  }

  override end(trailers?: unknown): this {
    noteEnd(this, trailers as Metadata | null | undefined)
    return super.end()
  }

  tellCancelled(reason: CancelReason): void {
    cancelled(this, reason)
    this.destroy()
  }

  /** Leaving a loop over the requests destroys a duplex too, and the handler may still answer until it has left. */
  tellLeft(): void {
    tellAbandoned(this)
  }
}

for (const kind of [UnaryCall, ReadableCall, WritableCall, DuplexCall])
  Object.defineProperties(kind.prototype, surface)

export const unaryCall = (host: Host, request: unknown): CallObject => new UnaryCall(host, request)
export const readableCall = (host: Host): CallObject & Readable => new ReadableCall(host)
export const writableCall = (host: Host, request: unknown): CallObject & Writable =>
  new WritableCall(host, request)
export const duplexCall = (host: Host): CallObject & Duplex => new DuplexCall(host)
