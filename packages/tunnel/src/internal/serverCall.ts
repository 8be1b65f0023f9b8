/**
 * One stream at the tunnel server: wire and handler on the outside, the pure machine inside.
 *
 * **Invariants**
 * 1. The handler runs in the stream's own turn, and what it throws is its answer.
 * 2. The stream lives until the outcome is on the wire or the stream is cancelled, and until the promise of an
 *    `async` handler has settled. That wait is bounded by the clean-up budget.
 * 3. Closing runs in finalizers: `wire`, then `handler`, then `registry`. None is skipped and each runs once.
 * 4. A tunnel that is closed at this end lets an answer leave that was handed over before.
 * 5. The registry holds the stream exactly as long as it lives.
 */
import { isUint8Array } from "node:util/types"
import { CancelReason } from "@curfew/reason"
import { boundedAt } from "@curfew/scope/bounded"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { RegisteredMethod } from "../Services.ts"
import type { TunnelOrigin } from "../TunnelAuth.ts"
import { PeerGone } from "../TunnelError.ts"
import type { StreamFinalizer, StreamPhase, StreamRef } from "../TunnelEvent.ts"
import { isThenable, Settlement } from "./bridge.ts"
import type { CallInfo } from "./callInfo.ts"
import {
  type CallObject,
  duplexCall,
  type Host,
  readableCall,
  responder,
  statusOfError,
  unaryCall,
  writableCall
} from "./callObjects.ts"
import { type Conclusion, faultReason, StreamDriver } from "./driver.ts"
import type { Revision } from "./frame.ts"
import type { AuthContext } from "./link.ts"
import { MetadataProblem, metadataToWire } from "./metadata.ts"
import { entranceOf, type PlainCall, type PlainReceiver } from "./plainCall.ts"
import { RequestMetadata } from "./requestMetadata.ts"
import { makeStatus, type RpcStatus, refusalToWire, statusToWire } from "./rpcStatus.ts"
import type { ServerEngine } from "./serverEngine.ts"
import * as Machine from "./serverStream.ts"
import { SendWindow } from "./window.ts"
import { Outbound } from "./writer.ts"

const finalizers: ReadonlyArray<StreamFinalizer> = ["wire", "handler", "registry"]

const phases: Readonly<Record<Machine.State["_tag"], StreamPhase>> = {
  Gathering: "request",
  Running: "running",
  Finishing: "finishing",
  Ended: "finishing",
  Closed: "finishing"
}

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

export class ServerCall
  extends StreamDriver<Machine.State, Machine.Event, Machine.Action>
  implements Host, PlainCall
{
  readonly id: number
  readonly path: string
  private readonly sent: RequestMetadata
  readonly deadline: number
  protected state: Machine.State = { _tag: "Gathering", request: undefined }
  private readonly method: RegisteredMethod
  private readonly engine: ServerEngine
  /** Why the call was cancelled, for the handler. */
  reason: CancelReason | undefined
  abort: AbortController | undefined
  private call: CallObject | undefined
  /** In place of a call object, where the handler has an entrance for plain calls. */
  private receiver: PlainReceiver | undefined
  private handlerEnd: Settlement | undefined
  /** Of the writes that wait, in order. A Node stream has one at a time; a destroyed one passes on what it gets. */
  private writeCallbacks: Array<(error?: Error | null) => void> = none
  private onEnded: (() => void) | undefined
  private endPending = false
  /** Requests that were taken for the handler and not handed over: one that is read within a step waits for its end. */
  private taken = 0
  private asking = false
  private endedWhileAsking = false

  constructor(engine: ServerEngine, incoming: Incoming) {
    const { id, revision, window } = incoming
    const { link } = engine
    super(
      link,
      new Outbound(new SendWindow(window, revision), id),
      Code.INVALID_ARGUMENT,
      revision,
      incoming.path
    )
    this.id = incoming.id
    this.path = incoming.path
    this.method = incoming.method
    this.sent = new RequestMetadata(incoming.metadata)
    this.engine = engine
    this.openedAt = link.now()
    const { timeout } = incoming
    this.deadline =
      timeout === undefined ? Number.POSITIVE_INFINITY : link.clock.currentTimeMillisUnsafe() + timeout
    if (timeout !== undefined && Number.isFinite(timeout)) {
      this.at = this.openedAt + timeout
      link.deadlines.add(this)
    }
  }

  fire(): void {
    const reason = CancelReason.Deadline({ at: this.deadline, origin: "remote", scope: this.path })
    this.feed({ _tag: "Deadline", reason })
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

  protected get title(): string {
    return `${this.path} ${this.id}`
  }

  protected get ref(): StreamRef {
    return { tunnel: this.link.id, side: "server", stream: this.id, method: this.path }
  }

  // ── beginning and closing ──────────────────────────────────────────────────────────────────────────────────

  /** Enters the tunnel, and begins once it may. */
  start(): void {
    this.enterTunnel()
    const { authorize } = this.link
    if (authorize === undefined) {
      this.begin()
      return
    }
    this.asking = true
    this.beginAfter(this.askFirst(authorize(this.path, this.metadata)), `permission of ${this.path}`)
  }

  /** Asks; what comes meanwhile is kept within the window, and a cancel ends the wait. */
  private askFirst(permission: Effect.Effect<void, RpcStatus>): Effect.Effect<void> {
    return Effect.match(permission, {
      onSuccess: () => undefined,
      onFailure: (status) => {
        this.link.counters.refused++
        this.link.observe?.({ _tag: "StreamRefused", ...status, ...this.ref })
        this.fault(status)
      }
    })
  }

  protected begin(): void {
    if (this.state._tag === "Ended" || this.state._tag === "Closed") return
    this.asking = false
    this.noteOpened()
    this.widen()
    this.enterState(Machine.initial(this.method.definition.requestStream))
    if (this.state._tag === "Gathering") this.read()
    if (this.endedWhileAsking) this.halfClose()
  }

  protected get finalizers(): ReadonlyArray<StreamFinalizer> {
    return finalizers
  }

  protected finalize(
    name: StreamFinalizer,
    reason: CancelReason | undefined
  ): Effect.Effect<unknown> | undefined {
    if (name === "wire") return this.closeWire(reason)
    if (name === "registry") return this.unregister()
    const { handlerEnd } = this
    if (handlerEnd === undefined || handlerEnd.isSettled) return undefined
    return boundedAt(handlerEnd.settled, { name: `handler of ${this.path}` })
  }

  private closeWire(reason: CancelReason | undefined): Effect.Effect<unknown> | undefined {
    if (this.state._tag !== "Ended" && this.canStillAnswer) {
      const leaves = boundedAt(this.answered, { name: `answer of ${this.path}` })
      return Effect.andThen(
        leaves,
        Effect.sync(() => this.leaveWire(reason))
      )
    }
    this.leaveWire(reason)
    return undefined
  }

  private leaveWire(reason: CancelReason | undefined): void {
    if (this.state._tag !== "Ended") {
      const status = makeStatus(Code.UNAVAILABLE, "The tunnel ended")
      this.feed({ _tag: "TunnelGone", status, reason: reason ?? this.link.reason })
    }
    this.feed({ _tag: "Finalize" })
    this.releaseTimer()
    this.drop()
    this.neverWritten()
  }

  /** The answer was handed over, and neither the peer nor the connection keeps it from leaving. */
  private get canStillAnswer(): boolean {
    return this.state._tag === "Finishing" && this.link.end?._tag === "ClosedHere" && this.outbound.flushable
  }

  /** Completes when the stream has ended: its answer has left, or never will. */
  private get answered(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      this.onEnded = () => resume(Effect.void)
      return Effect.sync(() => {
        this.onEnded = undefined
      })
    })
  }

  private unregister(): undefined {
    const { engine, handlerEnd } = this
    this.link.held.holders.delete(this)
    engine.forget(this.id)
    // A handler that was left behind still runs, and counts until it does not.
    if (handlerEnd === undefined || handlerEnd.isSettled) engine.handlerGone()
    else handlerEnd.whenSettled(() => engine.handlerGone())
  }

  // ── the machine ────────────────────────────────────────────────────────────────────────────────────────────

  protected step(state: Machine.State, event: Machine.Event): Machine.Transition {
    return Machine.step(state, event)
  }

  protected get takesData(): boolean {
    return Machine.takesData(this.state)
  }

  protected conclusion(before: Machine.State, after: Machine.State): Conclusion | undefined {
    if (after._tag !== "Ended" || before._tag === "Ended") return undefined
    const { by, reason = CancelReason.Unknown(), status } = after
    return { status, cancelled: by === "handler" ? undefined : { by, reason, phase: phases[before._tag] } }
  }

  protected perform(action: Machine.Action): void {
    switch (action._tag) {
      case "StartHandler":
        this.startHandler(action.request)
        return
      case "PushRequest":
        this.taken--
        this.push(action.message)
        this.pushPendingEnd()
        return
      case "PushEnd":
        this.endPending = true
        this.pushPendingEnd()
        return
      case "SendHeaders":
        this.writeHeaders(action.headers)
        return
      case "SendMessage":
        this.queue(action.message, () => this.written())
        return
      case "SendStatus":
        this.writeStatus(action.status)
        return
      case "Abort":
        this.abortWire(action.status)
        return
      case "TellHandler":
        this.tellHandler(action.reason)
        return
      case "Late":
        this.late(action.what)
        return
      case "Finish":
        this.onEnded?.()
        this.finish(action.reason)
    }
  }

  // ── frames in ──────────────────────────────────────────────────────────────────────────────────────────────

  halfClose(): void {
    if (this.asking) this.endedWhileAsking = true
    else if (this.takesData) this.feed({ _tag: "HalfClose", truncated: this.partial })
  }

  fault(status: RpcStatus, limit?: string): void {
    this.feed({ _tag: "Fault", status, reason: faultReason(status, limit) })
  }

  protected take(message: Buffer): void {
    this.taken++
    this.feed({ _tag: "Request", message })
    if (this.state._tag === "Gathering") this.read()
  }

  // ── Host: what the handler's call object asks for ──────────────────────────────────────────────────────────

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

  private written(): void {
    const callback = this.writeCallbacks.shift()
    if (this.writeCallbacks.length === 0) this.writeCallbacks = none
    if (callback !== undefined) this.callBack(callback, null)
  }

  private neverWritten(): void {
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

  // ── actions ────────────────────────────────────────────────────────────────────────────────────────────────

  private startHandler(bytes: Buffer | undefined): void {
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

  private writeHeaders(headers: Buffer | MetadataProblem): void {
    if (headers instanceof MetadataProblem) {
      this.fault(makeStatus(Code.INTERNAL, headers.detail))
      return
    }
    if (headers.length > this.link.limits.maxMetadataSize) {
      this.fault(makeStatus(Code.RESOURCE_EXHAUSTED, this.tooMuchMetadata), "metadata size")
      return
    }
    this.link.outbox.frame(this.outbound, { _tag: "ResponseHeaders", id: this.id, headers })
  }

  private writeStatus(status: RpcStatus): void {
    const wire = this.closeFrame(status)
    this.link.outbox.frame(this.outbound, wire, () => this.feed({ _tag: "Flushed" }))
  }

  private closeFrame(status: RpcStatus) {
    return { _tag: "CloseStream", id: this.id, ...this.closing(status) } as const
  }

  private closing(status: RpcStatus) {
    const wire = statusToWire(status, this.link.anyBytes)
    if (wire instanceof MetadataProblem) return this.instead(Code.INTERNAL, wire.detail)
    const size = wire.trailers.length + (wire.status?.length ?? 0)
    if (size <= this.link.limits.maxMetadataSize) return wire
    return this.instead(Code.RESOURCE_EXHAUSTED, this.tooMuchMetadata)
  }

  /** A status in place of one that cannot be sent; it is what is observed, too. */
  private instead(code: number, details: string) {
    this.replaced = makeStatus(code, details)
    return refusalToWire(code, details)
  }

  private get tooMuchMetadata(): string {
    return `The response metadata is larger than ${this.link.limits.maxMetadataSize} bytes`
  }

  private abortWire(status: RpcStatus | undefined): void {
    const { outbox } = this.link
    const headers = outbox.unsentHeaders(this.outbound)
    outbox.discard(this.outbound)
    if (status === undefined) return
    // The handler has sent them before this happened, so they come before the status all the same.
    if (headers !== undefined) this.link.answer(headers)
    this.link.answer(this.closeFrame(status))
  }

  private tellHandler(reason: CancelReason): void {
    this.reason = reason
    this.link.guard(`abort listener of ${this.path}`, () => this.abort?.abort(reason))
    const { call, receiver } = this
    if (receiver !== undefined) this.link.guard(`handler of ${this.path}`, () => receiver.onCancelled(reason))
    if (call !== undefined)
      this.link.guard(`cancelled listener of ${this.path}`, () => call.tellCancelled(reason))
    this.neverWritten()
  }

  private late(what: Machine.LateWrite): void {
    this.noteLate(what, "handler")
    this.neverWritten()
  }
}
