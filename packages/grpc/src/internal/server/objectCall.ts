/**
 * A call of a grpc-js style call object, with the streams of Node behind it.
 *
 * The same object comes from `grpc.Server` and from a tunnel. What a tunnel knows better it says itself: `cancelled`
 * with the `CancelReason` as argument, and its name under a registered symbol.
 *
 * Invariants
 * 1. Every call object has an `error` listener: without one an error of the stream ends the process.
 * 2. Whoever stops waiting for a drain leaves no listener behind. What tells of more requests is listened to from the first
 *    wait until the call has ended: on and off for each message would cost more than the message.
 * 3. A wait ends with the call, if nothing else ends it.
 */
import type { EventEmitter } from "node:events"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { CallTunnel } from "../../ServerCall.ts"
import type { Next } from "./callState.ts"
import { HandlerCall } from "./handlerCall.ts"
import { type MethodSpec, streams } from "./method.ts"
import type { Encoded } from "./requests.ts"
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

export class ObjectCall extends HandlerCall {
  readonly raw: RawCall
  readonly #respond: Respond | undefined
  #requestsEnded = false
  #requestsClosed = false
  #writer: (() => void) | undefined
  /** What listens to `readable`. */
  #onReadable: (() => void) | undefined

  constructor(spec: MethodSpec, raw: RawCall, respond: Respond | undefined) {
    super(spec, transportOf(raw), raw.getPeer(), Number(raw.getDeadline()))
    this.raw = raw
    this.#respond = streams(spec.kind) ? undefined : respond
    // A tunnel's call object has a listener of its own.
    if (this.transport !== "tunnel") raw.on("error", ignore)
    raw.on("cancelled", (reason: unknown) => this.onCancelled(reason))
    if (raw.cancelled) this.onCancelled(undefined)
    if (!spec.definition.requestStream) return
    this.#requestsEnded = raw.readableEnded === true
    raw.once("end", () => {
      this.#requestsEnded = true
      this.wakeReaders()
    })
    raw.once("close", () => {
      this.#requestsClosed = true
      this.#forget()
      this.wakeReaders()
    })
  }

  override onCancelled(told: unknown): void {
    super.onCancelled(told)
    this.#forget()
    this.#writer?.()
    this.wakeReaders()
  }

  #forget(): void {
    if (this.#onReadable !== undefined) this.raw.off("readable", this.#onReadable)
    this.#onReadable = undefined
  }

  get metadata(): Metadata {
    return this.raw.metadata
  }

  header(key: string): string | Buffer | undefined {
    return this.raw.metadata.get(key)[0]
  }

  protected get through(): CallTunnel | undefined {
    return (this.raw as { readonly [tunnelKey]?: CallTunnel })[tunnelKey]
  }

  get request(): unknown {
    return this.raw.request
  }

  protected putHeaders(metadata: Metadata): void {
    this.raw.sendMetadata(metadata)
  }

  protected put(bytes: Buffer): boolean {
    return this.raw.write?.(bytes) !== false
  }

  protected get drained(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      // It may have drained on the way here, or ended.
      if (this.raw.writableNeedDrain === false || this.over) {
        resume(Effect.void)
        return undefined
      }
      const forget = (): void => {
        this.raw.off("drain", wake)
        if (this.#writer === wake) this.#writer = undefined
      }
      const wake = (): void => {
        forget()
        resume(Effect.void)
      }
      this.#writer = wake
      this.raw.on("drain", wake)
      return Effect.sync(forget)
    })
  }

  protected hand({ code, details, trailers }: Outgoing, answer: Buffer | undefined): void {
    const { raw } = this
    this.#forget()
    if (code === Code.OK) {
      if (this.#respond === undefined) raw.end?.(trailers)
      else this.#respond(null, answer ?? null, trailers)
      return
    }
    const error = { code, details, ...(trailers === undefined ? {} : { metadata: trailers }) }
    if (this.#respond === undefined) raw.emit("error", error)
    else this.#respond(error)
  }

  next(): Next {
    const message = this.raw.read?.() ?? null
    if (message !== null) return message as Encoded
    return this.#requestsEnded ? "ended" : this.#requestsClosed ? "closed" : "open"
  }

  get requestsEnded(): boolean {
    return this.#requestsEnded
  }

  protected get hasMore(): boolean {
    return this.#requestsEnded || this.#requestsClosed || this.over
  }

  protected override listenForMore(): void {
    if (this.#onReadable !== undefined) return
    this.#onReadable = () => this.wakeReaders()
    this.raw.on("readable", this.#onReadable)
  }
}

const ignore = (): void => undefined
