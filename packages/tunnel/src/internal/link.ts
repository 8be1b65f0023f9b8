/**
 * One tunnel's plumbing, the same for both roles: the carrier, the writer, the deadlines, the streams, and the one place
 * where the tunnel's end is decided. What starts and ends it all stands in `makeLink.ts`.
 *
 * **Invariants**
 * 1. The first end wins; it is decided synchronously and seen by every later frame.
 * 2. What other people's callbacks throw becomes the failure of a task, reported once, and never unwinds a frame.
 */
import type { PeerCertificate } from "node:tls"
import { CancelReason } from "@curfew/reason"
import type { CancelCell } from "@curfew/reason/CancelCell"
import { Instant, type Task } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import type { Metadata } from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { TunnelOrigin } from "../TunnelAuth.ts"
import { ProtocolViolation, type TunnelRule } from "../TunnelError.ts"
import type { DrainedBy, Side, TunnelEnd, TunnelEvent, TunnelKind } from "../TunnelEvent.ts"
import { Admission } from "./admission.ts"
import type { Carrier } from "./carrier.ts"
import { Deadlines } from "./deadlines.ts"
import { longPiece, type ServerFrame, tunnelId } from "./frame.ts"
import { Growth } from "./growth.ts"
import { Held } from "./held.ts"
import type { Limits } from "./limits.ts"
import type { RpcStatus } from "./rpcStatus.ts"
import { Outbox } from "./writer.ts"

/** What grpc-js' `getAuthContext` gives. */
export interface AuthContext {
  readonly transportSecurityType?: string
  readonly sslPeerCertificate?: PeerCertificate | undefined
}

export interface Counters {
  opened: number
  cancelled: number
  refused: number
  lateWrites: number
}

/** What a call is told that cannot be made because its tunnel drains. */
export const drainingDetails = "The tunnel is draining: make the call over another one"

/** What a call is told that cannot be made because everything drains that the tunnel leads to. */
export const shuttingDownDetails = "The server is shutting down"

export class Link {
  readonly id: number
  readonly side: Side
  readonly kind: TunnelKind
  readonly carrier: Carrier
  readonly limits: Limits
  readonly observe: ((event: TunnelEvent) => void) | undefined
  readonly held: Held
  readonly outbox: Outbox
  /** What the windows of its streams may grow to. */
  readonly growth: Growth
  readonly deadlines = new Deadlines()
  /** Who is at the other end, for handlers and hooks. */
  readonly origin: TunnelOrigin
  /** TLS below the tunnel, as grpc-js tells it; one object for each tunnel, by which calls find theirs. */
  readonly authContext: AuthContext
  /** Lets a call in before its handler starts, or gives the status that it ends with. */
  authorize: ((method: string, metadata: Metadata) => Effect.Effect<void, RpcStatus>) | undefined
  readonly counters: Counters = { opened: 0, cancelled: 0, refused: 0, lateWrites: 0 }
  readonly clock: Clock.Clock
  readonly ending: Deferred.Deferred<TunnelEnd> = Deferred.makeUnsafe<TunnelEnd>()
  /** The streams of this tunnel; it refuses new ones once this end drains. */
  readonly calls: Admission
  /** Completes when one of the ends has announced that it drains. */
  readonly drained: Deferred.Deferred<DrainedBy> = Deferred.makeUnsafe<DrainedBy>()
  private peerDrains = false
  /**
   * Whether the values of `-bin` keys may be any bytes. Other peers take protobuf strings, and lose the tunnel over
   * less.
   */
  readonly anyBytes: boolean
  /** Under this one the streams stand in the live tree. */
  cell: CancelCell | undefined
  /** Starts work that a stream needs; `undefined` once the tunnel is closing. */
  spawn: <A, E>(work: Effect.Effect<A, E>, name: string) => Task<A, E> | undefined = () => undefined
  /** Closings that had to wait when no task could be started any more: the tunnel's own end runs them. */
  private closings: Array<Effect.Effect<unknown>> = []
  /** Starts work that belongs to no stream; false once the plumbing has closed. */
  note: (work: Effect.Effect<unknown>, name: string) => boolean = () => false
  end: TunnelEnd | undefined

  constructor(setup: Setup, clock: Clock.Clock) {
    this.id = setup.id
    this.side = setup.side
    this.anyBytes = setup.carrier.extensions.has("binary-metadata")
    this.kind = setup.kind
    this.carrier = setup.carrier
    this.limits = setup.limits
    const { certificate, identity, metadata, peer, secure } = setup.carrier
    this.origin = { kind: setup.kind, peer, metadata, secure, certificate, identity }
    this.authContext = secure ? { transportSecurityType: "ssl", sslPeerCertificate: certificate } : {}
    this.held = new Held(setup.limits.maxBuffered)
    this.outbox = new Outbox(this.held)
    const { maxBuffered, maxWindow, window } = setup.limits
    const bulk = setup.carrier.extensions.has("bulk")
    this.growth = bulk ? new Growth(window, maxWindow, maxBuffered / 4, () => this.now()) : new Growth(window)
    if (bulk) this.outbox.longest = longPiece
    // A deadline that has passed by the end of the turn comes before the answer.
    this.outbox.alone = () => this.held.holders.few && !this.deadlines.woken
    this.calls = new Admission(setup.limits.maxHandlers)
    const { observer } = setup
    this.observe = observer && ((event) => this.guard("tunnel observer", () => observer(event)))
    this.clock = clock
  }

  /** Monotonic milliseconds. */
  now(): number {
    return Instant.nowOf(this.clock)
  }

  close(end: TunnelEnd): void {
    if (this.end !== undefined) return
    this.end = end
    Deferred.doneUnsafe(this.ending, Effect.succeed(end))
  }

  /** Closes every stream, for the end that was decided or else for the reason of whoever ends the tunnel. */
  closeStreams(reason: CancelReason): void {
    this.close({ _tag: "ClosedHere", reason })
    for (const stream of [...this.held.holders]) stream.close(reason)
  }

  /** Goes on with a closing that has to wait. */
  closeLater(closing: Effect.Effect<void>, name: string): void {
    if (this.spawn(closing, name) === undefined) this.closings.push(closing)
  }

  /** Waits until the last stream has closed; each wait in it is bounded. To be called after `closeStreams`. */
  readonly streamsClosed: Effect.Effect<void> = Effect.suspend(() => {
    const { closings } = this
    if (closings.length === 0)
      return Effect.asVoid(boundedAt(this.calls.idle(), { name: "streams of a tunnel" }))
    this.closings = []
    return Effect.andThen(
      Effect.forEach(closings, (closing) => closing, { concurrency: "unbounded", discard: true }),
      this.streamsClosed
    )
  })

  /** Whether one of the ends drains: nobody opens streams on this tunnel any more. */
  get draining(): boolean {
    return this.calls.refusing || this.peerDrains
  }

  /** Rule `drain-announced`: refuses new streams at this end from now on, and tells a peer that listens for it. */
  drain(): void {
    if (this.calls.refusing) return
    this.calls.refuse()
    if (this.end === undefined && this.carrier.extensions.has("drain")) {
      this.outbox.urgent({ _tag: "Drain", id: tunnelId })
    }
    this.noteDraining("here")
  }

  /** The peer announced that it drains. From a peer that has not agreed to say so it means nothing. */
  drainedByPeer(): void {
    if (this.peerDrains || !this.carrier.extensions.has("drain")) return
    this.peerDrains = true
    this.noteDraining("peer")
  }

  private noteDraining(by: DrainedBy): void {
    this.observe?.({ _tag: "TunnelDraining", tunnel: this.id, side: this.side, by })
    Deferred.doneUnsafe(this.drained, Effect.succeed(by))
  }

  violated(rule: TunnelRule, detail: string, streamId?: number): void {
    this.close({ _tag: "Violated", error: new ProtocolViolation({ rule, detail, streamId }) })
  }

  /**
   * Sends an answer that the peer provoked. Rule `answers-unread`: it ends the tunnel when the peer provokes without
   * reading.
   */
  answer(frame: ServerFrame): void {
    if (this.outbox.provoked(frame)) return
    this.violated("answers-unread", "the peer provokes answers without reading them")
  }

  /** Why the streams of this tunnel end with it. */
  get reason(): CancelReason {
    return reasonOf(this.end)
  }

  /** Runs other people's code; what it throws is reported, and goes no further. */
  guard(what: string, run: () => void): void {
    try {
      run()
    } catch (error) {
      this.failed(what, error)
    }
  }

  /** Reports what was thrown, as the failure of a task. */
  failed(what: string, error: unknown): void {
    // After the tunnel has closed there is no task left to fail; the process is told instead, and goes on.
    if (!this.note(Effect.die(error), what)) warn(what, error)
  }
}

const warn = (what: string, error: unknown): void =>
  process.emitWarning(`The ${what} of a tunnel that has closed threw: ${String(error)}`, {
    code: "CURFEW_TUNNEL"
  })

export interface Setup {
  readonly id: number
  readonly side: Side
  readonly kind: TunnelKind
  readonly carrier: Carrier
  readonly limits: Limits
  readonly observer: ((event: TunnelEvent) => void) | undefined
}

const reasonOf = (end: TunnelEnd | undefined): CancelReason => {
  if (end === undefined) return CancelReason.Shutdown({ phase: "force" })
  switch (end._tag) {
    case "ClosedHere":
      return end.reason
    case "ClosedByPeer":
      return CancelReason.ClientGone({ transport: "tunnel", detail: "the peer closed the tunnel" })
    case "Lost":
    case "Violated":
      return CancelReason.ClientGone({ transport: "tunnel", detail: end.error.message })
  }
}
