/**
 * The tunnel server of one tunnel: takes frames apart, admits or refuses streams, and keeps their registry.
 *
 * **Invariants**
 * 1. Rule `refused-is-seen`: every id that a `NewStream` names counts as seen, admitted or not, so a refused stream's
 *    own data cannot be taken for a violation.
 * 2. Rule `one-mistake-one-call`: a mistake that belongs to a call ends that call. Only what makes the ids unreliable
 *    ends the tunnel.
 * 3. A call's slot is free again only when its last finalizer has run: a peer that opens and cancels in a loop is limited
 *    by the handlers that still run, not by the streams it believes open.
 */
import { CancelReason } from "@curfew/reason"
import { status as Code } from "@grpc/grpc-js"
import type { RegisteredMethod, Services } from "../Services.ts"
import type { Admission } from "./admission.ts"
import { decodeClientPart } from "./decode.ts"
import {
  type ClientFrame,
  type Malformed,
  type NewStream,
  noBytes,
  revisionOne,
  revisionZero,
  tunnelId
} from "./frame.ts"
import type { Incoming } from "./handlerCall.ts"
import { drainingDetails, type Link, shuttingDownDetails } from "./link.ts"
import type { OnPiece } from "./messages.ts"
import { MetadataProblem } from "./metadata.ts"
import { metadataFromWire } from "./metadataFromWire.ts"
import { reasonFromWire } from "./reasonWire.ts"
import { makeStatus, refusalToWire } from "./rpcStatus.ts"
import { ServerCall } from "./serverCall.ts"
import { StreamTable } from "./streams.ts"
import { takeTimeout } from "./timeout.ts"

/** With its slash; of a method that was added it is the one string that all its calls share. */
const pathOf = ({ definition }: RegisteredMethod, path: string): string =>
  definition.path.length === path.length + 1 ? definition.path : `/${path}`

/** A peer's name in an answer that the peer provokes: many of them may wait, so each is short. */
const shown = (name: string): string => (name.length <= 100 ? name : `${name.slice(0, 100)}…`)

export class ServerEngine {
  readonly link: Link
  private readonly services: Services
  private readonly admission: Admission
  private readonly streams = new StreamTable<ServerCall>()
  private highest = -1

  constructor(link: Link, services: Services, admission: Admission) {
    this.link = link
    this.services = services
    this.admission = admission
  }

  get size(): number {
    return this.streams.size
  }

  readonly receive = (bytes: Buffer, start = 0, end: number = bytes.length): void => {
    if (this.link.end !== undefined) return
    this.take(decodeClientPart(bytes, start, end))
  }

  /** A part of a piece of a message, from a carrier that does not wait for all of it. */
  readonly receivePiece: OnPiece = (id, size, data): void => {
    if (this.link.end !== undefined) return
    this.take(size < 0 ? { _tag: "MoreData", id, data } : { _tag: "Message", id, size, data })
  }

  private take(frame: ClientFrame | Malformed): void {
    if (frame._tag === "NewStream") {
      this.open(frame)
      return
    }
    if (frame._tag === "Malformed") {
      this.malformed(frame)
      return
    }
    const stream = this.streams.get(frame.id)
    if (stream !== undefined) {
      this.deliver(stream, frame)
      return
    }
    if (frame._tag === "Drain" && frame.id === tunnelId) {
      this.link.drainedByPeer()
      return
    }
    if (frame.id > this.highest) {
      this.link.violated("stream-unknown", `stream ${frame.id} was never opened`, frame.id)
    }
  }

  private deliver(stream: ServerCall, frame: Exclude<ClientFrame, NewStream>): void {
    switch (frame._tag) {
      case "Message":
        stream.data(frame.size, frame.data)
        return
      case "MoreData":
        stream.data(-1, frame.data)
        return
      case "HalfClose":
        stream.halfClose()
        return
      case "Cancel":
        stream.feed({ _tag: "Cancel", reason: this.whyCancelled(frame.reason) })
        return
      case "WindowUpdate":
        stream.grant(frame.increment)
        return
      case "Drain":
      case "Unset":
        stream.fault(makeStatus(Code.INTERNAL, "A frame of a kind that this end does not know"))
        return
    }
  }

  /** Why the caller cancelled, in its own words where it has any. They are the peer's, and stand as such. */
  private whyCancelled(bytes: Buffer | undefined): CancelReason {
    const told = bytes !== undefined && this.link.carrier.extensions.has("cancel-reason")
    const because = told ? reasonFromWire(bytes) : undefined
    const detail = "the caller cancelled"
    return CancelReason.ClientGone({ transport: "tunnel", detail, ...(because && { because }) })
  }

  private malformed({ detail, id }: Malformed): void {
    if (id === undefined) {
      this.link.violated("unreadable-frame", detail)
      return
    }
    const stream = this.streams.get(id)
    if (stream !== undefined) {
      stream.fault(makeStatus(Code.INTERNAL, `A frame is malformed: ${detail}`))
      return
    }
    if (id <= this.highest) return
    this.highest = id
    this.refuse(id, "", Code.INTERNAL, `A frame is malformed: ${detail}`)
  }

  private open(frame: NewStream): void {
    const { id, method, window } = frame
    // Rule `ids-increase`.
    if (id <= this.highest) {
      this.link.violated("ids-increase", `stream ${id} was opened after stream ${this.highest}`, id)
      return
    }
    this.highest = id
    const refuse = (code: number, details: string): void => this.refuse(id, method, code, details)
    const { limits } = this.link
    if (this.admission.refusing) {
      refuse(Code.UNAVAILABLE, shuttingDownDetails)
      return
    }
    if (this.link.calls.refusing) {
      refuse(Code.UNAVAILABLE, drainingDetails)
      return
    }
    // Rule `revision-per-stream`.
    const { revision } = frame
    if (revision !== revisionOne && revision !== revisionZero) {
      refuse(Code.UNAVAILABLE, `Protocol revision ${revision} is not spoken here`)
      return
    }
    if (this.streams.size >= limits.maxStreams) {
      refuse(Code.RESOURCE_EXHAUSTED, `More than ${limits.maxStreams} streams at the same time`)
      return
    }
    if (this.link.calls.full) {
      refuse(Code.RESOURCE_EXHAUSTED, `More than ${this.link.calls.maxHandlers} handlers run for this tunnel`)
      return
    }
    if (this.admission.full) {
      refuse(Code.RESOURCE_EXHAUSTED, `More than ${this.admission.maxHandlers} handlers run for all tunnels`)
      return
    }
    const headers = frame.headers ?? noBytes
    if (headers.length + method.length > limits.maxMetadataSize) {
      refuse(Code.RESOURCE_EXHAUSTED, `The request metadata is larger than ${limits.maxMetadataSize} bytes`)
      return
    }
    // Rule `method-name`.
    const path = method.startsWith("/") ? method.slice(1) : method
    if (!path.includes("/")) {
      refuse(Code.INVALID_ARGUMENT, `"${shown(method)}" is not a method name`)
      return
    }
    const registered = this.services.methods.get(path) ?? this.services.fallback
    if (registered === undefined) {
      refuse(Code.UNIMPLEMENTED, `The method ${shown(method)} is not implemented`)
      return
    }
    const metadata = metadataFromWire(headers)
    if (metadata instanceof MetadataProblem) {
      refuse(Code.INVALID_ARGUMENT, metadata.detail)
      return
    }
    const timeout = takeTimeout(metadata)
    const incoming: Incoming = {
      id,
      path: pathOf(registered, path),
      method: registered,
      metadata,
      window,
      revision,
      timeout
    }
    const stream = new ServerCall(this, incoming)
    this.streams.add(stream)
    this.admission.enter()
    this.link.calls.enter()
    this.admission.handlerStarts()
    this.link.calls.handlerStarts()
    stream.start()
  }

  /** The stream is over. */
  forget(id: number): void {
    this.streams.delete(id)
    this.admission.leave()
    this.link.calls.leave()
  }

  /** The handler of a stream has ended, or there was none; it may have outlived its stream. */
  handlerGone(): void {
    this.admission.handlerEnds()
    this.link.calls.handlerEnds()
  }

  private refuse(id: number, method: string, code: number, details: string): void {
    this.link.counters.refused++
    const { id: tunnel, observe } = this.link
    observe?.({ _tag: "StreamRefused", code, details, tunnel, side: "server", stream: id, method })
    this.link.answer({ _tag: "CloseStream", id, ...refusalToWire(code, details) })
  }
}
