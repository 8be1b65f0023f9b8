/**
 * What drives a stream at either end: the pure machine's events, the task that owns the stream, and the bytes that
 * come in under flow control.
 *
 * **Invariants**
 * 1. Events are processed one at a time, in the order in which they came, also when an action causes another.
 * 2. The task is told of the end once, after every action of the event that brought it: by a cancel with the
 *    stream's reason, or by letting it complete.
 * 3. Bytes are counted against the window before anything else, and announced as consumed only while the stream
 *    still wants more.
 * 4. What was opened is observed as closed, once.
 */
import { CancelReason, currentReason } from "@curfew/reason"
import type { Task } from "@curfew/scope"
import { status as Code } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { CancelledBy, StreamFinalizer, StreamPhase, StreamRef } from "../TunnelEvent.ts"
import { Assembler, type Fault, type Step } from "./assembler.ts"
import type { Entry } from "./deadlines.ts"
import { type Revision, revisionOne } from "./frame.ts"
import type { Holder } from "./held.ts"
import { closeHere, type Link } from "./link.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"
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

export abstract class StreamDriver<State, Event, Action> implements Holder {
  protected readonly link: Link
  protected readonly outbound: Outbound
  protected readonly inbound: Assembler
  protected readonly done = Deferred.makeUnsafe<void>()
  protected abstract state: State
  protected outcome: RpcStatus | undefined
  /** What went out in place of a status that cannot be carried. */
  protected replaced: RpcStatus | undefined
  protected timer: Entry | undefined
  protected openedAt = 0
  protected opened = false
  private readonly window: Receiving
  /** The code for a peer that breaks the framing of messages. */
  private readonly framingCode: number
  private readonly pending: Array<Event> = []
  private stepping = false
  private finishDue: { readonly reason: CancelReason | undefined } | undefined
  private task: Task<void> | undefined
  private cancelled = false
  private lateWrites = 0

  constructor(link: Link, outbound: Outbound, framingCode: number, revision: Revision) {
    this.link = link
    this.outbound = outbound
    this.framingCode = framingCode
    this.inbound = new Assembler(link.limits.maxMessageSize, link.held)
    const { maxUnread, window } = link.limits
    this.window = revision === revisionOne ? new ReceiveWindow(window) : new UnreadBytes(maxUnread)
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
    this.pending.push(event)
    if (this.stepping) return
    this.stepping = true
    for (let next = this.pending.shift(); next !== undefined; next = this.pending.shift()) {
      const before = this.state
      const [after, actions] = this.step(before, next)
      this.state = after
      const conclusion = this.conclusion(before, after)
      if (conclusion !== undefined) this.conclude(conclusion)
      for (const action of actions) this.perform(action)
    }
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

  // ── the task ───────────────────────────────────────────────────────────────────────────────────────────────

  /** Gives the stream its task, once the task has started. */
  own(task: Task<void>): void {
    this.task = task
    this.finishIfDue()
  }

  protected finish(reason: CancelReason | undefined): void {
    this.finishDue = { reason }
  }

  private finishIfDue(): void {
    const { finishDue, task } = this
    if (finishDue === undefined || task === undefined) return
    this.finishDue = undefined
    if (finishDue.reason === undefined) Deferred.doneUnsafe(this.done, Effect.void)
    else task.cancelUnsafe(finishDue.reason)
  }

  protected finalizer(
    name: StreamFinalizer,
    close: () => Effect.Effect<void>
  ): Effect.Effect<void, never, Scope.Scope> {
    return Effect.addFinalizer(() =>
      Effect.suspend(close).pipe(
        Effect.ensuring(
          Effect.sync(() => this.link.observe?.({ _tag: "FinalizerRan", finalizer: name, ...this.ref }))
        )
      )
    )
  }

  /** Why the tunnel takes the stream with it, for a stream whose task ends before anything ended the stream. */
  protected readonly tunnelReason: Effect.Effect<CancelReason> = Effect.suspend(() =>
    Effect.andThen(
      closeHere(this.link),
      Effect.map(currentReason, (reason) => Option.getOrElse(reason, () => this.link.reason))
    )
  )

  protected releaseTimer(): void {
    if (this.timer !== undefined) this.link.deadlines.remove(this.timer)
    this.timer = undefined
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
    this.took(size < 0 ? this.inbound.more(data) : this.inbound.begin(size, data))
    this.link.held.check()
  }

  get held(): number {
    return this.inbound.held + this.outbound.queued
  }

  get stalled(): boolean {
    return this.outbound.pending && !this.outbound.ready
  }

  relinquish(details: string): void {
    this.fault(makeStatus(Code.RESOURCE_EXHAUSTED, details), "bytes held")
    this.inbound.drop()
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
      const increment = this.window.consume(step.consumed)
      if (increment > 0) this.link.outbox.announce(this.outbound, increment)
    }
    if (step.message !== undefined) this.take(step.message)
  }

  // ── what is observed ───────────────────────────────────────────────────────────────────────────────────────

  protected noteOpened(): void {
    this.opened = true
    this.link.counters.opened++
    this.link.observe?.({ _tag: "StreamOpened", ...this.ref })
  }

  protected noteClosed(): void {
    if (!this.opened) return
    const { code, details } = this.replaced ?? this.outcome ?? makeStatus(Code.UNKNOWN, "")
    const duration = Duration.millis(this.link.now() - this.openedAt)
    this.link.observe?.({
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
