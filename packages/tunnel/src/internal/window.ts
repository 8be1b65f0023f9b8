/**
 * Flow control of one direction of one stream. Rule `credit-is-payload`: only payload bytes count.
 *
 * **Invariants**
 * 1. Rule `credit-saturates`: credit is never negative and never exceeds 2³²−1: an update that would overflow
 *    saturates, so that a wrapped number cannot stall a stream.
 * 2. On the receiving side, `room + held + owed = limit + ahead` at all times: what the peer may still send, what was
 *    received and not yet consumed, what was consumed and not yet announced, and what was granted for the rest of a
 *    message that somebody waits for, who consumes it whatever comes.
 * 3. Rule `updates-gathered`: updates are gathered up to half a window. Since `owed` stays below that, a peer whose
 *    bytes are all consumed always has credit, so gathering cannot stall it.
 * 4. Rule `window-grows`, towards a peer that agreed: a stream that has moved a whole window, and whose reader keeps up, gets a larger one: up to
 *    256 KiB, and beyond that where it moved the window within four round trips, up to a limit. More would not be faster,
 *    and would stand before others on the way. Windows grow as long as the streams of the tunnel have not grown by too much together. What a stream has grown by
 *    is given back once, when it closes.
 * 5. Without flow control (revision zero) a sender has credit without end, and nothing is announced. Rule
 *    `unread-bounded`: what waits for its reader is bounded all the same, so a stream that nobody reads ends; the
 *    tunnel does not stop for it.
 */
import { maxUint32, type Revision, revisionOne } from "./frame.ts"
import type { Growth } from "./growth.ts"

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
  /** The stream begins; what is added to its first window. */
  readonly start: () => number
  /** Takes a received payload; false if the peer sent more than it may. */
  readonly receive: (length: number) => boolean
  /** Returns consumed bytes; the increment to announce now, or 0. */
  readonly consume: (length: number) => number
  /** So many bytes are still to come of a message that its reader waits for; the increment to announce now, or 0. */
  readonly expect: (length: number) => number
  /** The stream is over. */
  readonly close: () => void
  /** What the peer is told that has sent more than it may. */
  readonly refusal: string
  /** The name of what it passed. */
  readonly name: string
}

/** What the peer may send without flow control: whatever it wants, until too much of it is unread. */
export class UnreadBytes implements Receiving {
  private unread = 0
  private readonly most: number

  constructor(most: number) {
    this.most = most
  }

  get name(): string {
    return "unread bytes"
  }

  get refusal(): string {
    return `More than ${this.most} bytes wait for their reader: read them, or use flow control`
  }

  start(): number {
    return 0
  }

  receive(length: number): boolean {
    this.unread += length
    return this.unread <= this.most
  }

  consume(length: number): number {
    this.unread -= length
    return 0
  }

  expect(): number {
    return 0
  }

  close(): void {
    this.unread = 0
  }
}

/** A window that was moved in fewer of them was waited for. */
const roundTripsToWaitFor = 4

/** What the peer may send. */
export class ReceiveWindow implements Receiving {
  private readonly growth: Growth
  private readonly method: string
  private limit: number
  private room: number
  private owed = 0
  private ahead = 0
  /** Bytes that were consumed since the window was last looked at, and when that was. */
  private moved = 0
  private since = 0
  /** Bytes that came, and how many of them the last update could not have brought yet. */
  private came = 0
  private asked = -1
  private askedAt = 0

  constructor(growth: Growth, method = "") {
    this.growth = growth
    this.method = method
    this.limit = growth.base
    this.room = growth.base
  }

  start(): number {
    const extra = this.growth.first(this.method)
    this.limit += extra
    this.room += extra
    return extra
  }

  get name(): string {
    return "window"
  }

  get refusal(): string {
    return `More bytes came than the window of ${this.limit} allows: send what was granted`
  }

  /** Takes a received payload; false if the peer sent more than it may. */
  receive(length: number): boolean {
    if (length > this.room) return false
    this.room -= length
    this.came += length
    if (this.asked >= 0 && this.came > this.asked) this.heard()
    return true
  }

  /** Rule `rest-granted`. */
  expect(length: number): number {
    if (!this.growth.far) return 0
    const increment = length - this.room
    // Less than an update would carry comes with the next one.
    if (increment < this.limit >>> 1) return 0
    this.ahead += increment
    this.room += increment
    return increment
  }

  /** Returns consumed bytes; the increment to announce now, or 0. */
  consume(length: number): number {
    const repaid = Math.min(this.ahead, length)
    this.ahead -= repaid
    this.owed += length - repaid
    this.moved += length
    if (this.moved >= this.limit) this.grow()
    if (this.owed < Math.max(1, this.limit >>> 1)) return 0
    const increment = this.owed
    this.owed = 0
    this.ask()
    this.room += increment
    return increment
  }

  /** An update goes out: bytes that come beyond those granted before have taken a round trip. */
  private ask(): void {
    if (!this.growth.agreed || this.asked >= 0) return
    this.asked = this.came + this.room
    this.askedAt = this.growth.now()
  }

  private heard(): void {
    this.growth.tookRoundTrip(this.growth.now() - this.askedAt)
    this.asked = -1
  }

  /** Rule `window-grows`. What is unread says whether the reader keeps up. */
  private grow(): void {
    const { growth } = this
    if (!growth.agreed) return
    const now = growth.now()
    const took = now - this.since
    this.since = now
    this.moved = 0
    const unread = this.limit + this.ahead - this.room - this.owed
    if (unread > this.limit >>> 2) return
    // A window that takes longer than the way there and back holds nobody up: more of it would only queue on the way.
    if (this.limit >= growth.near && took > roundTripsToWaitFor * growth.roundTrip) return
    const extra = this.growth.more(this.limit, this.method)
    this.limit += extra
    this.owed += extra
  }

  close(): void {
    this.growth.giveBack(this.limit)
    this.limit = this.growth.base
  }
}
