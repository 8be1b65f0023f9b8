/**
 * One stream at the tunnel client: grpc-js' `Call` on one side, the wire on the other, the pure machine inside.
 *
 * **Invariants**
 * 1. Nothing reaches the wire before the call's credentials, metadata and limits have been checked.
 * 2. At most one message per `startRead`, none after the status, and the status exactly once, never inside a call
 *    of the stub's own.
 * 3. Closing runs in finalizers: `wire`, then `status`, then `registry`. None is skipped and each runs once.
 * 4. The stream's id is taken in the turn in which its `NewStream` is queued, so ids are in order on the wire.
 */
import { isUint8Array } from "node:util/types"
import { CancelReason } from "@curfew/reason"
import { type CallCredentials, status as Code, type experimental, Metadata } from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { StreamFinalizer, StreamPhase, StreamRef } from "../TunnelEvent.ts"
import { afterTurn } from "./bridge.ts"
import type { ClientEngine } from "./clientEngine.ts"
import * as Machine from "./clientStream.ts"
import { credentialsMetadata } from "./credentials.ts"
import { type Conclusion, faultReason, StreamDriver } from "./driver.ts"
import { noBytes, type ServerFrame } from "./frame.ts"
import { drainingDetails, shuttingDownDetails } from "./link.ts"
import { MetadataProblem, metadataFromWire, metadataToWire } from "./metadata.ts"
import { reasonToWire } from "./reasonWire.ts"
import { makeStatus, type RpcStatus, statusFromWire } from "./rpcStatus.ts"
import { formatTimeout } from "./timeout.ts"
import { SendWindow } from "./window.ts"
import { Outbound } from "./writer.ts"

type Call = experimental.CallStream
type Listener = Parameters<Call["start"]>[1]

const finalizers: ReadonlyArray<StreamFinalizer> = ["wire", "status", "registry"]

const phases: Readonly<Record<Machine.State["_tag"], StreamPhase>> = {
  Idle: "starting",
  Open: "open",
  Draining: "draining",
  Ended: "draining",
  Closed: "draining"
}

/** Where a caller finds out that a call takes a typed reason, without this package. */
export const cancelWithReason: unique symbol = Symbol.for("curfew.cancel") as never

/** Where a caller finds the clock by which the tunnel ends the call at its deadline. */
const deadlineClock: unique symbol = Symbol.for("curfew.clock") as never

export interface Outgoing {
  readonly number: number
  readonly method: string
  /** The stub takes one answer and no more. */
  readonly oneAnswer: boolean
  readonly host: string
  /** Milliseconds since the epoch, or infinity. */
  readonly deadline: number
}

export class ClientCall extends StreamDriver<Machine.State, Machine.Event, Machine.Action> implements Call {
  protected state: Machine.State = Machine.initial
  private readonly engine: ClientEngine
  private readonly outgoing: Outgoing
  private answer: RpcStatus | undefined
  private entered = 0
  private answers = 0
  private headers: Buffer = noBytes
  /** Kept only while credentials are asked for. */
  private metadata: Metadata | undefined
  private listener: Listener | undefined
  private credentials: CallCredentials | undefined
  private writeCallback: ((error?: Error | null) => void) | undefined
  /** Runs when the stream is over, wherever it ended. */
  onOver: (() => void) | undefined
  id = 0
  private turnedAway = false
  private answered = false

  constructor(engine: ClientEngine, outgoing: Outgoing) {
    const { revision } = engine
    super(engine.link, new Outbound(new SendWindow(0, revision)), Code.INTERNAL, revision, outgoing.method)
    this.engine = engine
    this.outgoing = outgoing
  }

  protected get title(): string {
    return `${this.outgoing.method} ${this.outgoing.number}`
  }

  protected get ref(): StreamRef {
    return { tunnel: this.link.id, side: "client", stream: this.id, method: this.outgoing.method }
  }

  /**
   * Whether no handler has had the call, and none will: its tunnel drains, or has ended before the call was on the wire.
   * Only a peer that announces its drains says so without a doubt: its refusal has no trailers, and names the drain.
   */
  get untouched(): boolean {
    return this.turnedAway
  }

  // ── what the stub calls ────────────────────────────────────────────────────────────────────────────────────

  start(metadata: Metadata, listener: Listener): void {
    this.listener = listener
    this.enter(() => {
      const { calls, end } = this.link
      if (end !== undefined) {
        this.turnedAway = true
        const status = makeStatus(Code.UNAVAILABLE, "The tunnel is closed")
        return afterTurn(() => listener.onReceiveStatus(status))
      }
      calls.enter()
      this.enterTunnel()
      this.openedAt = this.link.now()
      this.armDeadline()
      const { credentials } = this
      if (credentials === undefined) this.send(metadata)
      else {
        // The caller may change its metadata while the credentials are asked for.
        const own = metadata.clone()
        this.metadata = own
        this.beginAfter(this.authenticate(credentials, own), `credentials of ${this.outgoing.method}`)
      }
    })
  }

  sendMessageWithContext(context: { callback?: (error?: Error | null) => void }, message: Buffer): void {
    this.writeCallback = context.callback
    if (isUint8Array(message)) this.enter(() => this.feed({ _tag: "Send", message }))
    else
      this.cancelWithStatus(
        Code.INTERNAL,
        "The request could not be serialized: the serializer gave no bytes"
      )
  }

  halfClose(): void {
    this.enter(() => this.feed({ _tag: "HalfClose" }))
  }

  startRead(): void {
    this.enter(() => {
      const { _tag } = this.state
      if (_tag === "Ended" || _tag === "Closed") return
      this.readNext()
      if (this.state._tag === "Draining" && !this.unread) this.feed({ _tag: "Drained" })
    })
  }

  cancelWithStatus(code: number, details: string): void {
    this[cancelWithReason](code, details, CancelReason.Requested({ message: details }))
  }

  /** Cancels with a reason that says more than its status; a peer of this library hears of it. */
  [cancelWithReason](code: number, details: string, reason: CancelReason): void {
    this.enter(() => this.feed({ _tag: "Cancel", status: makeStatus(code, details), reason }))
  }

  get [deadlineClock](): Clock.Clock {
    return this.link.clock
  }

  setCredentials(credentials: CallCredentials): void {
    this.credentials = credentials
  }

  getPeer(): string {
    return this.link.carrier.peer
  }

  getCallNumber(): number {
    return this.outgoing.number
  }

  getAuthContext(): ReturnType<Call["getAuthContext"]> {
    return this.link.authContext as ReturnType<Call["getAuthContext"]>
  }

  private enter(run: () => void): void {
    this.entered++
    try {
      run()
    } finally {
      this.entered--
    }
  }

  // ── beginning and closing ──────────────────────────────────────────────────────────────────────────────────

  private armDeadline(): void {
    const { deadline } = this.outgoing
    if (deadline === Number.POSITIVE_INFINITY) return
    const remaining = deadline - this.link.clock.currentTimeMillisUnsafe()
    if (remaining <= 0) {
      this.fire()
      return
    }
    this.at = this.openedAt + remaining
    this.link.deadlines.add(this)
  }

  fire(): void {
    const { deadline, method } = this.outgoing
    const reason = CancelReason.Deadline({ at: deadline, origin: "local", scope: method })
    this.feed({ _tag: "Deadline", reason })
  }

  private authenticate(credentials: CallCredentials, into: Metadata): Effect.Effect<void> {
    const { carrier, limits } = this.link
    const allowed = carrier.secure || limits.insecureCredentials
    return Effect.match(credentialsMetadata(credentials, { ...this.outgoing, allowed }), {
      onSuccess: (metadata) => into.merge(metadata),
      onFailure: ({ code, details }) => this.refuse(code, details)
    })
  }

  /** Ends a call that never reached the wire. */
  private refuse(code: number, details: string): void {
    this.link.counters.refused++
    this.link.observe?.({ _tag: "StreamRefused", code, details, ...this.ref })
    this.fault(makeStatus(code, details))
  }

  protected begin(): void {
    if (this.metadata !== undefined) this.send(this.metadata)
  }

  /** Opens the stream with its metadata, which is encoded here and not kept. */
  private send(metadata: Metadata): void {
    if (this.state._tag !== "Idle") return
    const { deadline } = this.outgoing
    const { clock, limits } = this.link
    const timeout =
      deadline === Number.POSITIVE_INFINITY
        ? undefined
        : formatTimeout(deadline - clock.currentTimeMillisUnsafe())
    const { maxMetadataSize, maxStreams } = limits
    const headers = metadataToWire(metadata, this.link.anyBytes, timeout)
    if (this.link.draining) {
      this.turnedAway = true
      this.refuse(Code.UNAVAILABLE, drainingDetails)
    } else if (headers instanceof MetadataProblem) this.refuse(Code.INTERNAL, headers.detail)
    else if (headers.length + this.outgoing.method.length > maxMetadataSize) {
      this.refuse(Code.RESOURCE_EXHAUSTED, `The request metadata is larger than ${maxMetadataSize} bytes`)
    } else if (this.engine.size >= maxStreams) {
      this.refuse(Code.RESOURCE_EXHAUSTED, `More than ${maxStreams} streams at the same time`)
    } else {
      this.headers = headers
      this.feed({ _tag: "Start" })
      this.headers = noBytes
    }
  }

  protected get finalizers(): ReadonlyArray<StreamFinalizer> {
    return finalizers
  }

  protected finalize(
    name: StreamFinalizer,
    reason: CancelReason | undefined
  ): Effect.Effect<unknown> | undefined {
    if (name === "wire") this.closeWire(reason)
    else if (name === "registry") this.unregister()
    // Never inside a call of the stub's own.
    else if (this.entered > 0)
      return Effect.andThen(
        Effect.yieldNow,
        Effect.sync(() => this.deliverStatus())
      )
    else this.deliverStatus()
    return undefined
  }

  private closeWire(reason: CancelReason | undefined): void {
    if (this.state._tag !== "Ended") {
      // Rule `loss-is-unavailable`.
      const status = makeStatus(Code.UNAVAILABLE, this.engine.farewell)
      this.feed({ _tag: "TunnelGone", status, reason: reason ?? this.link.reason })
    }
    this.releaseTimer()
    this.feed({ _tag: "Finalize" })
    this.drop()
    this.written()
  }

  private deliverStatus(): void {
    const { answer, listener } = this
    this.answer = undefined
    if (answer === undefined || listener === undefined) return
    try {
      listener.onReceiveStatus(answer)
    } catch (error) {
      this.threw("status listener", error)
    }
  }

  private unregister(): void {
    this.link.held.holders.delete(this)
    this.onOver?.()
    if (this.id > 0) this.engine.forget(this.id)
    this.link.calls.leave()
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
    return { status, cancelled: by === "peer" ? undefined : { by, reason, phase: phases[before._tag] } }
  }

  protected perform(action: Machine.Action): void {
    const { link, outbound } = this
    switch (action._tag) {
      case "SendNewStream":
        this.open()
        return
      case "QueueMessage":
        this.queue(action.message, () => this.written())
        return
      case "QueueHalfClose":
        link.outbox.halfClose(outbound)
        return
      case "DeliverHeaders":
        this.deliverHeaders(action.metadata)
        return
      case "Abort":
        link.outbox.discard(outbound)
        // A server that has not heard of the stream is not told of its end either.
        if (action.cancel && !link.outbox.retract(this.id)) {
          link.outbox.urgent(this.cancelFrame(action.reason))
        }
        return
      case "DeliverStatus":
        // It has a finalizer of its own, so that a broken listener cannot hold up the wire.
        this.answer = action.status
        return
      case "Late":
        this.late(action.what)
        return
      case "Finish":
        this.finish(action.reason)
    }
  }

  private cancelFrame(reason: CancelReason | undefined) {
    const told = reason !== undefined && this.link.carrier.extensions.has("cancel-reason")
    return { _tag: "Cancel", id: this.id, reason: told ? reasonToWire(reason) : undefined } as const
  }

  private open(): void {
    const { limits, outbox } = this.link
    this.engine.register(this)
    this.noteOpened()
    outbox.urgent({
      _tag: "NewStream",
      id: this.id,
      method: this.outgoing.method,
      headers: this.headers,
      window: limits.window + this.window.start(),
      revision: this.engine.revision
    })
    outbox.open(this.outbound, this.id)
    this.grant(this.engine.initialCredit)
  }

  private written(): void {
    const callback = this.writeCallback
    this.writeCallback = undefined
    if (callback === undefined) return
    try {
      callback()
    } catch (error) {
      this.threw("write callback", error)
    }
  }

  private deliverHeaders(metadata: Metadata): void {
    try {
      this.listener?.onReceiveMetadata(metadata)
    } catch (error) {
      this.threw("metadata listener", error)
    }
  }

  /** What a listener of the stub's threw is reported, and goes no further. */
  private threw(what: string, error: unknown): void {
    this.link.failed(`${what} of ${this.outgoing.method}`, error)
  }

  private late(what: Machine.LateWrite): void {
    this.noteLate(what, "caller")
    if (what === "message") this.written()
  }

  // ── frames in ──────────────────────────────────────────────────────────────────────────────────────────────

  deliver(frame: Exclude<ServerFrame, { _tag: "Settings" }>): void {
    switch (frame._tag) {
      case "ResponseHeaders": {
        this.answered = true
        const metadata = this.checked(frame.headers.length) ?? metadataFromWire(frame.headers)
        if (metadata instanceof Metadata) this.feed({ _tag: "Headers", metadata })
        else if (metadata instanceof MetadataProblem) this.fault(makeStatus(Code.INTERNAL, metadata.detail))
        else this.fault(metadata, "metadata size")
        return
      }
      case "Message":
        if (++this.answers > 1 && this.outgoing.oneAnswer)
          this.fault(makeStatus(Code.INTERNAL, "A second answer came for a call that takes one"))
        else this.data(frame.size, frame.data)
        return
      case "MoreData":
        this.data(-1, frame.data)
        return
      case "CloseStream": {
        const status =
          this.checked((frame.trailers?.length ?? 0) + (frame.status?.length ?? 0)) ??
          statusFromWire(frame.trailers, frame.status)
        this.turnedAway = frame.trailers === undefined && this.saysDraining(status)
        this.feed({
          _tag: "Close",
          status: status instanceof MetadataProblem ? makeStatus(Code.INTERNAL, status.detail) : status,
          unread: this.unread,
          truncated: this.partial
        })
        return
      }
      case "WindowUpdate":
        this.grant(frame.increment)
        return
      case "Drain":
      case "Unset":
        this.fault(makeStatus(Code.INTERNAL, "A frame of a kind that this end does not know"))
        return
    }
  }

  private saysDraining(status: RpcStatus | MetadataProblem): boolean {
    if (this.answered || this.answers > 0 || status instanceof MetadataProblem) return false
    const { carrier, draining } = this.link
    const { code, details } = status
    return (
      draining &&
      carrier.extensions.has("drain") &&
      code === Code.UNAVAILABLE &&
      (details === drainingDetails || details === shuttingDownDetails)
    )
  }

  fault(status: RpcStatus, limit?: string): void {
    this.feed({ _tag: "Fault", status, reason: faultReason(status, limit) })
  }

  private checked(size: number): RpcStatus | undefined {
    const { maxMetadataSize } = this.link.limits
    if (size <= maxMetadataSize) return undefined
    return makeStatus(
      Code.RESOURCE_EXHAUSTED,
      `The response metadata is larger than ${maxMetadataSize} bytes`
    )
  }

  protected take(message: Buffer): void {
    try {
      this.listener?.onReceiveMessage(message)
    } catch (error) {
      this.threw("message listener", error)
    }
  }
}
