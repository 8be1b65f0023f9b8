/**
 * Flow control of one direction of one stream. Rule `credit-is-payload`: only payload bytes count.
 *
 * **Invariants**
 * 1. Rule `credit-saturates`: credit is never negative and never exceeds 2³²−1: an update that would overflow
 *    saturates, so that a wrapped number cannot stall a stream.
 * 2. On the receiving side, `room + held + owed = limit` at all times: what the peer may still send, what was
 *    received and not yet consumed, and what was consumed and not yet announced.
 * 3. Rule `updates-gathered`: updates are gathered up to half a window. Since `owed` stays below that, a peer whose
 *    bytes are all consumed always has credit, so gathering cannot stall it.
 * 4. Without flow control (revision zero) a sender has credit without end, and nothing is announced. Rule
 *    `unread-bounded`: what waits for its reader is bounded all the same, so a stream that nobody reads ends; the
 *    tunnel does not stop for it.
 */
import { maxUint32, type Revision, revisionOne } from "./frame.ts"

/** What this end may send. */
export class SendWindow {
  credit: number

  constructor(initial: number, revision: Revision) {
    this.credit = revision === revisionOne ? Math.min(initial, maxUint32) : Number.POSITIVE_INFINITY
  }

  /** Adds credit; true if there was none before and there is some now. */
  grant(increment: number): boolean {
    if (this.credit === Number.POSITIVE_INFINITY) return false
    const blocked = this.credit === 0
    this.credit = Math.min(this.credit + increment, maxUint32)
    return blocked && this.credit > 0
  }

  spend(length: number): void {
    this.credit -= length
  }
}

/** What counts the bytes of a stream that have come and have not been consumed. */
export interface Receiving {
  /** Takes a received payload; false if the peer sent more than it may. */
  readonly receive: (length: number) => boolean
  /** Returns consumed bytes; the increment to announce now, or 0. */
  readonly consume: (length: number) => number
  /** What the peer is told that has sent more than it may. */
  readonly refusal: string
  /** The name of what it passed. */
  readonly name: string
}

/** What the peer may send without flow control: whatever it wants, until too much of it is unread. */
export class UnreadBytes implements Receiving {
  readonly name = "unread bytes"
  private unread = 0
  private readonly most: number

  constructor(most: number) {
    this.most = most
  }

  get refusal(): string {
    return `More than ${this.most} bytes wait for their reader: read them, or use flow control`
  }

  receive(length: number): boolean {
    this.unread += length
    return this.unread <= this.most
  }

  consume(length: number): number {
    this.unread -= length
    return 0
  }
}

/** What the peer may send. */
export class ReceiveWindow implements Receiving {
  readonly name = "window"
  private readonly limit: number
  private room: number
  private owed = 0
  private readonly threshold: number

  constructor(limit: number) {
    this.limit = limit
    this.room = limit
    this.threshold = Math.max(1, limit >>> 1)
  }

  get refusal(): string {
    return `More bytes came than the window of ${this.limit} allows: send what was granted`
  }

  /** Takes a received payload; false if the peer sent more than it may. */
  receive(length: number): boolean {
    if (length > this.room) return false
    this.room -= length
    return true
  }

  /** Returns consumed bytes; the increment to announce now, or 0. */
  consume(length: number): number {
    this.owed += length
    if (this.owed < this.threshold) return 0
    const increment = this.owed
    this.owed = 0
    this.room += increment
    return increment
  }
}
