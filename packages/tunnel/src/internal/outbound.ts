/**
 * What one stream has to send, and the ring in which streams wait for their turns.
 *
 * **Invariants**
 * 1. Items leave in the order in which they were queued.
 * 2. A turn sends at most one piece of a message, and what stands around it.
 * 3. A piece is lent to the encoder only if its message goes on behind the batch: `onSent` comes when the last byte has
 *    been copied, so whoever queued a message may use its buffer again from then on.
 * 4. A stream is in the ring once or not at all; joining, leaving and being first cost the same, however many there are.
 */
import type { Encoder } from "./encode.ts"
import type { ClientFrame, ServerFrame } from "./frame.ts"
import type { Held } from "./held.ts"
import type { SendWindow } from "./window.ts"

type Frame = ClientFrame | ServerFrame

interface Item {
  /** A frame, or a message in place of it, or the end of the request stream in place of both. */
  readonly frame: Frame | undefined
  readonly message: Buffer | undefined
  offset: number
  readonly onSent: (() => void) | undefined
}

/** So many items that have left may stand before those that wait. */
const slack = 64

export class Outbound {
  /** Negative until the stream is on the wire: what is queued before that waits for it. */
  id: number
  readonly window: SendWindow
  private items: Array<Item> = none
  private first = 0
  inRing = false
  previous: Outbound | undefined
  next: Outbound | undefined
  update = 0

  constructor(window: SendWindow, id = -1) {
    this.window = window
    this.id = id
  }

  /** Something waits here. */
  get pending(): boolean {
    return this.items.length > 0
  }

  /** Rule `empty-needs-credit`: a piece needs credit, also one without bytes. */
  get ready(): boolean {
    if (this.id < 0) return false
    const first = this.items[this.first]
    return first !== undefined && (first.message === undefined || this.window.credit > 0)
  }

  /** The frame that stands first, unless it is something else. */
  get firstFrame(): Frame | undefined {
    return this.items[this.first]?.frame
  }

  /** Payload bytes that are queued. */
  get queued(): number {
    let bytes = 0
    for (let index = this.first; index < this.items.length; index++) {
      const { message, offset } = this.items[index] as Item
      if (message !== undefined) bytes += message.length - offset
    }
    return bytes
  }

  /** Whether all that is queued can go out without more credit from the peer. */
  get flushable(): boolean {
    let needed = 0
    for (let index = this.first; index < this.items.length; index++) {
      const { message, offset } = this.items[index] as Item
      if (message !== undefined) needed += Math.max(1, message.length - offset)
    }
    return this.id >= 0 && needed <= this.window.credit
  }

  queueFrame(frame: Frame, onSent: (() => void) | undefined): void {
    this.queue({ frame, message: undefined, offset: 0, onSent })
  }

  queueMessage(message: Buffer, onSent: () => void): void {
    this.queue({ frame: undefined, message, offset: 0, onSent })
  }

  queueHalfClose(): void {
    this.queue(halfClose)
  }

  private queue(item: Item): void {
    if (this.items === none) this.items = [item]
    else this.items.push(item)
  }

  private shift(): void {
    this.first++
    if (this.first === this.items.length) this.clear()
    else if (this.first > slack && this.first * 2 > this.items.length) {
      this.items.splice(0, this.first)
      this.first = 0
    }
  }

  clear(): void {
    this.items = none
    this.first = 0
  }

  /** Frames up to and around one piece of at most so many bytes; the batch is full after `room` bytes. */
  emit(encoder: Encoder, sent: Array<() => void>, tunnel: Held, most: number, room: number): void {
    let pieces = 0
    for (let item = this.items[this.first]; item !== undefined; item = this.items[this.first]) {
      const { frame, message, offset, onSent } = item
      if (message === undefined) {
        if (frame === undefined) encoder.halfClose(this.id)
        else encoder.frame(frame)
        if (onSent !== undefined) sent.push(onSent)
        this.shift()
        continue
      }
      const { window } = this
      if (pieces > 0 || window.credit === 0) return
      pieces++
      const length = Math.min(message.length - offset, most, window.credit)
      const end = offset + length
      const whole = length === message.length
      const lent = length >= room && end < message.length
      encoder.data(
        this.id,
        offset === 0 ? message.length : -1,
        whole ? message : message.subarray(offset, end),
        lent
      )
      window.spend(length)
      tunnel.bytes -= length
      tunnel.sent += length
      item.offset = end
      if (end < message.length) return
      if (onSent !== undefined) sent.push(onSent)
      this.shift()
    }
  }
}

const halfClose: Item = { frame: undefined, message: undefined, offset: 0, onSent: undefined }

/** What a stream without items has: most have none most of the time. */
const none: Array<Item> = []

export class Ring {
  private first: Outbound | undefined
  private last: Outbound | undefined
  size = 0

  push(stream: Outbound): void {
    const { last } = this
    stream.inRing = true
    stream.previous = last
    if (last === undefined) this.first = stream
    else last.next = stream
    this.last = stream
    this.size++
  }

  shift(): Outbound | undefined {
    const { first } = this
    if (first !== undefined) this.remove(first)
    return first
  }

  remove(stream: Outbound): void {
    const { next, previous } = stream
    if (previous === undefined) this.first = next
    else previous.next = next
    if (next === undefined) this.last = previous
    else next.previous = previous
    stream.previous = undefined
    stream.next = undefined
    stream.inRing = false
    this.size--
  }
}
