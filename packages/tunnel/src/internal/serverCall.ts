/**
 * One stream at the tunnel server: the wire on one side, its handler on the other, the pure machine inside.
 *
 * **Invariants**
 * 1. The stream lives until the outcome is on the wire or the stream is cancelled, and until the promise of an
 *    `async` handler has settled. That wait is bounded by the clean-up budget.
 * 2. Closing runs in finalizers: `wire`, then `handler`, then `registry`. None is skipped and each runs once.
 * 3. A tunnel that is closed at this end lets an answer leave that was handed over before.
 * 4. The registry holds the stream exactly as long as it lives.
 */
import { CancelReason } from "@curfew/reason"
import { boundedAt } from "@curfew/scope/bounded"
import { status as Code } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { StreamFinalizer, StreamPhase, StreamRef } from "../TunnelEvent.ts"
import { closingOf, tooMuchMetadata } from "./answering.ts"
import type { Conclusion } from "./closing.ts"
import { faultReason } from "./driver.ts"
import { HandlerCall, type Incoming } from "./handlerCall.ts"
import { MetadataProblem } from "./metadata.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"
import type { ServerEngine } from "./serverEngine.ts"
import * as Machine from "./serverStream.ts"

const finalizers: ReadonlyArray<StreamFinalizer> = ["wire", "handler", "registry"]

const phases: Readonly<Record<Machine.State["_tag"], StreamPhase>> = {
  Gathering: "request",
  Running: "running",
  Finishing: "finishing",
  Ended: "finishing",
  Closed: "finishing"
}

export class ServerCall extends HandlerCall {
  protected state: Machine.State = { _tag: "Gathering", request: undefined }
  private readonly engine: ServerEngine
  private onEnded: (() => void) | undefined
  private asking = false
  private endedWhileAsking = false

  constructor(engine: ServerEngine, incoming: Incoming) {
    super(engine.link, incoming)
    this.engine = engine
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

  fire(): void {
    const reason = CancelReason.Deadline({ at: this.deadline, origin: "remote", scope: this.path })
    this.feed({ _tag: "Deadline", reason })
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
        this.handOver(action.message)
        return
      case "PushEnd":
        this.handOverEnd()
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

  // ── frames out ─────────────────────────────────────────────────────────────────────────────────────────────

  private writeHeaders(headers: Buffer | MetadataProblem): void {
    if (headers instanceof MetadataProblem) {
      this.fault(makeStatus(Code.INTERNAL, headers.detail))
      return
    }
    if (headers.length > this.link.limits.maxMetadataSize) {
      this.fault(
        makeStatus(Code.RESOURCE_EXHAUSTED, tooMuchMetadata(this.link.limits.maxMetadataSize)),
        "metadata size"
      )
      return
    }
    this.link.outbox.frame(this.outbound, { _tag: "ResponseHeaders", id: this.id, headers })
  }

  private writeStatus(status: RpcStatus): void {
    this.link.outbox.frame(this.outbound, this.closeFrame(status), () => this.feed({ _tag: "Flushed" }))
  }

  private closeFrame(status: RpcStatus) {
    const closing = closingOf(status, this.link.anyBytes, this.link.limits.maxMetadataSize)
    if (closing.replaced !== undefined) this.replaced = closing.replaced
    return { _tag: "CloseStream", id: this.id, trailers: closing.trailers, status: closing.status } as const
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

  private late(what: Machine.LateWrite): void {
    this.noteLate(what, "handler")
    this.neverWritten()
  }
}
