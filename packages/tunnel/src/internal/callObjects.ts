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
 */
import { EventEmitter } from "node:events"
import { Duplex, Readable, Writable } from "node:stream"
import type { CancelReason } from "@curfew/reason"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import {
  type CallObject,
  type Handled,
  type Host,
  hostKey,
  ignore,
  statusOfError,
  surface,
  type WriteCallback
} from "./callSurface.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"

const answerKey: unique symbol = Symbol("answer")

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
const endWritable: (this: Writable) => Writable = Writable.prototype.end

const writeWritable = Writable.prototype.write as (this: Writable, ...args: ReadonlyArray<unknown>) => boolean

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

const finalStatus = (answer: Answer): RpcStatus =>
  answer.failure ?? makeStatus(Code.OK, "OK", answer.trailers)

/** What the caller is told whose handler destroyed the call, without an error, in place of answering it. */
const tellAbandoned = (call: Answering): void => {
  if (!call.destroyed || call.cancelled) return
  if (call[answerKey].failure !== undefined || call.writableFinished || call.writableEnded) return
  call[hostKey].sendStatus(makeStatus(Code.CANCELLED, "The handler destroyed the call and did not answer it"))
}

/** What both of them do; a duplex has the methods of a writable, and no class to share with it. */
const written: PropertyDescriptorMap & ThisType<Answering> = {
  _write: {
    value(value: unknown, _encoding: string, callback: WriteCallback) {
      this[hostKey].sendMessage(value, callback)
    }
  },
  _final: {
    value(callback: WriteCallback) {
      callback(null)
      this[hostKey].sendStatus(finalStatus(this[answerKey]))
    }
  },
  write: {
    value(chunk: unknown, ...rest: ReadonlyArray<unknown>) {
      return isGone(this) ? writeLate(this, chunk, rest) : writeWritable.call(this, chunk, ...rest)
    }
  },
  end: {
    value(trailers?: Metadata | null) {
      noteEnd(this, trailers)
      return endWritable.call(this)
    }
  },
  tellCancelled: {
    value(reason: CancelReason) {
      cancelled(this, reason)
      this.destroy()
    }
  },
  /** Leaving a loop over the requests destroys a duplex too, and the handler may still answer until it has left. */
  tellLeft: {
    value() {
      tellAbandoned(this)
    }
  }
}

class WritableCall extends Writable implements CallObject {
  declare readonly tellCancelled: CallObject["tellCancelled"]
  declare readonly tellLeft: CallObject["tellLeft"]
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
}

class DuplexCall extends Duplex implements CallObject {
  declare readonly tellCancelled: CallObject["tellCancelled"]
  declare readonly tellLeft: CallObject["tellLeft"]
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
}

// As methods of a class are, which a handler may put its own in place of.
for (const kind of [WritableCall, DuplexCall])
  for (const [name, descriptor] of Object.entries(written))
    Object.defineProperty(kind.prototype, name, { ...descriptor, writable: true, configurable: true })

for (const kind of [UnaryCall, ReadableCall, WritableCall, DuplexCall])
  Object.defineProperties(kind.prototype, surface)

export const unaryCall = (host: Host, request: unknown): CallObject => new UnaryCall(host, request)
export const readableCall = (host: Host): CallObject & Readable => new ReadableCall(host)
export const writableCall = (host: Host, request: unknown): CallObject & Writable =>
  new WritableCall(host, request)
export const duplexCall = (host: Host): CallObject & Duplex => new DuplexCall(host)
