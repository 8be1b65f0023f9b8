/**
 * The bytes that come in for a stream at either end, under flow control, and what is given back to the peer for them.
 *
 * **Invariants**
 * 1. Bytes are counted against the window before anything else, and announced as consumed only while the stream
 *    still wants more.
 * 2. A message is put together in an assembler that is the stream's only while something has come that was not handed out.
 * 3. One message is handed out for each read, in order; after `drop` none.
 */
import { status as Code } from "@grpc/grpc-js"
import { Assembler, type Fault, type Step } from "./assembler.ts"
import { ClosingStream } from "./closing.ts"
import { type Revision, revisionOne } from "./frame.ts"
import type { Link } from "./link.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"
import { ReceiveWindow, type Receiving, UnreadBytes } from "./window.ts"
import type { Outbound } from "./writer.ts"

const faults: Readonly<Record<Exclude<Fault, "too-large">, string>> = {
  "no-message-open": "A continuation came without a message",
  "message-still-open": "A message began inside another",
  "too-many-bytes": "A message is longer than announced"
}

export abstract class IncomingStream extends ClosingStream {
  protected readonly window: Receiving
  /** The code for a peer that breaks the framing of messages. */
  private readonly framingCode: number
  /** There while something has come that was not handed out; in between it is another stream's. */
  private inbound: Assembler | undefined
  /** A read waits, and nothing has come for it. */
  private reading = false

  constructor(link: Link, outbound: Outbound, framingCode: number, revision: Revision, method: string) {
    super(link, outbound)
    this.framingCode = framingCode
    const { growth, limits } = link
    this.window =
      revision === revisionOne ? new ReceiveWindow(growth, method) : new UnreadBytes(limits.maxUnread)
  }

  /** Whether what comes is still of interest. */
  protected abstract get takesData(): boolean
  protected abstract take(message: Buffer): void
  /** Ends the stream for something that the peer did; with a limit when it was one. */
  abstract fault(status: RpcStatus, limit?: string): void

  /** A piece of a message: the first one with its `size`, a later one with size −1. */
  data(size: number, data: Buffer): void {
    if (!this.takesData) return
    // Rule `window-exceeded`.
    this.link.held.received += data.length
    if (!this.window.receive(data.length)) {
      this.fault(makeStatus(Code.RESOURCE_EXHAUSTED, this.window.refusal), this.window.name)
      return
    }
    this.took(this.assembled(size, data))
    this.link.held.check()
  }

  private assembled(size: number, data: Buffer): Step {
    const { held, limits } = this.link
    let { inbound } = this
    if (inbound === undefined) {
      inbound = (held.spare ?? new Assembler(limits.maxMessageSize, held)).restart(this.reading)
      held.spare = undefined
      this.inbound = inbound
    }
    const step = size < 0 ? inbound.more(data) : inbound.begin(size, data)
    this.park(inbound)
    return step
  }

  private park(inbound: Assembler): void {
    if (!inbound.idle) return
    this.reading = inbound.wanted
    this.inbound = undefined
    this.link.held.spare = inbound
  }

  /** Asks for the next message: it is taken now, or when it has come. */
  protected readNext(): void {
    const { inbound } = this
    if (inbound === undefined) {
      this.reading = true
      return
    }
    const step = inbound.read()
    this.park(inbound)
    this.took(step)
  }

  /** Whole messages wait for their reader. */
  protected get unread(): boolean {
    return this.inbound?.unread === true
  }

  /** A message has begun and is not complete. */
  protected get partial(): boolean {
    return this.inbound?.partial === true
  }

  /** Lets go of what came; nothing more is taken. */
  protected drop(): void {
    this.inbound?.drop()
    this.inbound = undefined
    this.reading = false
  }

  /** The rest of a message that somebody waits for is consumed whatever comes, so the peer need not wait with it. */
  private expectRest(): void {
    const awaited = this.inbound?.awaited ?? 0
    if (awaited > 0 && this.takesData) this.announce(this.window.expect(awaited))
  }

  /** Grants what calls of the method have come to need, to a peer that began with less. */
  protected widen(): void {
    this.announce(this.window.start())
  }

  private announce(increment: number): void {
    if (increment > 0) this.link.outbox.announce(this.outbound, increment)
  }

  get held(): number {
    return (this.inbound?.held ?? 0) + this.outbound.queued
  }

  get stalled(): boolean {
    return this.outbound.pending && !this.outbound.ready
  }

  relinquish(details: string): void {
    this.fault(makeStatus(Code.RESOURCE_EXHAUSTED, details), "bytes held")
    this.drop()
    this.link.outbox.discard(this.outbound)
  }

  protected queue(message: Buffer, onSent: () => void): void {
    this.link.outbox.message(this.outbound, message, onSent)
    this.link.held.check()
  }

  grant(increment: number): void {
    if (this.outbound.window.grant(increment)) this.link.outbox.enlist(this.outbound)
  }

  protected took(step: Step): void {
    if (step._tag === "Fault") {
      if (step.fault === "too-large") {
        const details = `A message is larger than ${this.link.limits.maxMessageSize} bytes, the most that is taken here`
        this.fault(makeStatus(Code.RESOURCE_EXHAUSTED, details), "message size")
      } else this.fault(makeStatus(this.framingCode, faults[step.fault]))
      return
    }
    if (step.consumed > 0 && this.takesData) {
      this.announce(this.window.consume(step.consumed))
    }
    if (step.message !== undefined) this.take(step.message)
    this.expectRest()
  }

  protected forgetWindow(): void {
    this.window.close()
  }
}
