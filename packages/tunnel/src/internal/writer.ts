/**
 * The one writer of a tunnel: what is queued, by whom, and what goes into the next batch.
 *
 * Rule `urgent-first`: urgent frames (settings, new streams, refusals, cancels, aborts, window updates) go first, and
 * take nothing of what the batch has room for. Then the streams that are ready take turns, a piece of at most
 * `maxChunk` bytes each, until the batch is full. One batch is written at a time and what is queued meanwhile makes up
 * the next, so that a busy tunnel writes many frames at once and an idle one writes at once.
 *
 * **Invariants**
 * 1. Frames of one stream keep their order, but for what is urgent: that one overtakes data.
 * 2. A stream is in the ring exactly when its next item could be sent. Without credit it is not.
 * 3. After `discard` nothing of that stream is sent any more, and nothing of it is kept.
 * 4. Bytes handed to the carrier and not yet taken by it are bounded by one batch; a stream holds at most the
 *    messages that its caller has outstanding; a stream's window updates are one number.
 * 5. Rule `turns-by-piece`: between the moment when a small message can be sent and the moment when it is, each other
 *    stream sends at most one piece, besides the batch that is on its way already.
 * 6. Nobody writes to the carrier but the pump, which its tunnel owns and waits for; see there.
 */
import * as Effect from "effect/Effect"
import type { Encoder } from "./encode.ts"
import { type ClientFrame, maxChunk, type ServerFrame } from "./frame.ts"
import { Held } from "./held.ts"
import { type Outbound, Ring } from "./outbound.ts"

export { Outbound } from "./outbound.ts"

type Frame = ClientFrame | ServerFrame

/** A batch is full from here on. It bounds what other streams wait for behind it. */
const batchBytes = 65_536

/**
 * Answers that a peer can provoke without waiting for us; more unsent ones mean that it does not read. A peer that
 * does read can provoke what two batches of new streams hold, which is less than half of this.
 */
const maxProvoked = 65_536

/** And the bytes of these answers that may be unsent. */
const maxProvokedBytes = 16 * 1024 * 1024

const sizeOfAnswer = (frame: Frame): number => {
  if (frame._tag === "ResponseHeaders") return frame.headers.length
  return frame._tag === "CloseStream" ? (frame.trailers?.length ?? 0) + (frame.status?.length ?? 0) : 0
}

export class Outbox {
  private readonly urgentFrames: Array<Frame> = []
  /** New streams that have not left, by their ids. */
  private readonly opening = new Map<number, Frame>()
  private readonly updates = new Set<Outbound>()
  private readonly ring = new Ring()
  private unsent = 0
  private unsentBytes = 0
  private finishing = false
  private readonly tunnel: Held
  private writing = false
  private readonly flushers = new Set<() => void>()
  /** Told that there is something to do. */
  onWork: (() => void) | undefined
  /** Told to write now, where it would have waited for the end of the turn. */
  onFlush: (() => void) | undefined
  /** Whether what is queued need not wait for the end of the turn: nobody else has anything to add. */
  alone: () => boolean = () => this.tunnel.holders.few
  /** The longest piece of a stream that has the batch to itself. */
  longest = maxChunk

  constructor(tunnel: Held = new Held()) {
    this.tunnel = tunnel
  }

  /** What is queued and may be sent now. */
  get hasWork(): boolean {
    return this.backlog > 0
  }

  get isFinishing(): boolean {
    return this.finishing
  }

  urgent(frame: Frame): void {
    if (frame._tag === "NewStream") this.opening.set(frame.id, frame)
    else this.urgentFrames.push(frame)
    this.signal()
  }

  /** Takes a `NewStream` back that has not left; false when it has. */
  retract(id: number): boolean {
    return this.opening.delete(id)
  }

  /** A refusal or an abort, which the peer can provoke at will; false when it has provoked too many. */
  provoked(frame: Frame): boolean {
    this.unsentBytes += sizeOfAnswer(frame)
    if (++this.unsent > maxProvoked || this.unsentBytes > maxProvokedBytes) return false
    this.urgent(frame)
    return true
  }

  announce(stream: Outbound, increment: number): void {
    if (stream.update === 0) this.updates.add(stream)
    stream.update += increment
    this.signal()
  }

  frame(stream: Outbound, frame: Frame, onSent?: () => void): void {
    stream.queueFrame(frame, onSent)
    this.enlist(stream)
  }

  message(stream: Outbound, message: Buffer, onSent: () => void): void {
    stream.queueMessage(message, onSent)
    this.tunnel.bytes += message.length
    this.enlist(stream)
  }

  /** Queues the end of a request stream. */
  halfClose(stream: Outbound): void {
    stream.queueHalfClose()
    this.enlist(stream)
  }

  /** Gives a stream its id: what it has queued may go out behind its `NewStream`. */
  open(stream: Outbound, id: number): void {
    stream.id = id
    this.enlist(stream)
  }

  /** Puts a stream into the ring when it has something that can be sent. */
  enlist(stream: Outbound): void {
    if (stream.inRing || !stream.ready) return
    this.ring.push(stream)
    this.signal()
  }

  /** The headers that a stream has queued and that have not left. */
  unsentHeaders(stream: Outbound): ServerFrame | undefined {
    const frame = stream.firstFrame
    return frame?._tag === "ResponseHeaders" ? frame : undefined
  }

  /** Everything that stands in a queue here, for as long as the carrier takes nothing. */
  get backlog(): number {
    return this.opening.size + this.urgentFrames.length + this.updates.size + this.ring.size
  }

  /** Forgets a stream, wherever it stands: a peer that does not read must not make a heap of what is over. */
  discard(stream: Outbound): void {
    this.tunnel.bytes -= stream.queued
    stream.clear()
    if (stream.update > 0) this.updates.delete(stream)
    stream.update = 0
    if (stream.inRing) this.ring.remove(stream)
  }

  /** No more frames will be queued: the pump ends once it has sent what is there. */
  finish(): void {
    this.finishing = true
    this.signal()
  }

  private signal(): void {
    this.onWork?.()
  }

  /** Hands what may be sent to the carrier now, unless a batch is on its way: then it follows that one. */
  flush(): void {
    if (this.hasWork && !this.writing) this.onFlush?.()
  }

  /** Waits until everything that may be sent has been taken by the carrier. */
  readonly flushed: Effect.Effect<void> = Effect.callback<void>((resume) => {
    if (!this.hasWork && !this.writing) return resume(Effect.void)
    const flusher = () => resume(Effect.void)
    this.flushers.add(flusher)
    return Effect.sync(() => this.flushers.delete(flusher))
  })

  /** A batch is on its way to the carrier, or has been taken by it. */
  setWriting(writing: boolean): void {
    this.writing = writing
    if (writing || this.flushers.size === 0 || this.hasWork) return
    for (const flusher of this.flushers) flusher()
    this.flushers.clear()
  }

  /** Encodes the next batch; what it sent completely is added to `sent`. */
  fill(encoder: Encoder, sent: Array<() => void>): void {
    if (this.opening.size > 0) {
      for (const frame of this.opening.values()) encoder.frame(frame)
      this.opening.clear()
    }
    for (const frame of this.urgentFrames) encoder.frame(frame)
    this.urgentFrames.length = 0
    this.unsent = 0
    this.unsentBytes = 0
    if (this.updates.size > 0) {
      for (const stream of this.updates) {
        encoder.windowUpdate(stream.id, stream.update)
        stream.update = 0
      }
      this.updates.clear()
    }
    const full = encoder.size + batchBytes
    while (encoder.size < full) {
      const most = this.ring.size === 1 ? this.longest : maxChunk
      const stream = this.ring.shift()
      if (stream === undefined) return
      stream.emit(encoder, sent, this.tunnel, most, full - encoder.size)
      if (stream.ready) this.ring.push(stream)
    }
  }
}
