/**
 * One stream at the tunnel client: its stub on one side, the wire on the other, the pure machine inside.
 *
 * **Invariants**
 * 1. Closing runs in finalizers: `wire`, then `status`, then `registry`. None is skipped and each runs once.
 * 2. The stream's id is taken in the turn in which its `NewStream` is queued, so ids are in order on the wire.
 * 3. A call is `untouched` only where no handler has had it, and none will.
 */
import { CancelReason } from "@curfew/reason"
import { status as Code, Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { StreamFinalizer, StreamPhase, StreamRef } from "../TunnelEvent.ts"
import type { ClientEngine } from "./clientEngine.ts"
import * as Machine from "./clientStream.ts"
import type { Conclusion } from "./closing.ts"
import { faultReason } from "./driver.ts"
import { noBytes, type ServerFrame } from "./frame.ts"
import { drainingDetails, shuttingDownDetails } from "./link.ts"
import { MetadataProblem, metadataToWire } from "./metadata.ts"
import { metadataFromWire } from "./metadataFromWire.ts"
import { reasonToWire } from "./reasonWire.ts"
import { makeStatus, type RpcStatus, statusFromWire } from "./rpcStatus.ts"
import { type Outgoing, StubCall } from "./stubCall.ts"
import { formatTimeout } from "./timeout.ts"

const finalizers: ReadonlyArray<StreamFinalizer> = ["wire", "status", "registry"]

const phases: Readonly<Record<Machine.State["_tag"], StreamPhase>> = {
  Idle: "starting",
  Open: "open",
  Draining: "draining",
  Ended: "draining",
  Closed: "draining"
}

export class ClientCall extends StubCall {
  protected state: Machine.State = Machine.initial
  private readonly engine: ClientEngine
  private answers = 0
  private headers: Buffer = noBytes
  /** Runs when the stream is over, wherever it ended. */
  onOver: (() => void) | undefined
  id = 0
  private answered = false

  constructor(engine: ClientEngine, outgoing: Outgoing) {
    super(engine.link, engine.revision, outgoing)
    this.engine = engine
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

  // ── beginning and closing ───────────────────────────────────────────────────────────────────────────────────

  protected send(metadata: Metadata): void {
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
}
