/**
 * Streams that stay open, of each kind: what the measuring keeps for one is an object, and what it is told through.
 *
 * Invariants:
 * 1. A stream is open when its first message has come back as it was.
 * 2. One that ends before it is closed, or not by its cancel, ends the process: the run fails.
 * 3. Nothing waits for a stream while it is open: a promise or a fiber would be measured with it.
 */
import type { Client } from "@curfew/grpc"
import { type ClientDuplexStream, type ClientOptions, type Metadata, status } from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { definition, entries, hello, limit, metadata } from "./service.ts"

export abstract class OpenStream {
  #opened: ((stream: OpenStream) => void) | undefined
  #ended: ((cancelled: boolean) => void) | undefined

  constructor(opened: (stream: OpenStream) => void) {
    this.#opened = opened
  }

  protected abstract cancel(): void

  protected echoed(message: Buffer): void {
    if (!message.equals(hello)) wrong("another echo")
    this.#opened?.(this)
    this.#opened = undefined
  }

  protected over(cancelled: boolean): void {
    if (this.#ended === undefined || !cancelled) wrong("a stream that ended, or was not cancelled")
    else this.#ended(cancelled)
  }

  close(): Promise<unknown> {
    return new Promise((resolve) => {
      this.#ended = resolve
      this.cancel()
    })
  }
}

/** Outside of whatever would catch it. */
const wrong = (what: string): void =>
  process.nextTick(() => {
    throw new Error(`A wrong result: ${what}.`)
  })

const ignore = (): void => undefined

export type Echo = (
  metadata: Metadata,
  options: { readonly deadline: number }
) => ClientDuplexStream<Buffer, Buffer>

/** Of a stub. */
export class StubStream extends OpenStream {
  readonly #call: ClientDuplexStream<Buffer, Buffer>

  constructor(echo: Echo, opened: (stream: OpenStream) => void) {
    super(opened)
    const call = echo(metadata(), { deadline: Date.now() + limit })
    this.#call = call
    call.on("error", ignore)
    call.on("status", ({ code }: { readonly code: number }) => this.over(code === status.CANCELLED))
    call.on("data", (message: Buffer) => this.echoed(message))
    call.write(hello)
  }

  protected cancel(): void {
    this.#call.cancel()
  }
}

export type Channel = NonNullable<ClientOptions["channelOverride"]>

/** Of a tunnel's channel as it is told of it: no stub, and no stream of Node. */
export class FrameStream extends OpenStream {
  readonly #call: ReturnType<Channel["createCall"]>

  constructor(channel: Channel, opened: (stream: OpenStream) => void) {
    super(opened)
    const { path } = definition.Echo
    this.#call = channel.createCall(path, Date.now() + limit, null, null, undefined)
    this.#call.start(metadata(), this)
    this.#call.startRead()
    this.#call.sendMessageWithContext({}, hello)
  }

  onReceiveMetadata(): void {}

  onReceiveMessage(message: Buffer): void {
    this.#call.startRead()
    this.echoed(message)
  }

  onReceiveStatus({ code }: { readonly code: number }): void {
    this.over(code === status.CANCELLED)
  }

  protected cancel(): void {
    this.#call.cancelWithStatus(status.CANCELLED, "closed")
  }
}

/** One message, and no end. */
const requests = Stream.concat(Stream.make(hello), Stream.never)

const options = { metadata: entries, timeout: limit } as const

/** Of Curfew's client, read by a fiber. */
export class EffectStream extends OpenStream {
  readonly #fiber: Fiber.Fiber<void, unknown>

  constructor(client: Client.Client<typeof definition>, opened: (stream: OpenStream) => void) {
    super(opened)
    const reading = Stream.runForEach(client.Echo(requests, options), (message) =>
      Effect.sync(() => this.echoed(message))
    )
    this.#fiber = Effect.runFork(reading)
    this.#fiber.addObserver((exit: Exit.Exit<void, unknown>) =>
      this.over(exit._tag === "Failure" && Cause.hasInterruptsOnly(exit.cause))
    )
  }

  protected cancel(): void {
    this.#fiber.interruptUnsafe()
  }
}
