/**
 * The stub's side of a stream at the tunnel client: what grpc-js' `Call` is asked, and what its listener is told.
 *
 * **Invariants**
 * 1. Nothing reaches the wire before the call's credentials, metadata and limits have been checked.
 * 2. At most one message per `startRead`, none after the status, and the status exactly once, never inside a call
 *    of the stub's own.
 * 3. What a listener throws is reported, and goes no further.
 */
import { isUint8Array } from "node:util/types"
import { CancelReason } from "@curfew/reason"
import { type CallCredentials, status as Code, type experimental, type Metadata } from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { afterTurn } from "./bridge.ts"
import type * as Machine from "./clientStream.ts"
import { credentialsMetadata } from "./credentials.ts"
import { StreamDriver } from "./driver.ts"
import type { Revision } from "./frame.ts"
import type { Link } from "./link.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"
import { SendWindow } from "./window.ts"
import { Outbound } from "./writer.ts"

type Call = experimental.CallStream
type Listener = Parameters<Call["start"]>[1]

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

export abstract class StubCall
  extends StreamDriver<Machine.State, Machine.Event, Machine.Action>
  implements Call
{
  protected readonly outgoing: Outgoing
  protected answer: RpcStatus | undefined
  protected entered = 0
  /** Kept only while credentials are asked for. */
  private metadata: Metadata | undefined
  private listener: Listener | undefined
  private credentials: CallCredentials | undefined
  private writeCallback: ((error?: Error | null) => void) | undefined
  protected turnedAway = false

  constructor(link: Link, revision: Revision, outgoing: Outgoing) {
    super(link, new Outbound(new SendWindow(0, revision)), Code.INTERNAL, revision, outgoing.method)
    this.outgoing = outgoing
  }

  /** Opens the stream with its metadata, which is encoded here and not kept. */
  protected abstract send(metadata: Metadata): void

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

  // ── beginning ───────────────────────────────────────────────────────────────────────────────────────────────

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
  protected refuse(code: number, details: string): void {
    this.link.counters.refused++
    this.link.observe?.({ _tag: "StreamRefused", code, details, ...this.ref })
    this.fault(makeStatus(code, details))
  }

  protected begin(): void {
    if (this.metadata !== undefined) this.send(this.metadata)
  }

  // ── what its listener is told ───────────────────────────────────────────────────────────────────────────────

  protected deliverStatus(): void {
    const { answer, listener } = this
    this.answer = undefined
    if (answer === undefined || listener === undefined) return
    try {
      listener.onReceiveStatus(answer)
    } catch (error) {
      this.threw("status listener", error)
    }
  }

  protected written(): void {
    const callback = this.writeCallback
    this.writeCallback = undefined
    if (callback === undefined) return
    try {
      callback()
    } catch (error) {
      this.threw("write callback", error)
    }
  }

  protected deliverHeaders(metadata: Metadata): void {
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

  protected take(message: Buffer): void {
    try {
      this.listener?.onReceiveMessage(message)
    } catch (error) {
      this.threw("message listener", error)
    }
  }
}
