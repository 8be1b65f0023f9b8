/**
 * How a call ends, whoever ends it: its server, its deadline, its caller, its request stream.
 *
 * Invariants
 * 1. `outcome` is set once: by the status, by the call's own deadline, by the request stream, or by a start that
 *    failed. It is what the caller gets when it has read what came before it.
 * 2. Whoever leaves before the status came cancels the call, once, and waits for the status within the clean-up budget.
 * 3. A cancel that comes in the turn of the start is said twice: grpc-js makes the call on the wire a few microtasks
 *    after its start, whether or not it was cancelled meanwhile, and only a cancel after that ends it at the server.
 * 4. The call's own deadline is the call's failure; a surrounding scope's is told by that scope.
 */
import { CancelReason, currentReason, describe, toCause } from "@curfew/reason"
import type { CancelCell } from "@curfew/reason/CancelCell"
import { Instant } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import {
  type CallOptions as ChannelCallOptions,
  type ChannelInterface,
  type Interceptor,
  type Metadata,
  type StatusObject,
  status as statusCodes
} from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { GrpcError } from "../../GrpcError.ts"
import { afterTurn } from "../turns.ts"
import type { AnyMethod, InterceptingCall, Why } from "./channelCall.ts"
import { type CallDeadline, isScopes, jitter } from "./deadline.ts"
import type { Telemetry } from "./telemetry.ts"

export interface Outgoing {
  readonly method: AnyMethod
  readonly channel: ChannelInterface
  readonly interceptors: ReadonlyArray<Interceptor>
  readonly credentials: ChannelCallOptions["credentials"] | undefined
  readonly onHeaders: ((headers: Metadata) => void) | undefined
  readonly onTrailers: ((trailers: Metadata, status: StatusObject) => void) | undefined
}

/** What sends the request stream of a call, as far as the call's end has to do with it. */
interface Sender {
  readonly cancel: (reason: CancelReason) => void
  readonly stop: Effect.Effect<unknown>
}

const expired = "The deadline of the call has passed."

export const left: CancelReason = CancelReason.Requested({
  message: "the caller left before the call had ended"
})
export const answered: CancelReason = CancelReason.Requested({ message: "the call has ended" })

export abstract class Ending<E> implements Why {
  protected readonly outgoing: Outgoing
  protected readonly telemetry: Telemetry
  /** Why the call is being cancelled. */
  reason: CancelReason | undefined
  /** What sends the request stream, where there is one. */
  requests: Sender | undefined
  protected call: InterceptingCall | undefined
  protected deadline: CallDeadline | undefined
  protected disarm: (() => void) | undefined
  /** The channel's call ends itself at the deadline, so there is no timer here. */
  protected deadlineKept = false
  protected clock: Clock.Clock | undefined
  protected outcome: Effect.Effect<void, GrpcError | E> | undefined
  /** No status is to come: it has come, or the call was never made. */
  protected ended = true
  /** Cancels on the wire. */
  private say: (() => void) | undefined
  /** The channel has told something, so the call is on the wire. */
  protected onWire = false
  /** Waits for the status. */
  protected ender: (() => void) | undefined

  constructor(outgoing: Outgoing, telemetry: Telemetry) {
    this.outgoing = outgoing
    this.telemetry = telemetry
  }

  /** Lets go of what came before an outcome that does not wait for it. */
  protected abstract forget(): void
  /** Tells whoever waits that the outcome stands. */
  protected abstract tell(): void

  protected get path(): string {
    return this.outgoing.method.path
  }

  /** The outcome stands. */
  get over(): boolean {
    return this.outcome !== undefined
  }

  /** The call is over before it began. */
  refuse(error: GrpcError): void {
    this.outcome ??= Exit.fail(error)
    this.telemetry.completed(error.code)
  }

  protected tooLate(): void {
    if (this.scopes) {
      this.telemetry.cancelled(CancelReason.Deadline({ at: 0, origin: "local" }))
      this.outcome = this.scopeEnds
      return
    }
    const details = "The deadline had passed before the call was made."
    this.refuse(GrpcError.make("DEADLINE_EXCEEDED", details, { method: this.path }))
  }

  // ── deadlines ──────────────────────────────────────────────────────────────────────────────────────────────

  protected get scopes(): boolean {
    const { cell } = this.deadline ?? {}
    return cell !== undefined && isScopes(this.deadline as CallDeadline, this.now)
  }

  protected get now(): number {
    return Instant.nowOf(this.clock as Clock.Clock)
  }

  /** The scope's deadline is the scope's to tell: its cancel is due, and comes from its own timer. */
  protected get scopeEnds(): Effect.Effect<never, GrpcError> {
    const cell = (this.deadline as CallDeadline).cell as CancelCell
    const cancelled = Effect.callback<never>((resume) => {
      const interrupt = (reason: CancelReason) => resume(Effect.failCause(toCause(reason)))
      if (cell.reason !== undefined) return interrupt(cell.reason)
      return Effect.sync(cell.listen(interrupt))
    })
    // A fiber that outlived the scope hears no cancel any more.
    return Effect.timeoutOrElse(cancelled, {
      duration: "1 second",
      orElse: () =>
        Effect.fail(
          GrpcError.make("DEADLINE_EXCEEDED", "The deadline of the surrounding scope has passed.", {
            method: this.path
          })
        )
    })
  }

  /** The call's own deadline has passed. */
  protected get expired(): Effect.Effect<never, GrpcError> {
    this.telemetry.completed(statusCodes.DEADLINE_EXCEEDED)
    return Exit.fail(GrpcError.make("DEADLINE_EXCEEDED", expired, { method: this.path }))
  }

  /** The channel said so, in the place of a timer here. */
  protected isOwnDeadline({ code }: StatusObject): boolean {
    const { own } = this.deadline as CallDeadline
    return code === statusCodes.DEADLINE_EXCEEDED && this.deadlineKept && own - this.now <= jitter
  }

  protected expire(): void {
    this.disarm = undefined
    this.abort(
      this.expired,
      statusCodes.DEADLINE_EXCEEDED,
      expired,
      CancelReason.Deadline({
        at: Math.round((this.clock as Clock.Clock).currentTimeMillisUnsafe()),
        origin: "local",
        scope: this.path
      })
    )
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────────

  protected abort(
    outcome: Effect.Effect<void, GrpcError | E>,
    code: number,
    details: string,
    reason: CancelReason
  ): void {
    if (this.ended) {
      // The status is there: only what the caller itself threw still comes before it.
      this.outcome = outcome
      return
    }
    if (this.outcome !== undefined) return
    this.outcome = outcome
    this.forget()
    this.cancel(code, details, reason)
    this.requests?.cancel(answered)
    this.tell()
  }

  protected cancel(code: number, details: string, reason: CancelReason): void {
    if (this.ended || this.reason !== undefined) return
    this.disarm?.()
    this.disarm = undefined
    this.reason = reason
    this.say = () => this.call?.cancelWithStatus(code, details)
    this.say()
  }

  /** Cancels what has not ended. */
  private get leave(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.ended) return Effect.void
      return Effect.map(currentReason, (given) => {
        const reason = Option.getOrElse(given, () => left)
        this.telemetry.cancelled(reason)
        this.cancel(statusCodes.CANCELLED, describe(reason), reason)
      })
    })
  }

  /** Waits for the status. */
  private get end(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const finished = Effect.sync(() => this.finish())
      if (this.reason === undefined) return finished
      const status = Effect.callback<void>((resume) => {
        if (this.ended) return resume(Effect.void)
        this.ender = () => resume(Effect.void)
      })
      // It mostly comes in this turn, before a limit would be worth its timer.
      const soon = Effect.callback<void>((resume) => {
        if (this.ended) return resume(Effect.void)
        this.ender = () => resume(Effect.void)
        afterTurn(() => resume(Effect.void))
      })
      const limited = Effect.flatMap(Effect.uninterruptible(soon), () =>
        this.ended ? Effect.void : boundedAt(status, { name: `end of ${this.path}` })
      )
      return Effect.andThen(Effect.andThen(limited, this.again), finished)
    })
  }

  /** Says the cancel once more, in a later turn. */
  private get again(): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.onWire
        ? Effect.void
        : Effect.andThen(
            Effect.yieldNow,
            Effect.sync(() => this.say?.())
          )
    )
  }

  protected finish(): void {
    this.disarm?.()
    this.disarm = undefined
    this.telemetry.finished()
  }

  /** What follows every end but a status that came on its own: the request stream ends before the call does. */
  get release(): Effect.Effect<void> {
    const { requests } = this
    const end = requests === undefined ? this.end : Effect.andThen(requests.stop, this.end)
    return Effect.andThen(this.leave, end)
  }
}
