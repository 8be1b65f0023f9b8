/**
 * Puts the messages of one direction of one stream together, and hands them out one per `read`.
 *
 * A peer's bytes are consumed (given back to it as credit) only while somebody reads: a finished message when it
 * is taken, the pieces of an unfinished one as they come while a read is waiting. That is how a message longer
 * than the window passes, and how a reader that stops makes its peer stop.
 *
 * **Invariants**
 * 1. Rule `size-exact`: no message is handed out unless its pieces add up to exactly its announced size.
 * 2. At most one message per `read`, in order; never one after `drop`.
 * 3. Memory is bounded by the window while nobody reads and by one message of `maxSize` while somebody does. The
 *    pieces of a message share one buffer. It has the announced size from the start as long as the tunnel has room set
 *    aside for that, and grows with what came otherwise: a peer that announces much and sends little costs little. Runs
 *    of empty messages, which cost no window, are counted rather than stored.
 * 4. An idle one holds nothing but whether a read waits, so the streams of a tunnel hand theirs on while they wait.
 * 5. A message never pins a receive buffer much larger than itself.
 */
import { noBytes } from "./frame.ts"
import { Held } from "./held.ts"

/** What a piece did to the stream. */
export type Step =
  | { readonly _tag: "Fault"; readonly fault: Fault }
  | {
      readonly _tag: "Taken"
      /** Bytes that were consumed and may be announced to the peer. */
      readonly consumed: number
      /** The message a waiting `read` gets. */
      readonly message: Buffer | undefined
    }

export type Fault = "no-message-open" | "message-still-open" | "too-many-bytes" | "too-large"

type Entry = { readonly message: Buffer; copies: number; next: Entry | undefined }

const taken = (consumed: number, message?: Buffer): Step => ({ _tag: "Taken", consumed, message })
const fault = (kind: Fault): Step => ({ _tag: "Fault", fault: kind })

/** Bytes beyond which keeping a view of someone else's buffer is worth more than copying. */
const pinRatio = 4

const detached = (bytes: Buffer): Buffer =>
  bytes.buffer.byteLength > bytes.length * pinRatio ? Buffer.from(bytes) : bytes

export class Assembler {
  private readonly maxSize: number
  /** Complete messages, oldest first. A peer can make this queue so long that shifting an array would show. */
  private first: Entry | undefined
  private last: Entry | undefined
  /** The start of an unfinished message; what counts in it are the first `received` bytes. */
  private open = noBytes
  private expected = -1
  private received = 0
  /** What the tunnel has set aside for the rest of the open message. */
  private aside = 0
  private unreturned = 0
  private waiting = false
  private readonly tunnel: Held
  /** Bytes that came and were not handed out. */
  held = 0

  constructor(maxSize: number, tunnel: Held = new Held()) {
    this.maxSize = maxSize
    this.tunnel = tunnel
  }

  private hold(bytes: number): void {
    this.held += bytes
    this.tunnel.bytes += bytes
  }

  /** A message has begun and is not complete. */
  get partial(): boolean {
    return this.expected >= 0
  }

  /** Bytes that are still to come of a message that a read waits for: nothing stops them from being consumed. */
  get awaited(): number {
    return this.waiting && this.first === undefined && this.expected >= 0 ? this.expected - this.received : 0
  }

  /** Complete messages that nobody has read yet. */
  get unread(): boolean {
    return this.first !== undefined
  }

  /** A read waits for a message. */
  get wanted(): boolean {
    return this.waiting
  }

  /** Nothing came that has not been handed out and returned. */
  get idle(): boolean {
    return this.first === undefined && this.expected < 0 && this.unreturned === 0
  }

  /** Begins for another stream, after an idle moment of the last one. */
  restart(waiting: boolean): this {
    this.waiting = waiting
    return this
  }

  begin(size: number, data: Buffer): Step {
    if (this.expected >= 0) return fault("message-still-open")
    if (size > this.maxSize) return fault("too-large")
    this.expected = size
    this.received = 0
    return this.append(data)
  }

  more(data: Buffer): Step {
    return this.expected < 0 ? fault("no-message-open") : this.append(data)
  }

  private append(data: Buffer): Step {
    const start = this.received
    this.received += data.length
    if (this.received > this.expected) return fault("too-many-bytes")
    if (start === 0 && data.length === this.expected) return this.complete(detached(data), data.length)
    this.grow(start)
    this.open.set(data, start)
    this.hold(data.length)
    if (this.received === this.expected) return this.complete(this.open, data.length, this.open.length)
    if (this.waiting) return taken(data.length)
    this.unreturned += data.length
    return taken(0)
  }

  /** Makes room for what was received; the bytes up to `used` stay. A message that is complete fills its buffer. */
  private grow(used: number): void {
    if (this.received <= this.open.length) return
    if (used === 0 && this.tunnel.setAside(this.expected)) {
      this.aside = this.expected
      this.open = Buffer.allocUnsafe(this.expected)
      return
    }
    const larger = Buffer.allocUnsafe(Math.min(this.expected, this.received * 2))
    larger.set(this.open.subarray(0, used))
    this.open = larger
  }

  private closeMessage(): void {
    this.open = noBytes
    this.expected = -1
    if (this.aside === 0) return
    this.tunnel.giveBack(this.aside)
    this.aside = 0
  }

  /** Hands a message on, or keeps it; its last piece brought so many bytes. */
  private complete(message: Buffer, brought: number, held = 0): Step {
    this.closeMessage()
    if (this.waiting) {
      this.waiting = false
      this.hold(-held)
      const consumed = brought + this.unreturned
      this.unreturned = 0
      return taken(consumed, message)
    }
    this.unreturned += brought
    this.hold(message.length - held)
    this.keep(message)
    return taken(0)
  }

  private keep(message: Buffer): void {
    const { last } = this
    if (last !== undefined && message.length === 0 && last.message.length === 0) {
      last.copies++
      return
    }
    const entry: Entry = { message, copies: 1, next: undefined }
    if (last === undefined) this.first = entry
    else last.next = entry
    this.last = entry
  }

  /** Asks for the next message: it comes now, or with the piece that completes it. */
  read(): Step {
    const { first } = this
    if (first === undefined) {
      this.waiting = true
      const consumed = this.unreturned
      this.unreturned = 0
      return taken(consumed)
    }
    if (--first.copies === 0) {
      this.first = first.next
      if (first.next === undefined) this.last = undefined
    }
    // The bytes of a finished message stand in `unreturned` until it is taken, a partial one's among them only
    // until the next read: both are this stream's, so the sum is what counts.
    this.unreturned -= first.message.length
    this.hold(-first.message.length)
    return taken(first.message.length, first.message)
  }

  /** Forgets everything: the stream is over. */
  drop(): void {
    this.first = undefined
    this.last = undefined
    this.closeMessage()
    this.waiting = false
    this.unreturned = 0
    this.hold(-this.held)
  }
}
