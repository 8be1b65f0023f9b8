/**
 * The handler's side of a stream at the tunnel server: what the handler is told, and what it asks for.
 *
 * **Invariants**
 * 1. The handler runs in the stream's own turn, and what it throws is its answer.
 * 2. It has one end: a plain receiver where it has an entrance for plain calls, and a call object elsewhere.
 * 3. A request that was taken for it stands before the end of its requests, also when it is read within a step.
 * 4. Each write has its callback, in order: when the message has left, or when it never will.
 */
import { isUint8Array } from "node:util/types"
import type { CancelReason } from "@curfew/reason"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import type { RegisteredMethod } from "../Services.ts"
import type { TunnelOrigin } from "../TunnelAuth.ts"
import { PeerGone } from "../TunnelError.ts"
import { isThenable, Settlement } from "./bridge.ts"
import type { CallInfo } from "./callInfo.ts"
import { duplexCall, readableCall, unaryCall, writableCall } from "./callObjects.ts"
import { type CallObject, type Host, responder, statusOfError } from "./callSurface.ts"
import { StreamDriver } from "./driver.ts"
import type { Revision } from "./frame.ts"
import type { AuthContext, Link } from "./link.ts"
import { metadataToWire } from "./metadata.ts"
import { entranceOf, type PlainCall, type PlainReceiver } from "./plainCall.ts"
import { RequestMetadata } from "./requestMetadata.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"
import type * as Machine from "./serverStream.ts"
import { SendWindow } from "./window.ts"
import { Outbound } from "./writer.ts"

/** What a call without writes has: most have none most of the time. */
const none: Array<never> = []

export interface Incoming {
  readonly id: number
  readonly path: string
  readonly method: RegisteredMethod
  readonly metadata: Metadata
  readonly window: number
  readonly revision: Revision
  /** Milliseconds, from `grpc-timeout`. */
  readonly timeout: number | undefined
}

export abstract class HandlerCall
  extends StreamDriver<Machine.State, Machine.Event, Machine.Action>
  implements Host, PlainCall
{
  readonly id: number
  readonly path: string
  readonly deadline: number
  protected readonly method: RegisteredMethod
  private readonly sent: RequestMetadata
  /** Why the call was cancelled, for the handler. */
  reason: CancelReason | undefined
  abort: AbortController | undefined
  private call: CallObject | undefined
  /** In place of a call object, where the handler has an entrance for plain calls. */
  private receiver: PlainReceiver | undefined
  protected handlerEnd: Settlement | undefined
  /** Of the writes that wait, in order. A Node stream has one at a time; a destroyed one passes on what it gets. */
  private writeCallbacks: Array<(error?: Error | null) => void> = none
  private endPending = false
  /** Requests that were taken for the handler and not handed over: one that is read within a step waits for its end. */
  protected taken = 0

  constructor(link: Link, { id, metadata, method, path, revision, timeout, window }: Incoming) {
    super(link, new Outbound(new SendWindow(window, revision), id), Code.INVALID_ARGUMENT, revision, path)
    this.id = id
    this.path = path
    this.method = method
    this.sent = new RequestMetadata(metadata)
    this.openedAt = link.now()
    this.deadline =
      timeout === undefined ? Number.POSITIVE_INFINITY : link.clock.currentTimeMillisUnsafe() + timeout
    if (timeout !== undefined && Number.isFinite(timeout)) {
      this.at = this.openedAt + timeout
      link.deadlines.add(this)
    }
  }

  get info(): CallInfo {
    return this
  }

  get peer(): string {
    return this.link.carrier.peer
  }

  get metadata(): Metadata {
    return this.sent.whole
  }

  header(key: string): string | Buffer | undefined {
    return this.sent.first(key)
  }

  get clock(): Clock.Clock {
    return this.link.clock
  }

  get origin(): TunnelOrigin {
    return this.link.origin
  }

  get authContext(): AuthContext {
    return this.link.authContext
  }

  /** A call object for a handler that needed none, made when somebody asks. */
  get object(): CallObject {
    if (this.call === undefined) {
      this.call = unaryCall(this, undefined)
      this.call.cancelled = this.reason !== undefined
    }
    return this.call
  }

  // ── what the handler asks for ──────────────────────────────────────────────────────────────────────────────

  read(): void {
    if (this.state._tag !== "Gathering" && this.state._tag !== "Running") return
    this.readNext()
    this.pushPendingEnd()
  }

  private pushPendingEnd(): void {
    if (this.endPending && this.taken === 0 && !this.unread) this.pushEnd()
  }

  sendHeaders(metadata: Metadata): void {
    this.feed({ _tag: "Headers", headers: metadataToWire(metadata, this.link.anyBytes) })
  }

  sendMessage(value: unknown, callback: (error?: Error | null) => void): void {
    let message: Buffer
    try {
      message = this.method.definition.responseSerialize(value)
      if (!isUint8Array(message)) throw new TypeError("the serializer gave no bytes")
    } catch (error) {
      const detail = `The response could not be serialized: ${error instanceof Error ? error.message : String(error)}`
      this.feed({ _tag: "Status", status: makeStatus(Code.INTERNAL, detail) })
      this.callBack(callback, null)
      return
    }
    if (this.writeCallbacks === none) this.writeCallbacks = [callback]
    else this.writeCallbacks.push(callback)
    this.feed({ _tag: "Reply", message })
  }

  sendStatus(status: RpcStatus): void {
    this.feed({ _tag: "Status", status })
  }

  protected written(): void {
    const callback = this.writeCallbacks.shift()
    if (this.writeCallbacks.length === 0) this.writeCallbacks = none
    if (callback !== undefined) this.callBack(callback, null)
  }

  protected neverWritten(): void {
    const callbacks = this.writeCallbacks
    if (callbacks.length === 0) return
    this.writeCallbacks = none
    const error = new PeerGone({ streamId: this.id, method: this.path })
    for (const callback of callbacks) this.callBack(callback, error)
  }

  private callBack(callback: (error?: Error | null) => void, error: Error | null): void {
    try {
      callback(error)
    } catch (thrown) {
      this.link.failed(`write callback of ${this.path}`, thrown)
    }
  }

  // ── what the handler is told ───────────────────────────────────────────────────────────────────────────────

  protected startHandler(bytes: Buffer | undefined): void {
    const { definition } = this.method
    const plain = entranceOf(this.method.handler)
    if (plain !== undefined) {
      try {
        this.receiver = plain(this, bytes)
        if (definition.requestStream || definition.responseStream) this.sent.pack()
      } catch (error) {
        this.handlerFailed(error)
      }
      return
    }
    let request: unknown
    try {
      if (bytes !== undefined) request = definition.requestDeserialize(bytes)
    } catch (error) {
      this.undecodable(error)
      return
    }
    const { requestStream, responseStream } = definition
    const call = requestStream
      ? responseStream
        ? duplexCall(this)
        : readableCall(this)
      : responseStream
        ? writableCall(this, request)
        : unaryCall(this, request)
    this.call = call
    try {
      const result = responseStream ? this.method.handler(call) : this.method.handler(call, responder(this))
      if (!isThenable(result)) return
      this.handlerEnd = new Settlement(result, (error) => this.handlerFailed(error))
      this.handlerEnd.whenSettled(() => call.tellLeft())
    } catch (error) {
      this.handlerFailed(error)
    }
  }

  private handlerFailed(error: unknown): void {
    this.sendStatus(statusOfError(error))
  }

  private undecodable(error: unknown): void {
    const detail = `The request could not be deserialized: ${error instanceof Error ? error.message : String(error)}`
    this.fault(makeStatus(Code.INTERNAL, detail))
  }

  /** A request that was taken is handed over, and the end behind it if that has come. */
  protected handOver(message: Buffer): void {
    this.taken--
    this.push(message)
    this.pushPendingEnd()
  }

  protected handOverEnd(): void {
    this.endPending = true
    this.pushPendingEnd()
  }

  private push(message: Buffer): void {
    const { call, receiver } = this
    if (receiver !== undefined) {
      this.link.guard(`request stream of ${this.path}`, () => receiver.onMessage(message))
      return
    }
    if (call === undefined || !("push" in call)) return
    let value: unknown
    try {
      value = this.method.definition.requestDeserialize(message)
    } catch (error) {
      this.undecodable(error)
      return
    }
    this.link.guard(`request stream of ${this.path}`, () =>
      (call as unknown as { push: (v: unknown) => void }).push(value)
    )
  }

  private pushEnd(): void {
    this.endPending = false
    const { call, receiver } = this
    if (receiver !== undefined) {
      this.link.guard(`request stream of ${this.path}`, () => receiver.onEnd())
      return
    }
    if (call === undefined || !("push" in call)) return
    this.link.guard(`request stream of ${this.path}`, () =>
      (call as unknown as { push: (v: null) => void }).push(null)
    )
  }

  protected tellHandler(reason: CancelReason): void {
    this.reason = reason
    this.link.guard(`abort listener of ${this.path}`, () => this.abort?.abort(reason))
    const { call, receiver } = this
    if (receiver !== undefined) this.link.guard(`handler of ${this.path}`, () => receiver.onCancelled(reason))
    if (call !== undefined)
      this.link.guard(`cancelled listener of ${this.path}`, () => call.tellCancelled(reason))
    this.neverWritten()
  }
}
