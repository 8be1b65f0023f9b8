/**
 * One call on its way through: from a call object of `grpc.Server` or of a tunnel to a call on a channel, as bytes.
 *
 * A proxy cannot know the kind of a method, so both sides stream on both legs. Over HTTP/2 and in a tunnel a unary call
 * looks the same as a stream of one message.
 *
 * **Invariants**
 * 1. At most one message of each direction is here: the next is asked for when the one before has been taken.
 * 2. The caller gets one status, after all messages, and never after it has left.
 * 3. A cancel is not an end: a cut-off request stream is never half-closed on the other leg. grpc-js ends the stream of
 *    a cancelled call and says so behind it, so over a socket the end waits two turns of the event loop.
 * 4. The relay ends when both legs have: the caller answered or gone, and the status of the other leg there.
 * 5. An interrupt cancels the other leg with its reason, answers the caller, and waits for the other leg.
 */
import { CancelReason, currentReason, describe, isCancelReason } from "@curfew/reason"
import { boundedAt } from "@curfew/scope/bounded"
import { type ChannelInterface, status as Code, Metadata, type ServerDuplexStream } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { afterTurns } from "./bridge.ts"
import { carried, sayable } from "./carried.ts"

/** What grpc-js and the tunnel hand to a handler with both sides streaming. */
export type Incoming = ServerDuplexStream<Buffer, Buffer>

type Outgoing = ReturnType<ChannelInterface["createCall"]>
type Status = Parameters<Parameters<Outgoing["start"]>[1]["onReceiveStatus"]>[0]

/** Payload bytes, seen from the caller. */
export interface Bytes {
  requests: number
  responses: number
}

export interface Relayed {
  readonly incoming: Incoming
  readonly channel: ChannelInterface
  /** Says a status of this end in other words, to the caller. */
  readonly rephrase: (status: Status) => Status
  readonly bytes: Bytes
}

/** How the call ended; `cancelled` when the caller, a deadline or a shutdown was faster than the answer. */
export interface RelayEnd {
  readonly code: number
  readonly details: string
  readonly cancelled: CancelReason | undefined
}

// Registered symbols: the edges of Curfew say what they are, and take typed reasons, without importing each other.
const transportKey: unique symbol = Symbol.for("curfew.transport") as never
const cancelKey: unique symbol = Symbol.for("curfew.cancel") as never

interface TakesReason {
  readonly [cancelKey]?: (code: number, details: string, reason: CancelReason) => void
}

const throughTunnel = (incoming: Incoming): boolean =>
  (incoming as { readonly [transportKey]?: unknown })[transportKey] === "tunnel"

/** Refuses a call that was not begun. */
export const refuse = (incoming: Incoming, code: number, details: string, metadata?: Metadata): void => {
  incoming.on("error", () => undefined)
  const said = sayable(details, metadata)
  incoming.emit("error", { code, details: said, ...(metadata === undefined ? {} : { metadata }) })
}

/** What a cancel is told as, where it is not a plain one. */
const codes: Partial<Record<CancelReason["_tag"], Code>> = {
  Deadline: Code.DEADLINE_EXCEEDED,
  Shutdown: Code.UNAVAILABLE
}

class Relay {
  readonly #relayed: Relayed
  readonly #clock: Clock.Clock
  readonly #done: (end: RelayEnd) => void
  #call: Outgoing | undefined
  #keepEnd: (() => void) | undefined
  /** The caller has not taken the last message yet. */
  #writing = false
  /** How the other leg ended. */
  #far: Status | undefined
  /** What the caller was told. */
  #answer: Status | undefined
  #cancelled: CancelReason | undefined
  /** Nothing more goes to the caller. */
  #callerOver = false
  #ended = false

  constructor(relayed: Relayed, clock: Clock.Clock, done: (end: RelayEnd) => void) {
    this.#relayed = relayed
    this.#clock = clock
    this.#done = done
  }

  start(): void {
    const { channel, incoming } = this.#relayed
    incoming.on("error", () => undefined)
    incoming.on("cancelled", (told: unknown) => this.#left(told))
    incoming.on("finish", () => this.#over())
    incoming.on("close", () => this.#over())
    if (incoming.cancelled) {
      this.cancel(this.#guess())
      return
    }
    const metadata = carried(incoming.metadata)
    if (metadata === undefined) {
      this.#tell(tooLarge("request"))
      return
    }
    try {
      this.#call = channel.createCall(incoming.getPath(), incoming.getDeadline(), null, null, null)
    } catch (error) {
      const details = error instanceof Error ? error.message : String(error)
      this.#tell({ code: Code.UNAVAILABLE, details, metadata: new Metadata() })
      return
    }
    this.#call.start(metadata, {
      onReceiveMetadata: (headers) => this.#headers(headers),
      onReceiveMessage: (message: Buffer) => this.#response(message),
      onReceiveStatus: (status) => this.#outcome(status)
    })
    this.#call.startRead()
    incoming.on("data", this.#request)
    incoming.on("end", this.#requestsEnd)
  }

  // ── from the caller ────────────────────────────────────────────────────────────────────────────────────────

  readonly #request = (message: Buffer): void => {
    const { bytes, incoming } = this.#relayed
    incoming.pause()
    bytes.requests += message.length
    this.#call?.sendMessageWithContext({ callback: () => incoming.resume() }, message)
  }

  readonly #requestsEnd = (): void => {
    const halfClose = (): void => {
      if (this.#cancelled === undefined && this.#far === undefined) this.#call?.halfClose()
    }
    if (throughTunnel(this.#relayed.incoming)) halfClose()
    else this.#keepEnd = afterTurns(2, halfClose)
  }

  #left(told: unknown): void {
    // grpc-js says `cancelled` after every answer, too.
    if (this.#answer === undefined) this.cancel(isCancelReason(told) ? told : this.#guess())
  }

  /** grpc-js gives no reason: past the deadline it was the deadline, and otherwise the caller. */
  #guess(): CancelReason {
    const { incoming } = this.#relayed
    const at = Number(incoming.getDeadline())
    return this.#clock.currentTimeMillisUnsafe() >= at
      ? CancelReason.Deadline({ at, origin: "remote", scope: incoming.getPath() })
      : CancelReason.ClientGone({ transport: throughTunnel(incoming) ? "tunnel" : "grpc" })
  }

  /** Cancels the other leg. The caller gets nothing more from it. */
  cancel(reason: CancelReason): void {
    if (this.#cancelled !== undefined || this.#answer !== undefined) return
    this.#cancelled = reason
    this.#keepEnd?.()
    const call = this.#call
    if (call !== undefined && this.#far === undefined) {
      const details = describe(reason)
      const code = codes[reason._tag] ?? Code.CANCELLED
      const takes = (call as TakesReason)[cancelKey]
      if (takes === undefined) call.cancelWithStatus(code, details)
      else takes.call(call, code, details, reason)
    }
    this.#settle()
  }

  /** Cancels the other leg, and tells a caller that is still there. */
  shutDown(reason: CancelReason): void {
    if (this.#cancelled !== undefined || this.#answer !== undefined) return
    this.cancel(reason)
    const { incoming } = this.#relayed
    if (incoming.destroyed) return
    incoming.emit("error", { code: Code.UNAVAILABLE, details: "The tunnel is shutting down" })
  }

  // ── from the other leg ─────────────────────────────────────────────────────────────────────────────────────

  #headers(headers: Metadata): void {
    if (this.#cancelled !== undefined || this.#answer !== undefined) return
    const metadata = carried(headers)
    if (metadata === undefined) {
      const status = tooLarge("response")
      this.#tell(status)
      this.#call?.cancelWithStatus(status.code, status.details)
    } else this.#relayed.incoming.sendMetadata(metadata)
  }

  #response(message: Buffer): void {
    const { bytes, incoming } = this.#relayed
    if (this.#cancelled !== undefined || this.#answer !== undefined) return
    bytes.responses += message.length
    this.#writing = true
    incoming.write(message, () => {
      this.#writing = false
      if (this.#far === undefined) this.#call?.startRead()
      else this.#settle()
    })
  }

  #outcome(status: Status): void {
    this.#far = whole(status)
    this.#keepEnd?.()
    this.#settle()
  }

  // ── the end ────────────────────────────────────────────────────────────────────────────────────────────────

  #settle(): void {
    const far = this.#far
    if (far !== undefined && !this.#writing && this.#answer === undefined && this.#cancelled === undefined) {
      const status = this.#relayed.rephrase(far)
      const metadata = carried(status.metadata)
      this.#tell(metadata === undefined ? tooLarge("response") : { ...status, metadata })
    }
    const farOver = far !== undefined || this.#call === undefined
    if (!farOver || !(this.#callerOver || this.#cancelled !== undefined) || this.#ended) return
    this.#ended = true
    const { code, details } = this.#answer ?? far ?? { code: Code.CANCELLED, details: "" }
    this.#done({ code, details, cancelled: this.#cancelled ?? this.#timedOut(code) })
  }

  /** The deadline of the other leg is the same one, and may be heard of first. */
  #timedOut(code: number): CancelReason | undefined {
    if (code !== Code.DEADLINE_EXCEEDED) return undefined
    const reason = this.#guess()
    return reason._tag === "Deadline" ? reason : undefined
  }

  #tell(status: Status): void {
    const { incoming } = this.#relayed
    this.#answer = status
    incoming.off("data", this.#request)
    incoming.off("end", this.#requestsEnd)
    const { code, details, metadata } = status
    if (code === Code.OK) incoming.end(metadata)
    else incoming.emit("error", { code, details: sayable(details, metadata), metadata })
  }

  /** Nothing more goes to the caller: it has everything, or it is gone. */
  #over(): void {
    this.#callerOver = true
    if (this.#answer === undefined) this.cancel(this.#guess())
    this.#settle()
  }
}

/** grpc-js gives a status without code and text for an answer that it cannot decompress. */
const whole = ({ code, details, metadata }: Partial<Status>): Status => ({
  code: code ?? Code.INTERNAL,
  details: details ?? "The answer could not be read: it was compressed in a way that is not known here",
  metadata: metadata ?? new Metadata()
})

const tooLarge = (what: "request" | "response"): Status => ({
  code: Code.RESOURCE_EXHAUSTED,
  details: `The ${what} metadata is too large to be carried on`,
  metadata: new Metadata()
})

/** Carries one call through, and ends when both of its legs have. */
export const relay = (relayed: Relayed): Effect.Effect<RelayEnd> =>
  Effect.flatMap(Clock.Clock, (clock) =>
    Effect.callback<RelayEnd>((resume) => {
      let ended: RelayEnd | undefined
      let tell = (end: RelayEnd): void => resume(Effect.succeed(end))
      const call = new Relay(relayed, clock, (end) => {
        ended = end
        tell(end)
      })
      call.start()
      const end = Effect.callback<void>((done) => {
        if (ended !== undefined) done(Effect.void)
        else tell = () => done(Effect.void)
      })
      return Effect.flatMap(currentReason, (reason) => {
        call.shutDown(Option.getOrElse(reason, () => CancelReason.Unknown()))
        return Effect.asVoid(boundedAt(end, { name: `other end of ${relayed.incoming.getPath()}` }))
      })
    })
  )
