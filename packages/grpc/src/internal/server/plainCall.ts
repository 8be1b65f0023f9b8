/**
 * A call of a tunnel without a call object: the tunnel tells it what comes, and it tells the tunnel what goes.
 *
 * A tunnel of `@curfew/tunnel` looks for an entrance under a registered symbol of the handler that was registered with
 * it. Where somebody wraps that handler, the call comes as a call object, and goes the way of `objectCall.ts`.
 *
 * Invariants
 * 1. Messages leave in order, one handed over at a time; up to `most` wait here, and the status waits behind them.
 * 2. Up to `most` requests are read ahead, from the first pull on: what a reader does not take stays in the tunnel's
 *    window.
 * 3. One writer waits at most. A reader that was interrupted is woken in vain.
 * 4. After a cancel nothing is handed over any more, and nobody waits.
 */
import type { CancelReason } from "@curfew/reason"
import { status as Code, Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { CallTunnel } from "../../ServerCall.ts"
import type { Next } from "./callState.ts"
import { HandlerCall } from "./handlerCall.ts"
import type { MethodSpec } from "./method.ts"
import { Encoded } from "./requests.ts"
import type { Outgoing } from "./status.ts"

/** Where a tunnel looks for the entrance of a handler. */
export const plainKey: unique symbol = Symbol.for("curfew.plain") as never

/** What a tunnel offers. */
export interface PlainHost {
  readonly metadata: Metadata
  readonly header: (key: string) => string | Buffer | undefined
  readonly peer: string
  readonly origin: CallTunnel
  readonly deadline: number
  readonly clock: object
  readonly object: object
  readonly read: () => void
  readonly sendHeaders: (metadata: Metadata) => void
  readonly sendMessage: (message: Buffer, callback: () => void) => void
  readonly sendStatus: (status: {
    readonly code: number
    readonly details: string
    readonly metadata: Metadata
  }) => void
}

/** As many as a Node stream of objects keeps. */
const most = 16

const none: ReadonlyArray<never> = []

/** For looking only: the tunnel writes what it holds, and keeps nothing of it. */
const noTrailers = new Metadata()

const ignore = (): void => undefined

export class PlainCall extends HandlerCall {
  readonly #host: PlainHost
  /** The one request, until it is taken. */
  #request: Buffer | undefined
  /** Requests that came and were not taken. */
  #requests: ReadonlyArray<Buffer> = none
  #reading = false
  #ended = false
  /** A message is on its way, and these stand behind it. */
  #writing = false
  #waiting: ReadonlyArray<Buffer> = none
  #status: Outgoing | undefined
  #writer: (() => void) | undefined

  constructor(spec: MethodSpec, host: PlainHost, request: Buffer | undefined) {
    super(spec, "tunnel", host.peer, host.deadline)
    this.#host = host
    this.#request = request
  }

  /** By another clock the deadline is another moment. */
  override get deadlineKept(): boolean {
    return this.#host.clock === this.clock
  }

  get raw(): object {
    return this.#host.object
  }

  get metadata(): Metadata {
    return this.#host.metadata
  }

  header(key: string): string | Buffer | undefined {
    return this.#host.header(key)
  }

  protected get through(): CallTunnel | undefined {
    return this.#host.origin
  }

  get request(): unknown {
    const bytes = this.#request as Buffer
    this.#request = undefined
    return new Encoded(bytes)
  }

  // ── what goes ──────────────────────────────────────────────────────────────────────────────────────────────

  protected putHeaders(metadata: Metadata): void {
    this.#host.sendHeaders(metadata)
  }

  protected put(bytes: Buffer): boolean {
    if (!this.#writing) this.#send(bytes)
    else if (this.#waiting === none) this.#waiting = [bytes]
    else (this.#waiting as Array<Buffer>).push(bytes)
    return this.#waiting.length + 1 < most
  }

  #send(bytes: Buffer): void {
    this.#writing = true
    this.#host.sendMessage(bytes, this.#sent)
  }

  // One function for all messages of the call, made with the first.
  get #sent(): () => void {
    this.#afterMessage ??= () => this.#goOn()
    return this.#afterMessage
  }

  #afterMessage: (() => void) | undefined

  #goOn(): void {
    this.#writing = false
    if (this.over) return
    const next = this.#waiting[0]
    if (next !== undefined) {
      if (this.#waiting.length === 1) this.#waiting = none
      else (this.#waiting as Array<Buffer>).shift()
      this.#send(next)
      return
    }
    const status = this.#status
    if (status !== undefined) this.#finish(status)
    this.#wakeWriter()
  }

  #wakeWriter(): void {
    const writer = this.#writer
    this.#writer = undefined
    writer?.()
  }

  protected get drained(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (!this.#writing || this.over) {
        resume(Effect.void)
        return undefined
      }
      const writer = () => resume(Effect.void)
      this.#writer = writer
      return Effect.sync(() => {
        if (this.#writer === writer) this.#writer = undefined
      })
    })
  }

  protected hand(status: Outgoing, answer: Buffer | undefined): void {
    // What was handed over leaves before the status in any case.
    if (answer !== undefined && status.code === Code.OK) this.#host.sendMessage(answer, ignore)
    if (this.#waiting.length > 0) this.#status = status
    else this.#finish(status)
  }

  #finish({ code, details, trailers }: Outgoing): void {
    this.#status = undefined
    this.#host.sendStatus({ code, details, metadata: trailers ?? noTrailers })
  }

  // ── what comes ─────────────────────────────────────────────────────────────────────────────────────────────

  onMessage(message: Buffer): void {
    this.#reading = false
    if (this.#requests === none) this.#requests = [message]
    else (this.#requests as Array<Buffer>).push(message)
    this.#readOn()
    this.wakeReaders()
  }

  onEnd(): void {
    this.#ended = true
    this.wakeReaders()
  }

  override onCancelled(reason: CancelReason): void {
    this.#waiting = none
    this.#status = undefined
    super.onCancelled(reason)
    this.#wakeWriter()
    this.wakeReaders()
  }

  #readOn(): void {
    if (this.#reading || this.#ended || this.over || this.#requests.length >= most) return
    this.#reading = true
    this.#host.read()
  }

  next(): Next {
    this.#readOn()
    const message = this.#requests[0]
    if (message === undefined) return this.#ended ? "ended" : "open"
    if (this.#requests.length === 1) this.#requests = none
    else (this.#requests as Array<Buffer>).shift()
    this.#readOn()
    return new Encoded(message)
  }

  get requestsEnded(): boolean {
    return this.#ended && this.#requests.length === 0
  }

  protected get hasMore(): boolean {
    return this.#requests.length > 0 || this.#ended || this.over
  }
}
