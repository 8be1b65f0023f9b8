/** Where calls are made, a process of its own: over grpc-js itself, and in a tunnel with stubs and with Curfew's client. */
import { Client } from "@curfew/grpc"
import { type ConnectOptions, openForward } from "@curfew/tunnel"
import { type ClientUnaryCall, credentials, status } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { answer } from "../harness/child.ts"
import { definition, entries, hello, type Kind, limit, metadata, Stub } from "./service.ts"
import { type Echo, EffectStream, FrameStream, type OpenStream, StubStream } from "./streams.ts"

interface Stubs {
  readonly Echo: Echo
  readonly Wait: (
    request: Buffer,
    metadata: unknown,
    options: { readonly deadline: number },
    callback: (error: { readonly code: number } | null) => void
  ) => ClientUnaryCall
}

interface Calls {
  /** Starts a call that is never answered, cancels it after so many turns, and waits for its end. */
  readonly cancelled: (turns: number) => Promise<void>
}

/** What opens a stream, and who take turns at the calls that are cancelled. */
interface Links {
  readonly stream: (opened: (stream: OpenStream) => void) => OpenStream
  readonly calls: ReadonlyArray<Calls>
}

const wrong = (what: string): never => {
  throw new Error(`A wrong result: ${what}.`)
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

const overStubs = (stubs: Stubs): Calls => ({
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

const overEffect = (client: Client.Client<typeof definition>): Calls => {
  const options = { metadata: entries, timeout: limit } as const
  return {
    cancelled: async (turns) => {
      const fiber = Effect.runFork(client.Wait(hello, options))
      for (let i = 0; i < turns; i++) await turn()
      await Effect.runPromise(Fiber.interrupt(fiber))
      const exit = await Effect.runPromise(Fiber.await(fiber))
      if (exit._tag === "Success") wrong("an answer")
    }
  }
}

type Opened = (stream: OpenStream) => void

const ofStub =
  (stubs: Stubs): Links["stream"] =>
  (opened) =>
    new StubStream((...given) => stubs.Echo(...given), opened)

const many = { maxStreams: 1 << 20, maxHandlers: 1 << 20 } satisfies ConnectOptions
const lasting = Scope.makeUnsafe()

const connect = (kind: Kind, port: number): Promise<Links> => {
  const address = `127.0.0.1:${port}`
  const insecure = credentials.createInsecure()
  if (kind === "direct") {
    const stubs = new Stub(address, insecure) as unknown as Stubs
    return Promise.resolve({ stream: ofStub(stubs), calls: [overStubs(stubs)] })
  }
  const opening = Effect.gen(function* () {
    const tunnel = yield* openForward({ address, credentials: insecure }, many)
    const stubs = tunnel.client(Stub) as unknown as Stubs
    const client = yield* Client.make(definition, { channel: tunnel.grpc })
    const stream: Links["stream"] = {
      stubs: ofStub(stubs),
      frames: (opened: Opened) => new FrameStream(tunnel.grpc, opened),
      effect: (opened: Opened) => new EffectStream(client, opened)
    }[kind]
    return { stream, calls: [overStubs(stubs), overEffect(client)] }
  })
  return Effect.runPromise(Scope.provide(opening, lasting))
}

let links: Links | undefined
const linked = (): Links => links ?? wrong("nothing is connected")

const open: Array<OpenStream> = []
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
      open.push(await new Promise<OpenStream>((resolve) => linked().stream(resolve)))
    }),
  close: async () => {
    const all = open.splice(0)
    await abreast(all.length, async (index) => {
      await all[index]?.close()
    })
  },
  /** Some before they are sent, some while they are under way, some once their handlers run. */
  cancelled: (count: number) =>
    abreast(count, (index) => {
      const { calls } = linked()
      return (calls[index % calls.length] as Calls).cancelled((index >> 1) % 4)
    })
})
