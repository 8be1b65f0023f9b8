/**
 * The life of a stream at either end: it stands in its tunnel, closes once, and is observed.
 *
 * A stream has no fiber of its own: one at each end would cost more than the rest of a small call. It is an entry of
 * its tunnel, which ends and awaits every entry before it ends itself. Its closing is a fixed run of finalizers;
 * they run at once, and only one that has to wait takes a task of the tunnel's, masked and within the clean-up budget.
 *
 * **Invariants**
 * 1. The stream closes once, after every action of the event that ended it, and the finalizers run in their order;
 *    none is skipped, also when one throws: that is reported, as a failure of the stream.
 * 2. What was opened is observed as closed, once, after its last finalizer.
 * 3. The stream stands in the live tree from its first step until its last finalizer has run: as an entry of its tunnel,
 *    which makes cells of its entries when somebody looks.
 */
import type { CancelReason } from "@curfew/reason"
import { CancelCell } from "@curfew/reason/CancelCell"
import type { Task } from "@curfew/scope"
import { status as Code } from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { CancelledBy, StreamFinalizer, StreamPhase, StreamRef } from "../TunnelEvent.ts"
import type { Holder } from "./held.ts"
import type { Link } from "./link.ts"
import { makeStatus, type RpcStatus } from "./rpcStatus.ts"
import type { Listed } from "./streams.ts"
import type { Outbound } from "./writer.ts"

/** How a stream ended, when an event ended it. */
export interface Conclusion {
  readonly status: RpcStatus
  /** Absent when the stream was answered. */
  readonly cancelled:
    | { readonly by: CancelledBy; readonly reason: CancelReason; readonly phase: StreamPhase }
    | undefined
}

export abstract class ClosingStream implements Holder {
  before: Listed | undefined
  after: Listed | undefined
  listed = false
  protected readonly link: Link
  protected readonly outbound: Outbound
  protected outcome: RpcStatus | undefined
  /** What went out in place of a status that cannot be carried. */
  protected replaced: RpcStatus | undefined
  protected openedAt = 0
  protected opened = false
  /** An event is being processed. */
  protected stepping = false
  private finishDue: { readonly reason: CancelReason | undefined } | undefined
  private cell: CancelCell | undefined
  /** What the stream waits for before it may begin: somebody's permission. */
  private permission: Task<void> | undefined
  private hasClosed = false
  /** The last finalizer has run. */
  private hasLeft = false
  private cancelled = false
  private lateWrites = 0

  constructor(link: Link, outbound: Outbound) {
    this.link = link
    this.outbound = outbound
  }

  protected abstract get ref(): StreamRef
  abstract get held(): number
  abstract get stalled(): boolean
  abstract relinquish(details: string): void

  // ── life and closing ───────────────────────────────────────────────────────────────────────────────────────

  /** Enters the stream into its tunnel, and by that into the live tree. */
  protected enterTunnel(): void {
    this.link.held.holders.add(this)
  }

  /** What it is called in the live tree. */
  protected abstract get title(): string

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

  protected finishIfDue(): void {
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
    this.forgetWindow()
    this.hasLeft = true
    this.cell?.unlink()
    this.noteClosed()
  }

  /** The last finalizer has run: nothing comes any more. */
  protected abstract forgetWindow(): void

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

  protected conclude({ cancelled, status }: Conclusion): void {
    this.outcome = status
    if (cancelled === undefined || !this.opened) return
    this.cancelled = true
    this.link.counters.cancelled++
    this.link.observe?.({ _tag: "StreamCancelled", ...cancelled, ...this.ref })
  }
}
