/**
 * The tunnel client of one tunnel: negotiation, ids, the registry of streams, and frames on their way to them.
 *
 * **Invariants**
 * 1. No call reaches the wire before the settings have arrived, from a peer that sends them.
 * 2. Rule `ids-in-order`: ids are 1, 2, 3 … in the order in which the streams reach the wire, and are never reused.
 * 3. A frame for an id that was used is delivered, or ignored when the stream is over; a frame for an id that was
 *    never used ends the tunnel.
 */
import { status as Code } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { ProtocolViolation, TunnelOpenError } from "../TunnelError.ts"
import type { ClientCall } from "./clientCall.ts"
import { decodeServerPart } from "./decode.ts"
import {
  type Malformed,
  type Revision,
  revisionZero,
  type ServerFrame,
  type Settings,
  tunnelId
} from "./frame.ts"
import type { Link } from "./link.ts"
import type { OnPiece } from "./messages.ts"
import { makeStatus } from "./rpcStatus.ts"
import { StreamTable } from "./streams.ts"

export class ClientEngine {
  readonly link: Link
  private readonly streams = new StreamTable<ClientCall>()
  private readonly settled = Deferred.makeUnsafe<void, TunnelOpenError>()
  private negotiated = false
  private lastId = 0
  /** What the tunnel server allows on a new stream. */
  initialCredit = 0
  /** What is spoken on new streams: the highest that both ends speak. */
  revision: Revision = revisionZero

  constructor(link: Link) {
    this.link = link
  }

  get size(): number {
    return this.streams.size
  }

  /** Whether a new call may go over this tunnel. */
  get available(): boolean {
    return this.link.end === undefined && !this.link.draining
  }

  /** What a call is told that ends with its tunnel. */
  get farewell(): string {
    const { end } = this.link
    if (end?._tag === "Lost" || end?._tag === "Violated") return end.error.message
    return end?._tag === "ClosedByPeer" ? "The peer closed the tunnel" : "The tunnel was closed"
  }

  /** Completes once the settings have arrived. */
  readonly ready: Effect.Effect<void, TunnelOpenError> = Effect.suspend(() =>
    Effect.raceFirst(
      Deferred.await(this.settled),
      Effect.flatMap(Deferred.await(this.link.ending), () => this.neverReady)
    )
  )

  private get neverReady(): Effect.Effect<never, TunnelOpenError> {
    const { end } = this.link
    if (end?._tag === "Lost")
      return Effect.fail(new TunnelOpenError({ code: end.error.code, details: end.error.details }))
    const code = end?._tag === "Violated" ? Code.INTERNAL : Code.UNAVAILABLE
    return Effect.fail(new TunnelOpenError({ code, details: this.farewell }))
  }

  register(call: ClientCall): void {
    call.id = ++this.lastId
    this.streams.add(call)
  }

  /** Told that there is room for a stream again. */
  onFree: (() => void) | undefined

  forget(id: number): void {
    this.streams.delete(id)
    this.onFree?.()
  }

  readonly receive = (bytes: Buffer, start = 0, end: number = bytes.length): void => {
    if (this.link.end !== undefined) return
    this.take(decodeServerPart(bytes, start, end))
  }

  /** A part of a piece of a message, from a carrier that does not wait for all of it. */
  readonly receivePiece: OnPiece = (id, size, data): void => {
    if (this.link.end !== undefined) return
    this.take(size < 0 ? { _tag: "MoreData", id, data } : { _tag: "Message", id, size, data })
  }

  private take(frame: ServerFrame | Malformed): void {
    const { link } = this
    // Rule `settings-first`.
    if (!this.negotiated) {
      if (frame._tag === "Settings" && frame.id === tunnelId) {
        this.negotiate(frame)
        return
      }
      link.violated("settings-first", "the first frame is not the tunnel's settings", frame.id)
      return
    }
    // Rule `unreadable-frame`.
    if (frame._tag === "Malformed" && frame.id === undefined) {
      link.violated("unreadable-frame", frame.detail)
      return
    }
    if (frame._tag === "Drain" && frame.id === tunnelId) {
      link.drainedByPeer()
      return
    }
    const id = frame.id as number
    // Rule `stream-unknown`.
    if (id > this.lastId) {
      link.violated("stream-unknown", `stream ${id} was never opened`, id)
      return
    }
    const stream = this.streams.get(id)
    // Rule `finished-ignored`.
    if (stream === undefined) return
    if (frame._tag === "Malformed")
      stream.fault(makeStatus(Code.INTERNAL, `A frame is malformed: ${frame.detail}`))
    else if (frame._tag === "Settings") stream.fault(makeStatus(Code.INTERNAL, "Settings came on a stream"))
    else stream.deliver(frame)
  }

  /** The peer does not negotiate: it sends no settings, and speaks the first revision. Rule `no-negotiation`. */
  assume(): void {
    this.negotiated = true
    Deferred.doneUnsafe(this.settled, Effect.void)
  }

  private negotiate(settings: Settings): void {
    this.negotiated = true
    const own = this.link.limits.revisions
    // Rule `no-revision-is-zero`: a peer that names none is one that has only ever had the first.
    const theirs = settings.revisions.length === 0 ? [revisionZero] : settings.revisions
    const common = own.filter((revision) => theirs.includes(revision))
    if (common.length === 0) {
      const spoken = theirs.join(", ")
      const details = `The peer speaks protocol revisions ${spoken}, this end ${own.join(" and ")}`
      Deferred.doneUnsafe(
        this.settled,
        Effect.fail(new TunnelOpenError({ code: Code.FAILED_PRECONDITION, details }))
      )
      const error = new ProtocolViolation({ rule: "settings-first", detail: details, streamId: undefined })
      this.link.close({ _tag: "Violated", error })
      return
    }
    // Rule `highest-revision`.
    this.revision = Math.max(...common) as Revision
    this.initialCredit = settings.window
    Deferred.doneUnsafe(this.settled, Effect.void)
  }
}
