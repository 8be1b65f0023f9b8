/**
 * One call at its server: what came from the transport, what went to it, and why it ends.
 *
 * It is the same whichever transport brought it; what differs stands in `objectCall.ts`, for the call objects of grpc-js
 * and of a tunnel, and in `plainCall.ts`, for calls of a tunnel that have none.
 *
 * Invariants
 * 1. The events of the transport become a `PeerSignal` here and nowhere else.
 * 2. One status goes out. It is marked as sent before it is handed over, so that the `cancelled` which grpc-js emits
 *    after every answer is not heard as a cancellation.
 * 3. The first reason stands, from wherever it came, and is told once to the table.
 * 4. Nothing is written once the transport said that the call is over, and nothing that it could not write.
 */
import { CancelReason, isCancelReason } from "@curfew/reason"
import { PeerSignal, send } from "@curfew/request"
import type { Transport } from "@curfew/request/OnDisconnect"
import { Instant } from "@curfew/scope"
import type { Metadata } from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { GrpcError } from "../../GrpcError.ts"
import type { CallLimits } from "../../ServerLimits.ts"
import type { MethodKind } from "../../Service.ts"
import type { CallTable, Entry } from "./callTable.ts"
import { limitReason, type ResolvedLimits } from "./limits.ts"
import type { MethodSpec } from "./method.ts"
import type { Encoded } from "./requests.ts"
import type { Outgoing } from "./status.ts"

// Not registered: no work but the call's own finds it.
const callKey = Symbol("call")

/** The call of a peer signal. */
export const stateOf = (peer: object): CallState | undefined =>
  (peer as { readonly [callKey]?: CallState })[callKey]

/** What a request stream has for its reader: a message, or why there is none now. */
export type Next = Encoded | "open" | "ended" | "closed"

export abstract class CallState implements Entry {
  readonly id: string
  readonly method: string
  readonly kind: MethodKind
  readonly transport: Transport
  readonly peer: string
  readonly signal = PeerSignal.makeUnsafe()
  readonly limits: ResolvedLimits
  /** Milliseconds since 1970, or infinity. */
  readonly deadlineAt: number
  place = -1
  /** A status was handed over. */
  answered = false
  /** The transport said that the call has ended. */
  over = false
  phase: "waiting" | "running" | "responding" = "waiting"
  ended: CancelReason | undefined
  /** What the observer of cancellations threw. */
  observerFailure: unknown
  trailers: Metadata | undefined
  /** What `cancel` was given. */
  chosen: GrpcError | undefined
  requestMessages = 0
  requestBytes = 0
  #responses = 0
  #responseBytes = 0
  /** Units of its work budget. */
  spent = 0
  endedAt: Instant.Instant | undefined
  /** Wakes those that wait for more requests. */
  #reader: (() => void) | undefined
  readonly #table: CallTable
  protected readonly clock: Clock.Clock

  constructor(spec: MethodSpec, transport: Transport, peer: string, deadline: number) {
    this.method = spec.definition.path
    this.kind = spec.kind
    this.limits = spec.limits
    this.#table = spec.table
    this.clock = spec.clock
    this.id = spec.table.nextId()
    this.transport = transport
    this.peer = peer
    this.deadlineAt = Number.isFinite(deadline) ? deadline : Number.POSITIVE_INFINITY
    const { signal } = this as { signal: PeerSignal.PeerSignal & { [callKey]?: CallState } }
    signal[callKey] = this
  }

  /** The transport cancels the call at its deadline itself, until its client has gone. */
  get deadlineKept(): boolean {
    return false
  }

  // ── the transport's part ───────────────────────────────────────────────────────────────────────────────────

  abstract get metadata(): Metadata
  /** The first value of one key of the metadata. */
  abstract header(key: string): string | Buffer | undefined
  /** The message of a method whose requests do not stream. */
  abstract get request(): unknown
  protected abstract putHeaders(metadata: Metadata): void
  /** False when it takes no more until `drained` completes. */
  protected abstract put(bytes: Buffer): boolean
  /** Completes when the transport takes more, or the call is over: one that was destroyed neither drains nor calls back. */
  protected abstract get drained(): Effect.Effect<void>
  /** Hands over the status, with the answer of a call that has one. */
  protected abstract hand(status: Outgoing, answer: Buffer | undefined): void
  /** What the request stream has now. */
  abstract next(): Next
  /** There is something else to read already. */
  protected abstract get hasMore(): boolean
  /** Somebody waits for more from here on. */
  protected listenForMore(): void {}
  /** The end of the request stream has been seen. */
  abstract get requestsEnded(): boolean

  /**
   * Goes on with the effect once there may be something else to read. More than one may wait: each is woken, and what has
   * come is for the first.
   */
  whenMore<A, E>(then: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.callback<A, E>((resume) => {
      // Whoever comes here may have been held up on the way, and what it looked for has come meanwhile.
      if (this.hasMore) {
        resume(then)
        return undefined
      }
      this.listenForMore()
      const others = this.#reader
      if (others === undefined) {
        // Woken in vain, if it has stopped waiting by then: most calls have one reader, which need not be taken back.
        this.#reader = () => resume(then)
        return undefined
      }
      const reader = (): void => {
        others()
        resume(then)
      }
      this.#reader = reader
      return Effect.sync(() => {
        if (this.#reader === reader) this.#reader = others
      })
    })
  }

  protected wakeReaders(): void {
    const readers = this.#reader
    this.#reader = undefined
    readers?.()
  }

  // ── from the transport ─────────────────────────────────────────────────────────────────────────────────────

  onCancelled(told: unknown): void {
    this.over = true
    if (this.answered) return
    const reason = isCancelReason(told) ? told : this.#guessed()
    if (reason._tag !== "ClientGone") {
      this.stop(reason)
      return
    }
    this.#note(reason)
    this.signal.goneUnsafe(reason)
  }

  /** grpc-js says nothing: past the deadline it was the deadline, and otherwise the peer. */
  #guessed(): CancelReason {
    const at = this.deadlineAt
    return at !== Number.POSITIVE_INFINITY && this.clock.currentTimeMillisUnsafe() >= at
      ? CancelReason.Deadline({ at, origin: "remote", scope: this.method })
      : CancelReason.ClientGone({ transport: this.transport })
  }

  // ── ending ─────────────────────────────────────────────────────────────────────────────────────────────────

  stop(reason: CancelReason): void {
    if (this.answered) return
    this.#note(reason)
    this.signal.stopUnsafe(reason)
  }

  exceeded(limit: keyof CallLimits): void {
    this.stop(limitReason(this.limits, limit))
  }

  /** A cancel that the call hears of from elsewhere: its own timer, its owner. */
  noteEnd(reason: CancelReason): void {
    this.#note(reason)
  }

  #note(reason: CancelReason): void {
    if (this.ended !== undefined) return
    this.ended = reason
    this.endedAt = Instant.nowOf(this.clock)
    const { id, method, phase, transport } = this
    this.observerFailure = this.#table.tell({ id, method, transport, reason, phase })
  }

  // ── to the transport ───────────────────────────────────────────────────────────────────────────────────────

  /** Counts a response; false when it is one too many, and the call has been stopped. */
  counted(bytes: number): boolean {
    this.#responses++
    this.#responseBytes += bytes
    if (this.#responseBytes > this.limits.responseBytes) this.exceeded("responseBytes")
    else if (this.#responses > this.limits.responses) this.exceeded("responses")
    else return true
    return false
  }

  /** Writes one message of a stream, and waits while the peer does not take more. */
  write(bytes: Buffer): Effect.Effect<void> | undefined {
    if (this.over || this.answered || this.signal.state !== "waiting")
      return Effect.asVoid(this.#sent(Effect.void))
    if (!this.counted(bytes.length)) return Effect.yieldNow
    this.phase = "responding"
    return this.put(bytes) ? undefined : Effect.flatMap(this.drained, () => this.#unlessGone)
  }

  #sent(write: Effect.Effect<void>) {
    return send(write, { peer: this.signal })
  }

  /** That nobody was there for what was written is said where a write says so. */
  get #unlessGone(): Effect.Effect<void> {
    return this.signal.state === "gone" ? Effect.asVoid(this.#sent(Effect.void)) : Effect.void
  }

  /** Hands over the status, with the answer of a call that has one. Gives what the transport threw. */
  finish(status: Outgoing, answer?: Buffer): unknown {
    if (this.answered || this.over) return undefined
    this.answered = true
    try {
      this.hand(status, answer)
      return undefined
    } catch (error) {
      return error ?? new Error("The transport threw nothing.")
    } finally {
      this.signal.completeUnsafe()
    }
  }
}
