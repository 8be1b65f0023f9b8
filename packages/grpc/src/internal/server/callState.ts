/**
 * One call of a grpc-js style call object: what came from the transport, what went to it, and why it ends.
 *
 * The same object comes from `grpc.Server` and from a tunnel. What a tunnel knows better it says itself: `cancelled`
 * with the `CancelReason` as argument, and its name under a registered symbol.
 *
 * Invariants
 * 1. The events of the transport become a `PeerSignal` here and nowhere else.
 * 2. One status goes out. It is marked as sent before it is handed over, so that the `cancelled` which grpc-js emits
 *    after every answer is not heard as a cancellation.
 * 3. The first reason stands, from wherever it came, and is told once to the table.
 * 4. Nothing is written once the transport said that the call is over, and nothing that it could not write.
 * 5. Every call object has an `error` listener: without one an error of the stream ends the process.
 */
import type { EventEmitter } from "node:events"
import { CancelReason, isCancelReason, toCause } from "@curfew/reason"
import { awaitPeerGone, completed, onPeerGone, PeerSignal, send } from "@curfew/request"
import { CurrentCall } from "@curfew/request/Endpoint"
import type { Transport } from "@curfew/request/OnDisconnect"
import { Instant } from "@curfew/scope"
import { countUnsafe } from "@curfew/scope/Argument"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { GrpcError } from "../../GrpcError.ts"
import type { CallTunnel, ServerCall, WorkBudget } from "../../ServerCall.ts"
import type { CallLimits } from "../../ServerLimits.ts"
import type { MethodKind } from "../../Service.ts"
import type { MetadataInput } from "../metadata.ts"
import type { CallTable, Entry } from "./callTable.ts"
import { limitReason, type ResolvedLimits } from "./limits.ts"
import { BadMetadata, checked } from "./metadata.ts"
import type { MethodSpec } from "./method.ts"
import type { Outgoing } from "./status.ts"

/** What grpc-js and the tunnel hand to a handler. */
export interface RawCall extends EventEmitter {
  readonly metadata: Metadata
  readonly cancelled: boolean
  readonly request?: unknown
  readonly readableEnded?: boolean
  readonly writableNeedDrain?: boolean
  readonly getPeer: () => string
  readonly getDeadline: () => Date | number
  readonly sendMetadata: (metadata: Metadata) => void
  readonly read?: () => unknown
  readonly write?: (message: Buffer) => boolean
  readonly end?: (trailers?: Metadata) => void
}

/** The callback of a unary and of a client-streaming handler. */
export type Respond = (
  error: { readonly code: number; readonly details: string; readonly metadata?: Metadata } | null,
  value?: Buffer | null,
  trailers?: Metadata
) => void

const transportKey = /* @__PURE__ */ Symbol.for("curfew.transport")

const tunnelKey = /* @__PURE__ */ Symbol.for("curfew.tunnel")

const transportOf = (raw: object): "grpc" | "tunnel" =>
  (raw as { readonly [transportKey]?: unknown })[transportKey] === "tunnel" ? "tunnel" : "grpc"

// Not registered: no work but the call's own finds it.
const callKey = Symbol("call")

/** The call of a peer signal. */
export const callOf = (peer: object): ServerCall | undefined =>
  (peer as { readonly [callKey]?: CallState })[callKey]

export class CallState implements ServerCall, Entry {
  readonly id: string
  readonly method: string
  readonly kind: MethodKind
  readonly transport: Transport
  readonly peer: string
  readonly raw: RawCall
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
  #spent = 0
  #cancelledAt: Instant.Instant | undefined
  readonly #table: CallTable
  readonly #respond: Respond | undefined
  readonly #clock: Clock.Clock

  constructor(spec: MethodSpec, raw: RawCall, respond: Respond | undefined) {
    this.raw = raw
    this.method = spec.definition.path
    this.kind = spec.kind
    this.limits = spec.limits
    this.#table = spec.table
    this.#respond = respond
    this.#clock = spec.clock
    this.id = spec.table.nextId()
    this.transport = transportOf(raw)
    this.peer = raw.getPeer()
    const deadline = Number(raw.getDeadline())
    this.deadlineAt = Number.isFinite(deadline) ? deadline : Number.POSITIVE_INFINITY
    const { signal } = this as { signal: PeerSignal.PeerSignal & { [callKey]?: CallState } }
    signal[callKey] = this
    // A tunnel's call object has a listener of its own.
    if (this.transport !== "tunnel") raw.on("error", ignore)
    raw.on("cancelled", (reason: unknown) => this.#onCancelled(reason))
    if (raw.cancelled) this.#onCancelled(undefined)
  }

  get deadline(): Option.Option<number> {
    return this.deadlineAt === Number.POSITIVE_INFINITY ? Option.none() : Option.some(this.deadlineAt)
  }

  get metadata(): Metadata {
    return this.raw.metadata
  }

  // ── from the transport ─────────────────────────────────────────────────────────────────────────────────────

  #onCancelled(told: unknown): void {
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
    return at !== Number.POSITIVE_INFINITY && this.#clock.currentTimeMillisUnsafe() >= at
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
    this.#cancelledAt = Instant.nowOf(this.#clock)
    const { id, method, phase, transport } = this
    this.observerFailure = this.#table.tell({ id, method, transport, reason, phase })
  }

  get cancel(): ServerCall["cancel"] {
    return (status) =>
      Effect.sync(() => {
        if (this.answered || this.ended !== undefined) return false
        this.chosen = new GrpcError(status)
        this.stop(CancelReason.Requested({ message: status.details }))
        return true
      })
  }

  // ── to the transport ───────────────────────────────────────────────────────────────────────────────────────

  get sendHeaders(): ServerCall["sendHeaders"] {
    return (headers) =>
      Effect.flatMap(this.#checked(headers, "headers"), (metadata) =>
        Effect.sync(() => {
          if (this.over || this.answered) return
          this.phase = "responding"
          this.raw.sendMetadata(metadata)
        })
      )
  }

  get setTrailers(): ServerCall["setTrailers"] {
    return (trailers) =>
      Effect.map(this.#checked(trailers, "trailers"), (metadata) => {
        this.trailers = metadata
      })
  }

  #checked(input: MetadataInput, what: string): Effect.Effect<Metadata, GrpcError> {
    return Effect.suspend(() => {
      const metadata = checked(input)
      if (!(metadata instanceof BadMetadata)) return Effect.succeed(metadata)
      const details = `The ${what} of the answer cannot be sent`
      const error = new GrpcError({ code: Code.INTERNAL, details, method: this.method })
      return Effect.andThen(
        Effect.logError(`${details}: ${metadata.detail}. Leave it out, or change it.`),
        error
      )
    })
  }

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
    return this.raw.write?.(bytes) === false ? Effect.asVoid(this.#sent(this.#drained)) : undefined
  }

  #sent(write: Effect.Effect<void>) {
    return send(write, { peer: this.signal })
  }

  // A stream that was destroyed neither drains nor calls back: whoever waits is raced with the peer's leaving.
  get #drained(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      // It may have drained on the way here.
      if (this.raw.writableNeedDrain === false) {
        resume(Effect.void)
        return undefined
      }
      const onDrain = (): void => resume(Effect.void)
      this.raw.once("drain", onDrain)
      return Effect.sync(() => {
        this.raw.off("drain", onDrain)
      })
    })
  }

  /** Hands over the status, with the answer of a call that has one. Gives what the transport threw. */
  finish(status: Outgoing, answer?: Buffer): unknown {
    if (this.answered || this.over) return undefined
    this.answered = true
    try {
      this.#hand(status, answer)
      return undefined
    } catch (error) {
      return error ?? new Error("The transport threw nothing.")
    } finally {
      this.signal.completeUnsafe()
    }
  }

  #hand({ code, details, trailers }: Outgoing, answer: Buffer | undefined): void {
    const { raw } = this
    if (code === Code.OK) {
      if (this.#respond === undefined) raw.end?.(trailers)
      else this.#respond(null, answer ?? null, trailers)
      return
    }
    const error = { code, details, ...(trailers === undefined ? {} : { metadata: trailers }) }
    if (this.#respond === undefined) raw.emit("error", error)
    else this.#respond(error)
  }

  // ── asking: getters, because most calls are asked nothing ─────────────────────────────────────────────────

  get tunnel(): Option.Option<CallTunnel> {
    return Option.fromUndefinedOr((this.raw as { readonly [tunnelKey]?: CallTunnel })[tunnelKey])
  }

  #asking<A, E, R>(ask: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.provideService(ask, CurrentCall, {
      method: this.method,
      kind: "request",
      transport: this.transport,
      peer: this.signal,
      policy: "cancel",
      observe: Effect.succeed(false)
    })
  }

  get isActive(): Effect.Effect<boolean> {
    return Effect.sync(() => this.signal.state === "waiting" && !this.over)
  }

  get awaitPeerGone(): Effect.Effect<CancelReason> {
    return this.#asking(awaitPeerGone)
  }

  get onPeerGone(): ServerCall["onPeerGone"] {
    return (effect) => this.#asking(onPeerGone(effect))
  }

  get completed(): Effect.Effect<void> {
    return this.#asking(completed)
  }

  get reason(): Effect.Effect<Option.Option<CancelReason>> {
    return Effect.sync(() => Option.fromUndefinedOr(this.ended))
  }

  get cancelledAt(): Effect.Effect<Option.Option<Instant.Instant>> {
    return Effect.sync(() => Option.fromUndefinedOr(this.#cancelledAt))
  }

  get budget(): WorkBudget {
    return {
      spend: (units) =>
        Effect.suspend(() => {
          this.#spent += Math.max(0, units)
          if (this.#spent <= this.limits.work) return Effect.void
          this.exceeded("work")
          return Effect.yieldNow
        }),
      take: (upTo) =>
        Effect.suspend(() => {
          const units = Math.min(
            countUnsafe("the units to take of a budget", upTo, 1),
            this.limits.work - this.#spent
          )
          if (units > 0) {
            this.#spent += units
            return Effect.succeed(units)
          }
          this.exceeded("work")
          const reason = this.ended ?? limitReason(this.limits, "work")
          // Who masks does not hear of the cancel, and has nothing to go on with.
          return Effect.andThen(Effect.yieldNow, Effect.failCause(toCause(reason)))
        }),
      left: Effect.sync(() => Math.max(0, this.limits.work - this.#spent))
    }
  }
}

const ignore = (): void => undefined
