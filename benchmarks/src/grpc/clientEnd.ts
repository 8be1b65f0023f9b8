/** A process that calls the service with one of the stacks. */
import { createClient as createConnectClient } from "@connectrpc/connect"
import { createGrpcTransport } from "@connectrpc/connect-node"
import { Client } from "@curfew/grpc"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createChannel, createClientFactory, Metadata as NiceMetadata } from "nice-grpc"
import { deadlineMiddleware } from "nice-grpc-client-middleware-deadline"
import { answer } from "../harness/child.ts"
import { echo, message } from "./connectService.ts"
import {
  checkEncoded,
  checkValue,
  definition,
  encoded,
  headers,
  type Kind,
  type Stack,
  streamed,
  timeout,
  value,
  type Work
} from "./service.ts"

/** One call of each kind, checked to its last message. */
type Calls = Readonly<Record<Kind, () => Promise<void>>>

interface Caller {
  /** Makes that many calls, one after the other. */
  readonly run: (kind: Kind, calls: number) => Promise<void>
}

const oneAfterTheOther = (calls: Calls): Caller => ({
  run: async (kind, count) => {
    const call = calls[kind]
    for (let i = 0; i < count; i++) await call()
  }
})

const counted = (got: number): void => {
  if (got !== streamed) throw new Error(`${got} messages came in place of ${streamed}.`)
}

const curfew = async (port: number): Promise<Caller> => {
  const metadata = new grpc.Metadata()
  for (const [key, text] of Object.entries(headers)) metadata.set(key, text)
  const make = Client.make(
    definition,
    { address: `127.0.0.1:${port}`, credentials: grpc.credentials.createInsecure() },
    { timeout, metadata }
  )
  const client = await Effect.runPromise(Effect.provideService(make, Scope.Scope, Scope.makeUnsafe()))
  const count = (stream: Stream.Stream<Buffer, unknown>) =>
    Effect.map(
      Stream.runFold(
        stream,
        () => 0,
        (got, bytes) => {
          checkEncoded(bytes)
          return got + 1
        }
      ),
      counted
    )
  const calls: Readonly<Record<Kind, Effect.Effect<void, unknown>>> = {
    unary: Effect.map(
      Effect.suspend(() => client.unary(encoded)),
      checkEncoded
    ),
    many: Effect.suspend(() => count(client.many(encoded))),
    talk: Effect.suspend(() => count(client.talk(Stream.map(Stream.range(1, streamed), () => encoded))))
  }
  return {
    // A plain loop, as the others have: `Effect.repeat` has a schedule, which sleeps a turn of the event loop between two calls.
    run: (kind, times) => {
      let left = times
      return Effect.runPromise(
        Effect.whileLoop({ while: () => left-- > 0, body: () => calls[kind], step: () => undefined })
      )
    }
  }
}

const grpcJs = (port: number): Caller => {
  const Echo = grpc.makeGenericClientConstructor(definition, "Echo")
  const client = new Echo(`127.0.0.1:${port}`, grpc.credentials.createInsecure()) as never as {
    unary(
      request: Buffer,
      metadata: grpc.Metadata,
      options: grpc.CallOptions,
      callback: (error: grpc.ServiceError | null, answer?: Buffer) => void
    ): void
    many(
      request: Buffer,
      metadata: grpc.Metadata,
      options: grpc.CallOptions
    ): grpc.ClientReadableStream<Buffer>
    talk(metadata: grpc.Metadata, options: grpc.CallOptions): grpc.ClientDuplexStream<Buffer, Buffer>
  }
  const metadata = new grpc.Metadata()
  for (const [key, text] of Object.entries(headers)) metadata.set(key, text)
  const options = (): grpc.CallOptions => ({ deadline: Date.now() + timeout })
  const read = (stream: grpc.ClientReadableStream<Buffer>): Promise<void> =>
    new Promise((resolve, reject) => {
      let got = 0
      stream.on("data", (bytes: Buffer) => {
        checkEncoded(bytes)
        got++
      })
      stream.on("error", reject)
      stream.on("end", () => resolve(counted(got)))
    })
  return oneAfterTheOther({
    unary: () =>
      new Promise((resolve, reject) =>
        client.unary(encoded, metadata, options(), (error, bytes) =>
          error === null ? resolve(checkEncoded(bytes as Buffer)) : reject(error)
        )
      ),
    many: () => read(client.many(encoded, metadata, options())),
    talk: () => {
      const call = client.talk(metadata, options())
      let left = streamed
      const write = (): void => {
        while (left > 0) {
          left--
          if (!call.write(encoded)) {
            call.once("drain", write)
            return
          }
        }
        call.end()
      }
      write()
      return read(call)
    }
  })
}

const requests = async function* <A>(request: A): AsyncGenerator<A> {
  for (let i = 0; i < streamed; i++) yield request
}

const nice = (port: number): Caller => {
  const metadata = NiceMetadata(headers)
  const client = createClientFactory()
    .use(deadlineMiddleware)
    .create(definition as never, createChannel(`127.0.0.1:${port}`)) as never as {
    unary(request: Buffer, options: object): Promise<Buffer>
    many(request: Buffer, options: object): AsyncIterable<Buffer>
    talk(requests: AsyncIterable<Buffer>, options: object): AsyncIterable<Buffer>
  }
  const options = () => ({ metadata, deadline: timeout })
  const read = async (stream: AsyncIterable<Buffer>): Promise<void> => {
    let got = 0
    for await (const bytes of stream) {
      checkEncoded(bytes)
      got++
    }
    counted(got)
  }
  return oneAfterTheOther({
    unary: async () => checkEncoded(await client.unary(encoded, options())),
    many: () => read(client.many(encoded, options())),
    talk: () => read(client.talk(requests(encoded), options()))
  })
}

const connect = (port: number): Caller => {
  const transport = createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}` })
  const client = createConnectClient(echo as never, transport) as never as {
    unary(request: object, options: object): Promise<{ value: Uint8Array }>
    many(request: object, options: object): AsyncIterable<{ value: Uint8Array }>
    talk(requests: AsyncIterable<object>, options: object): AsyncIterable<{ value: Uint8Array }>
  }
  const options = { headers, timeoutMs: timeout }
  const request = message(value)
  const read = async (stream: AsyncIterable<{ value: Uint8Array }>): Promise<void> => {
    let got = 0
    for await (const { value: bytes } of stream) {
      checkValue(bytes)
      got++
    }
    counted(got)
  }
  return oneAfterTheOther({
    unary: async () => checkValue((await client.unary(request, options)).value),
    many: () => read(client.many(request, options)),
    talk: () => read(client.talk(requests(request), options))
  })
}

const call: Readonly<Record<Stack, (port: number) => Caller | Promise<Caller>>> = {
  curfew,
  "grpc-js": grpcJs,
  "nice-grpc": nice,
  "connect-node": connect
}

let caller: Caller | undefined

answer({
  connect: async ({ port, stack }: { readonly port: number; readonly stack: Stack }) => {
    caller = await call[stack](port)
  },
  /** Milliseconds that the calls took. */
  run: async ({ callers, calls, kind }: Work) => {
    if (caller === undefined) throw new Error("There is no connection yet.")
    const { run } = caller
    const start = performance.now()
    await Promise.all(Array.from({ length: callers }, () => run(kind, Math.ceil(calls / callers))))
    return performance.now() - start
  }
})
