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
 * 6. Nobody writes to the carrier but `run`, which its tunnel owns and waits for.
 */
import * as Effect from "effect/Effect"
import type { Carrier } from "./carrier.ts"
import { Encoder } from "./encode.ts"
import { type ClientFrame, maxChunk, type ServerFrame } from "./frame.ts"
import { Held } from "./held.ts"
import type { SendWindow } from "./window.ts"

type Frame = ClientFrame | ServerFrame

type Item =
  | { readonly _tag: "Frame"; readonly frame: Frame; readonly onSent: (() => void) | undefined }
  | { readonly _tag: "HalfClose" }
  | { readonly _tag: "Message"; readonly message: Buffer; offset: number; readonly onSent: () => void }

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

/** What one stream has to send. */
export class Outbound {
  /** Negative until the stream is on the wire: what is queued before that waits for it. */
  id: number
  readonly window: SendWindow
  readonly items: Array<Item> = []
  inRing = false
  update = 0

  constructor(window: SendWindow, id = -1) {
    this.window = window
    this.id = id
  }

  /** Rule `empty-needs-credit`: a piece needs credit, also one without bytes. */
  get ready(): boolean {
    if (this.id < 0) return false
    const first = this.items[0]
    return first !== undefined && (first._tag !== "Message" || this.window.credit > 0)
  }

  /** Payload bytes that are queued. */
  get queued(): number {
    let bytes = 0
    for (const item of this.items) if (item._tag === "Message") bytes += item.message.length - item.offset
    return bytes
  }

  /** Whether all that is queued can go out without more credit from the peer. */
  get flushable(): boolean {
    let needed = 0
    for (const item of this.items) {
      if (item._tag === "Message") needed += Math.max(1, item.message.length - item.offset)
    }
    return this.id >= 0 && needed <= this.window.credit
  }

  /** Frames up to and around one piece of a message. */
  emit(encoder: Encoder, sent: Array<() => void>, tunnel: Held): void {
    let pieces = 0
    for (let item = this.items[0]; item !== undefined; item = this.items[0]) {
      if (item._tag !== "Message") {
        if (item._tag === "HalfClose") encoder.frame({ _tag: "HalfClose", id: this.id })
        else {
          encoder.frame(item.frame)
          if (item.onSent !== undefined) sent.push(item.onSent)
        }
        this.items.shift()
        continue
      }
      if (pieces > 0 || this.window.credit === 0) return
      pieces++
      const { message, offset } = item
      const length = Math.min(message.length - offset, maxChunk, this.window.credit)
      encoder.data(this.id, offset === 0 ? message.length : -1, message.subarray(offset, offset + length))
      this.window.spend(length)
      tunnel.bytes -= length
      tunnel.sent += length
      item.offset += length
      if (item.offset < message.length) return
      sent.push(item.onSent)
      this.items.shift()
    }
  }
}

export class Outbox {
  private readonly urgentFrames: Array<Frame> = []
  /** Of these, the new streams by their ids. */
  private readonly opening = new Map<number, Frame>()
  private readonly updates: Array<Outbound> = []
  private ring: Array<Outbound> = []
  private unsent = 0
  private unsentBytes = 0
  private wake: (() => void) | undefined
  private finishing = false
  private readonly tunnel: Held
  private writing = false
  private readonly flushers = new Set<() => void>()

  constructor(tunnel: Held = new Held()) {
    this.tunnel = tunnel
  }

  /** What is queued and may be sent now. */
  get hasWork(): boolean {
    return this.urgentFrames.length > 0 || this.updates.length > 0 || this.ring.length > 0
  }

  get isFinishing(): boolean {
    return this.finishing
  }

  urgent(frame: Frame): void {
    this.urgentFrames.push(frame)
    if (frame._tag === "NewStream") this.opening.set(frame.id, frame)
    this.signal()
  }

  /** Takes a `NewStream` back that has not left; false when it has. */
  retract(id: number): boolean {
    const frame = this.opening.get(id)
    if (frame === undefined) return false
    this.opening.delete(id)
    remove(this.urgentFrames, frame)
    return true
  }

  /** A refusal or an abort, which the peer can provoke at will; false when it has provoked too many. */
  provoked(frame: Frame): boolean {
    this.unsentBytes += sizeOfAnswer(frame)
    if (++this.unsent > maxProvoked || this.unsentBytes > maxProvokedBytes) return false
    this.urgent(frame)
    return true
  }

  announce(stream: Outbound, increment: number): void {
    if (stream.update === 0) this.updates.push(stream)
    stream.update += increment
    this.signal()
  }

  frame(stream: Outbound, frame: Frame, onSent?: () => void): void {
    stream.items.push({ _tag: "Frame", frame, onSent })
    this.enlist(stream)
  }

  message(stream: Outbound, message: Buffer, onSent: () => void): void {
    stream.items.push({ _tag: "Message", message, offset: 0, onSent })
    this.tunnel.bytes += message.length
    this.enlist(stream)
  }

  /** Queues the end of a request stream. */
  halfClose(stream: Outbound): void {
    stream.items.push({ _tag: "HalfClose" })
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
    stream.inRing = true
    this.ring.push(stream)
    this.signal()
  }

  /** The headers that a stream has queued and that have not left. */
  unsentHeaders(stream: Outbound): ServerFrame | undefined {
    const first = stream.items[0]
    return first?._tag === "Frame" && first.frame._tag === "ResponseHeaders" ? first.frame : undefined
  }

  /** Everything that stands in a queue here, for as long as the carrier takes nothing. */
  get backlog(): number {
    return this.urgentFrames.length + this.updates.length + this.ring.length
  }

  /** Forgets a stream, wherever it stands: a peer that does not read must not make a heap of what is over. */
  discard(stream: Outbound): void {
    this.tunnel.bytes -= stream.queued
    stream.items.length = 0
    if (stream.update > 0) remove(this.updates, stream)
    stream.update = 0
    if (stream.inRing) remove(this.ring, stream)
    stream.inRing = false
  }

  /** No more frames will be queued: `run` ends once it has sent what is there. */
  finish(): void {
    this.finishing = true
    this.signal()
  }

  private signal(): void {
    const wake = this.wake
    this.wake = undefined
    wake?.()
  }

  /** Completes when there is something to do. */
  readonly work: Effect.Effect<void> = Effect.callback<void>((resume) => {
    if (this.hasWork || this.finishing) return resume(Effect.void)
    const wake = () => resume(Effect.void)
    this.wake = wake
    return Effect.sync(() => {
      if (this.wake === wake) this.wake = undefined
    })
  })

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
    if (writing || this.hasWork) return
    for (const flusher of this.flushers) flusher()
    this.flushers.clear()
  }

  /** Encodes the next batch; what it sent completely is added to `sent`. */
  fill(encoder: Encoder, sent: Array<() => void>): void {
    for (const frame of this.urgentFrames) encoder.frame(frame)
    this.urgentFrames.length = 0
    this.opening.clear()
    this.unsent = 0
    this.unsentBytes = 0
    for (const stream of this.updates) {
      if (stream.update > 0) encoder.frame({ _tag: "WindowUpdate", id: stream.id, increment: stream.update })
      stream.update = 0
    }
    this.updates.length = 0
    const full = encoder.size + batchBytes
    while (this.ring.length > 0 && encoder.size < full) {
      const turn = this.ring
      this.ring = []
      for (const [index, stream] of turn.entries()) {
        if (encoder.size >= full) {
          this.ring = [...turn.slice(index), ...this.ring]
          break
        }
        stream.inRing = false
        stream.emit(encoder, sent, this.tunnel)
        if (stream.ready) {
          stream.inRing = true
          this.ring.push(stream)
        }
      }
    }
  }
}

const remove = <A>(list: Array<A>, item: A): void => {
  const index = list.lastIndexOf(item)
  if (index >= 0) list.splice(index, 1)
}

/** Writes batch after batch until the outbox is finished and empty. */
export const run = (outbox: Outbox, carrier: Carrier): Effect.Effect<void> =>
  Effect.gen(function* () {
    const encoder = new Encoder()
    const sent: Array<() => void> = []
    while (outbox.hasWork || !outbox.isFinishing) {
      yield* outbox.work
      // The rest of this turn of the event loop joins the batch, and a sender's callback never runs inside its send.
      yield* Effect.yieldNow
      outbox.setWriting(true)
      outbox.fill(encoder, sent)
      const frames = encoder.take()
      for (const onSent of sent.splice(0)) onSent()
      if (frames.length > 0) yield* carrier.write(frames)
      encoder.reset()
      outbox.setWriting(false)
    }
  })
