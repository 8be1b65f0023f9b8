/** Where calls are made, a process of its own: over grpc-js itself, and in a tunnel with stubs and with Curfew's client. */
import { Client } from "@curfew/grpc"
import { type ConnectOptions, openForward } from "@curfew/tunnel"
import {
  type ClientDuplexStream,
  type ClientOptions,
  type ClientUnaryCall,
  credentials,
  status
} from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { answer } from "../harness/child.ts"
import { definition, entries, hello, type Kind, limit, metadata, Stub } from "./service.ts"

interface Stubs {
  readonly Echo: (
    metadata: unknown,
    options: { readonly deadline: number }
  ) => ClientDuplexStream<Buffer, Buffer>
  readonly Wait: (
    request: Buffer,
    metadata: unknown,
    options: { readonly deadline: number },
    callback: (error: { readonly code: number } | null) => void
  ) => ClientUnaryCall
}

/** What ends a stream; kept for each, so it is no more than it has to be. */
type Opened = (() => Promise<void>) | Frames

interface Link {
  /** Opens a stream that stays open, waits for its echo, and gives what ends it. */
  readonly stream: () => Promise<Opened>
  /** Starts a call that is never answered, cancels it after so many turns, and waits for its end. */
  readonly cancelled: (turns: number) => Promise<void>
}

/** Who opens the streams, and who take turns at the calls that are cancelled. */
interface Links {
  readonly streams: Pick<Link, "stream">
  readonly calls: ReadonlyArray<Link>
}

const wrong = (what: string): never => {
  throw new Error(`A wrong result: ${what}.`)
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

const overStubs = (stubs: Stubs): Link => ({
  stream: () =>
    new Promise((resolve, reject) => {
      const call = stubs.Echo(metadata(), { deadline: Date.now() + limit })
      const ended = new Promise<number>((settle) => {
        call.once("status", ({ code }: { readonly code: number }) => settle(code))
      })
      call.on("error", reject)
      call.on("data", (message: Buffer) => {
        if (!message.equals(hello)) reject(new Error("A wrong result: another echo."))
        resolve(async () => {
          call.cancel()
          if ((await ended) !== status.CANCELLED) wrong("a stream that was not cancelled")
        })
      })
      call.write(hello)
    }),
  cancelled: (turns) =>
    new Promise((resolve, reject) => {
      const call = stubs.Wait(hello, metadata(), { deadline: Date.now() + limit }, (error) =>
        error?.code === status.CANCELLED
          ? resolve()
          : reject(new Error(`A wrong result: ${error?.code ?? "an answer"}.`))
      )
      const cancel = async () => {
        for (let i = 0; i < turns; i++) await turn()
        call.cancel()
      }
      cancel().catch(reject)
    })
})

type Channel = NonNullable<ClientOptions["channelOverride"]>
type Call = ReturnType<Channel["createCall"]>

/** A stream of a tunnel's channel as it is told of it: no stub, and no stream of Node. */
class Frames {
  readonly #call: Call
  #opened: ((stream: Frames) => void) | undefined
  #ended: ((code: number) => void) | undefined

  constructor(call: Call, opened: (stream: Frames) => void) {
    this.#call = call
    this.#opened = opened
    call.start(metadata(), this)
    call.startRead()
    call.sendMessageWithContext({}, hello)
  }

  onReceiveMetadata(): void {}

  onReceiveMessage(message: Buffer): void {
    if (!message.equals(hello)) wrong("another echo")
    this.#call.startRead()
    this.#opened?.(this)
    this.#opened = undefined
  }

  onReceiveStatus({ code }: { readonly code: number }): void {
    if (this.#ended === undefined) wrong("a stream that ended")
    this.#ended?.(code)
  }

  close(): Promise<void> {
    return new Promise<number>((resolve) => {
      this.#ended = resolve
      this.#call.cancelWithStatus(status.CANCELLED, "closed")
    }).then((code) => (code === status.CANCELLED ? undefined : wrong("a stream that was not cancelled")))
  }
}

const overFrames = (channel: Channel): Pick<Link, "stream"> => ({
  stream: () =>
    new Promise((resolve) => {
      const { path } = definition.Echo
      new Frames(channel.createCall(path, Date.now() + limit, null, null, undefined), resolve)
    })
})

/** One message, and no end. */
const requests = Stream.concat(Stream.make(hello), Stream.never)

const overEffect = (client: Client.Client<typeof definition>): Link => {
  const options = { metadata: entries, timeout: limit } as const
  return {
    // What is held beside the stream is one closure: a promise or a fiber that waits would be measured with it.
    stream: () =>
      new Promise((resolve, reject) => {
        const fiber: Fiber.Fiber<void, unknown> = Effect.runFork(
          Stream.runForEach(client.Echo(requests, options), (message) =>
            Effect.sync(() =>
              message.equals(hello)
                ? resolve(() => Effect.runPromise(Fiber.interrupt(fiber)))
                : wrong("another echo")
            )
          )
        )
        fiber.addObserver((exit) =>
          reject(
            new Error(
              `A wrong result: a stream that ended: ${exit._tag === "Failure" ? Cause.pretty(exit.cause) : exit._tag}.`
            )
          )
        )
      }),
    cancelled: async (turns) => {
      const fiber = Effect.runFork(client.Wait(hello, options))
      for (let i = 0; i < turns; i++) await turn()
      await Effect.runPromise(Fiber.interrupt(fiber))
      const exit = await Effect.runPromise(Fiber.await(fiber))
      if (exit._tag === "Success") wrong("an answer")
    }
  }
}

const many = { maxStreams: 1 << 20, maxHandlers: 1 << 20 } satisfies ConnectOptions
const lasting = Scope.makeUnsafe()

const connect = (kind: Kind, port: number): Promise<Links> => {
  const address = `127.0.0.1:${port}`
  const insecure = credentials.createInsecure()
  if (kind === "direct") {
    const link = overStubs(new Stub(address, insecure) as unknown as Stubs)
    return Promise.resolve({ streams: link, calls: [link] })
  }
  const opening = Effect.gen(function* () {
    const tunnel = yield* openForward({ address, credentials: insecure }, many)
    const stubs = overStubs(tunnel.client(Stub) as unknown as Stubs)
    const effects = overEffect(yield* Client.make(definition, { channel: tunnel.grpc }))
    const streams = { stubs, frames: overFrames(tunnel.grpc), effect: effects }[kind]
    return { streams, calls: [stubs, effects] }
  })
  return Effect.runPromise(Scope.provide(opening, lasting))
}

let links: Links | undefined
const linked = (): Links => links ?? wrong("nothing is connected")

const open: Array<Opened> = []
/** So many calls wait for their echo, or for their end, at the same time. */
const atOnce = 64

/** Does something so many times, some of it side by side. */
const abreast = async (times: number, work: (index: number) => Promise<void>): Promise<void> => {
  let next = 0
  const worker = async () => {
    while (next < times) await work(next++)
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, times) }, worker))
}

answer({
  connect: async ({ kind, port }: { readonly kind: Kind; readonly port: number }) => {
    links = await connect(kind, port)
    return true
  },
  open: (count: number) =>
    abreast(count, async () => {
      open.push(await linked().streams.stream())
    }),
  close: async () => {
    const all = open.splice(0)
    await abreast(all.length, (index) => {
      const opened = all[index] as Opened
      return opened instanceof Frames ? opened.close() : opened()
    })
  },
  /** Some before they are sent, some while they are under way, some once their handlers run. */
  cancelled: (count: number) =>
    abreast(count, (index) => {
      const { calls } = linked()
      return (calls[index % calls.length] as Link).cancelled((index >> 1) % 4)
    })
})
