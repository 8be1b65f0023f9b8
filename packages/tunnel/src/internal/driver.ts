/**
 * What drives a stream at either end: the pure machine's events, its closing, and the bytes that come in under flow
 * control.
 *
 * A stream has no fiber of its own: one at each end would cost more than the rest of a small call. It is an entry of
 * its tunnel, which ends and awaits every entry before it ends itself. Its closing is a fixed run of finalizers;
 * they run at once, and only one that has to wait takes a task of the tunnel's, masked and within the clean-up budget.
 *
 * **Invariants**
 * 1. Events are processed one at a time, in the order in which they came, also when an action causes another.
 * 2. The stream closes once, after every action of the event that ended it, and the finalizers run in their order;
 *    none is skipped, also when one throws: that is reported, as a failure of the stream.
 * 3. Bytes are counted against the window before anything else, and announced as consumed only while the stream
 *    still wants more.
 * 4. What was opened is observed as closed, once, after its last finalizer.
 * 5. The stream stands in the live tree from its first step until its last finalizer has run: as an entry of its tunnel,
 *    which makes cells of its entries when somebody looks.
 */
import { CancelReason } from "@curfew/reason"
import { CancelCell } from "@curfew/reason/CancelCell"
import type { Task } from "@curfew/scope"
import { status as Code } from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { CancelledBy, StreamFinalizer, StreamPhase, StreamRef } from "../TunnelEvent.ts"
import { Assembler, type Fault, type Step } from "./assembler.ts"
import type { Due } from "./deadlines.ts"
import { type Revision, revisionOne } from "./frame.ts"
import type { Holder } from "./held.ts"
import type { Link } from "./link.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"
import type { Listed, Numbered } from "./streams.ts"
import { ReceiveWindow, type Receiving, UnreadBytes } from "./window.ts"
import type { Outbound } from "./writer.ts"

const faults: Readonly<Record<Exclude<Fault, "too-large">, string>> = {
  "no-message-open": "A continuation came without a message",
  "message-still-open": "A message began inside another",
  "too-many-bytes": "A message is longer than announced"
}

/** How a stream ended, when an event ended it. */
export interface Conclusion {
  readonly status: RpcStatus
  /** Absent when the stream was answered. */
  readonly cancelled:
    | { readonly by: CancelledBy; readonly reason: CancelReason; readonly phase: StreamPhase }
    | undefined
}

export abstract class StreamDriver<State, Event, Action> implements Holder, Numbered, Due {
  abstract readonly id: number
  before: Listed | undefined
  after: Listed | undefined
  listed = false
  sameSlot: Numbered | undefined
  protected readonly link: Link
  protected readonly outbound: Outbound
  /** There while something has come that was not handed out; in between it is another stream's. */
  private inbound: Assembler | undefined
  /** A read waits, and nothing has come for it. */
  private reading = false
  protected abstract state: State
  protected outcome: RpcStatus | undefined
  /** What went out in place of a status that cannot be carried. */
  protected replaced: RpcStatus | undefined
  /** When its deadline is due, and where that stands among the tunnel's: nowhere without one. */
  at = 0
  index = -1
  protected openedAt = 0
  protected opened = false
  protected readonly window: Receiving
  /** The code for a peer that breaks the framing of messages. */
  private readonly framingCode: number
  private pending: Array<Event> | undefined
  private stepping = false
  private finishDue: { readonly reason: CancelReason | undefined } | undefined
  private cell: CancelCell | undefined
  /** What the stream waits for before it may begin: somebody's permission. */
  private permission: Task<void> | undefined
  private hasClosed = false
  /** The last finalizer has run. */
  private hasLeft = false
  private cancelled = false
  private lateWrites = 0

  constructor(link: Link, outbound: Outbound, framingCode: number, revision: Revision, method: string) {
    this.link = link
    this.outbound = outbound
    this.framingCode = framingCode
    const { growth, limits } = link
    this.window =
      revision === revisionOne ? new ReceiveWindow(growth, method) : new UnreadBytes(limits.maxUnread)
  }

  protected abstract get ref(): StreamRef
  protected abstract step(state: State, event: Event): readonly [State, ReadonlyArray<Action>]
  protected abstract perform(action: Action): void
  protected abstract conclusion(before: State, after: State): Conclusion | undefined
  protected abstract get takesData(): boolean
  protected abstract take(message: Buffer): void
  /** Ends the stream for something that the peer did; with a limit when it was one. */
  abstract fault(status: RpcStatus, limit?: string): void

  // ── the machine ────────────────────────────────────────────────────────────────────────────────────────────

  feed(event: Event): void {
    if (this.stepping) {
      if (this.pending === undefined) this.pending = [event]
      else this.pending.push(event)
      return
    }
    this.stepping = true
    this.process(event)
    this.settle()
  }

  /** The first state, with what it asks for. */
  protected enterState([state, actions]: readonly [State, ReadonlyArray<Action>]): void {
    this.stepping = true
    this.state = state
    for (const action of actions) this.perform(action)
    this.settle()
  }

  private process(event: Event): void {
    const before = this.state
    const [after, actions] = this.step(before, event)
    this.state = after
    const conclusion = this.conclusion(before, after)
    if (conclusion !== undefined) this.conclude(conclusion)
    for (const action of actions) this.perform(action)
  }

  private settle(): void {
    for (let next = 0; this.pending !== undefined && next < this.pending.length; next++)
      this.process(this.pending[next] as Event)
    this.pending = undefined
    this.stepping = false
    this.finishIfDue()
  }

  private conclude({ cancelled, status }: Conclusion): void {
    this.outcome = status
    if (cancelled === undefined || !this.opened) return
    this.cancelled = true
    this.link.counters.cancelled++
    this.link.observe?.({ _tag: "StreamCancelled", ...cancelled, ...this.ref })
  }

  // ── life and closing ───────────────────────────────────────────────────────────────────────────────────────

  /** Enters the stream into its tunnel, and by that into the live tree. */
  protected enterTunnel(): void {
    this.link.held.holders.add(this)
  }

  /** What it is called in the live tree. */
  protected abstract get title(): string

  /** The deadline has passed. */
  abstract fire(): void

  /** Stands in the live tree as a cell from now on, since somebody looks at it. */
  show(): void {
    if (this.hasLeft || this.cell !== undefined) return
    const age = this.link.now() - this.openedAt
    this.cell = new CancelCell("task", { name: this.title, parent: this.link.cell, age })
  }

  /** Does not begin before the permission has been given; a stream that ends first takes the question back. */
  protected beginAfter(permission: Effect.Effect<void>, name: string): void {
    let asking = true
    const asked = Effect.andThen(
      permission,
      Effect.sync(() => {
        asking = false
        this.permission = undefined
        this.begin()
      })
    )
    const task = this.link.spawn(asked, name)
    // It may have been answered at once.
    if (asking) this.permission = task
  }

  /** The permission was given, or none was needed. */
  protected abstract begin(): void

  protected finish(reason: CancelReason | undefined): void {
    this.finishDue = { reason }
  }

  private finishIfDue(): void {
    const { finishDue } = this
    if (finishDue === undefined) return
    this.finishDue = undefined
    this.close(finishDue.reason)
  }

  /**
   * Closes the stream: its own end was decided, or its tunnel takes it along for the reason. What has to wait goes on
   * in a task of the tunnel's.
   */
  close(reason: CancelReason | undefined): void {
    if (this.hasClosed) return
    if (this.stepping) {
      // A handler ended its own tunnel from within its first turn: it hears of that once it is through.
      this.finishDue ??= { reason }
      return
    }
    this.hasClosed = true
    const { permission } = this
    if (permission === undefined) {
      this.unwind(0, reason)
      return
    }
    this.permission = undefined
    permission.cancelUnsafe(reason)
    this.later(permission.exit, 0, reason)
  }

  private unwind(from: number, reason: CancelReason | undefined): void {
    const { finalizers } = this
    for (let index = from; index < finalizers.length; index++) {
      const name = finalizers[index] as StreamFinalizer
      let wait: Effect.Effect<unknown> | undefined
      try {
        wait = this.finalize(name, reason)
      } catch (error) {
        this.link.failed(`${name} finalizer of ${this.ref.method}`, error)
      }
      if (wait !== undefined) {
        this.later(wait, index + 1, reason, name)
        return
      }
      this.ran(name)
    }
    this.window.close()
    this.hasLeft = true
    this.cell?.unlink()
    this.noteClosed()
  }

  private ran(finalizer: StreamFinalizer): void {
    this.link.observe?.({ _tag: "FinalizerRan", finalizer, ...this.ref })
  }

  private later(
    wait: Effect.Effect<unknown>,
    next: number,
    reason: CancelReason | undefined,
    name?: StreamFinalizer
  ): void {
    const rest = Effect.andThen(
      Effect.exit(wait),
      Effect.sync(() => {
        if (name !== undefined) this.ran(name)
        this.unwind(next, reason)
      })
    )
    this.link.closeLater(Effect.uninterruptible(rest), `closing of ${this.ref.method}`)
  }

  /** The finalizers, in the order in which they run. */
  protected abstract readonly finalizers: ReadonlyArray<StreamFinalizer>

  /** Runs one of them; gives what it has to wait for, if anything, within the clean-up budget. */
  protected abstract finalize(
    name: StreamFinalizer,
    reason: CancelReason | undefined
  ): Effect.Effect<unknown> | undefined

  protected releaseTimer(): void {
    this.link.deadlines.remove(this)
  }

  // ── bytes in ───────────────────────────────────────────────────────────────────────────────────────────────

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

  // ── what is observed ───────────────────────────────────────────────────────────────────────────────────────

  protected noteOpened(): void {
    this.opened = true
    this.link.counters.opened++
    this.link.observe?.({ _tag: "StreamOpened", ...this.ref })
  }

  protected noteClosed(): void {
    if (!this.opened || this.link.observe === undefined) return
    const { code, details } = this.replaced ?? this.outcome ?? makeStatus(Code.UNKNOWN, "")
    const duration = Duration.millis(this.link.now() - this.openedAt)
    this.link.observe({
      _tag: "StreamClosed",
      duration,
      code,
      details,
      cancelled: this.cancelled,
      ...this.ref
    })
  }

  protected noteLate(what: "headers" | "message" | "halfClose" | "status", who: string): void {
    this.lateWrites++
    this.link.counters.lateWrites++
    this.link.observe?.({ _tag: "LateWrite", what, count: this.lateWrites, ...this.ref })
    if (this.lateWrites > 1) return
    this.link.note(
      Effect.logDebug(`The ${who} of ${this.ref.method} wrote after its peer had left.`),
      "late write"
    )
  }
}

/** The reason for a fault: the limit that was passed, or what was wrong. */
export const faultReason = (status: RpcStatus, limit: string | undefined): CancelReason =>
  limit === undefined
    ? CancelReason.Requested({ message: status.details })
    : CancelReason.LimitExceeded({ limit })
