/**
 * A call that waits for a tunnel: what the stub does meanwhile is kept, and done again once there is one.
 *
 * **Invariants**
 * 1. What is kept is little: a stub hands over one message and waits for its callback, which comes from the tunnel.
 * 2. It waits no longer than the call's deadline, the limit that was given, and its source's life; a cancel ends it
 *    at once. The status comes exactly once, in a later turn.
 * 3. Once placed, everything goes to the call of the tunnel, and this one keeps nothing.
 */
import type { CancelReason } from "@curfew/reason"
import { status as Code, type experimental, type Metadata } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { afterTurn } from "./bridge.ts"
import type { PlacedCall } from "./movableCall.ts"
import { makeStatus } from "./rpcStatus.ts"
import { cancelWithReason, type Outgoing } from "./stubCall.ts"

type Call = experimental.CallStream
type Listener = Parameters<Call["start"]>[1]
type Step = (call: PlacedCall) => void

export interface Waiting {
  readonly target: string
  readonly outgoing: Outgoing
  /** How long it waits at most, in milliseconds. */
  readonly limit: number
  /** Gives the call of a tunnel as soon as there is one, which may be now; gives how to stop waiting. */
  readonly place: (placed: (call: PlacedCall) => void, failed: (error: unknown) => void) => () => void
  /** Owns the wait; false when the source has ended. */
  readonly note: (work: Effect.Effect<unknown>, name: string) => unknown
}

export class WaitingCall implements Call {
  private readonly waiting: Waiting
  private readonly over = Deferred.makeUnsafe<void>()
  private steps: Array<Step> = []
  private inner: PlacedCall | undefined
  private listener: Listener | undefined
  private ended = false
  private stopWaiting: (() => void) | undefined
  private written: ((error?: Error | null) => void) | undefined
  /** Runs when the call is over, wherever it ended. */
  onOver: (() => void) | undefined

  constructor(waiting: Waiting) {
    this.waiting = waiting
  }

  start(metadata: Metadata, listener: Listener): void {
    this.listener = listener
    this.steps.push((call) => call.start(metadata, listener))
    const { note, place } = this.waiting
    this.stopWaiting = place(
      (call) => this.placed(call),
      (error) => this.finish(...pickerThrew(error))
    )
    if (this.ended || this.inner !== undefined) return
    const wait = Effect.clockWith((clock) => {
      const { limit, outgoing } = this.waiting
      const left = outgoing.deadline - clock.currentTimeMillisUnsafe()
      return Effect.timeoutOrElse(Deferred.await(this.over), {
        duration: Math.max(0, Math.min(left, limit)),
        orElse: () =>
          Effect.sync(() => (left <= limit ? this.finish(...tooLate) : this.finish(...noTunnelInTime)))
      })
    })
    const owned = note(
      Effect.onInterrupt(wait, () => Effect.sync(() => this.finish(Code.UNAVAILABLE, closed))),
      "call that waits for a tunnel"
    )
    if (owned === false || owned === undefined) this.finish(Code.UNAVAILABLE, closed)
  }

  private placed(call: PlacedCall): void {
    if (this.ended) return
    this.inner = call
    call.onOver = this.onOver
    const { steps } = this
    this.steps = []
    for (const step of steps) step(call)
    Deferred.doneUnsafe(this.over, Effect.void)
  }

  private finish(code: number, details: string): void {
    if (this.ended || this.inner !== undefined) return
    this.ended = true
    this.steps = []
    this.stopWaiting?.()
    Deferred.doneUnsafe(this.over, Effect.void)
    this.onOver?.()
    const { listener, written } = this
    afterTurn(() => {
      written?.()
      listener?.onReceiveStatus(makeStatus(code, details))
    })
  }

  private step(step: Step): void {
    if (this.inner !== undefined) step(this.inner)
    else if (!this.ended) this.steps.push(step)
  }

  sendMessageWithContext(context: { callback?: (error?: Error | null) => void }, message: Buffer): void {
    if (this.ended) {
      afterTurn(() => context.callback?.())
      return
    }
    if (this.inner === undefined) this.written = context.callback
    this.step((call) => call.sendMessageWithContext(context, message))
  }

  startRead(): void {
    this.step((call) => call.startRead())
  }

  halfClose(): void {
    this.step((call) => call.halfClose())
  }

  setCredentials(credentials: Parameters<Call["setCredentials"]>[0]): void {
    this.step((call) => call.setCredentials(credentials))
  }

  cancelWithStatus(code: number, details: string): void {
    if (this.inner !== undefined) this.inner.cancelWithStatus(code, details)
    else this.finish(code, details)
  }

  /** What a channel says whose parent call was cancelled. */
  [cancelWithReason](code: number, details: string, reason: CancelReason): void {
    if (this.inner !== undefined) this.inner[cancelWithReason](code, details, reason)
    else this.finish(code, details)
  }

  getPeer(): string {
    return this.inner?.getPeer() ?? this.waiting.target
  }

  getCallNumber(): number {
    return this.waiting.outgoing.number
  }

  getAuthContext(): ReturnType<Call["getAuthContext"]> {
    return this.inner?.getAuthContext() ?? null
  }
}

const closed = "The tunnels of this channel have ended"
const tooLate = [Code.DEADLINE_EXCEEDED, "Deadline exceeded while waiting for a tunnel"] as const
const noTunnelInTime = [Code.UNAVAILABLE, "No tunnel could take the call in time"] as const

/** What a call is told whose picking function threw. */
export const pickerThrew = (error: unknown): readonly [code: number, details: string] => [
  Code.INTERNAL,
  `The function that picks a tunnel threw: ${error instanceof Error ? error.message : String(error)}`
]
