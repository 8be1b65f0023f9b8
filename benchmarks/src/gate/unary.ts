/**
 * Unary calls with both ends in this process, so that one clock of the processor sees all of a call: over grpc-js itself,
 * over `@curfew/grpc`, and through a tunnel. All bring the same metadata and a deadline.
 */
import { Client, GrpcServer, Server } from "@curfew/grpc"
import { Owner } from "@curfew/scope"
import { openForward, Services, TunnelService } from "@curfew/tunnel"
import {
  credentials,
  Server as GrpcJs,
  Metadata,
  type MethodDefinition,
  makeClientConstructor,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData
} from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type { Batch } from "../primitives/batches.ts"

const bytes = (value: Buffer): Buffer => value

const definition = {
  Echo: {
    path: "/benchmarks.Gate/Echo",
    requestStream: false,
    responseStream: false,
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes
  } as MethodDefinition<Buffer, Buffer> & { readonly requestStream: false; readonly responseStream: false }
} as const

const message = Buffer.alloc(100, 7)
const entries = { "x-request-id": "01890a5d-ac96-774b-bcce-b302099a8057", "x-tenant": "benchmarks" } as const
const limit = 60_000
const callers = 16

const handlers = {
  Echo: (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => answer(null, call.request)
}

interface Stub {
  readonly Echo: (
    request: Buffer,
    metadata: Metadata,
    options: { readonly deadline: number },
    callback: (error: Error | null, answer?: Buffer) => void
  ) => void
}

const Constructor = makeClientConstructor(definition, "benchmarks.Gate")

/** Calls by several callers at once, each answer compared. */
const calling =
  (call: () => Promise<Buffer>): Batch =>
  async (times) => {
    let left = times
    const caller = async (): Promise<void> => {
      while (left-- > 0)
        if (!message.equals(await call())) throw new Error("A wrong result: another message came back.")
    }
    await Promise.all(Array.from({ length: callers }, caller))
  }

const byStub = (stub: Stub): Batch =>
  calling(
    () =>
      new Promise((resolve, reject) => {
        const metadata = new Metadata()
        for (const [key, value] of Object.entries(entries)) metadata.set(key, value)
        stub.Echo(message, metadata, { deadline: Date.now() + limit }, (error, answer) =>
          error === null ? resolve(answer as Buffer) : reject(error)
        )
      })
  )

const byEffect = (client: Client.Client<typeof definition>): Batch =>
  calling(() => Effect.runPromise(client.Echo(message, { metadata: entries, timeout: limit })))

/** Servers live until the process ends. */
const lasting = Scope.makeUnsafe()

const start = <A, E>(program: Effect.Effect<A, E, Owner | Scope.Scope>): Promise<A> =>
  Effect.runPromise(
    Effect.flatMap(Layer.buildWithScope(Owner.layer(), lasting), (context) =>
      Scope.provide(Effect.provide(program, context), lasting)
    )
  )

const insecure = credentials.createInsecure()

export const direct = async (): Promise<Batch> => {
  const server = new GrpcJs()
  server.addService(definition, handlers)
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error)
    )
  )
  return byStub(new Constructor(`127.0.0.1:${port}`, insecure) as unknown as Stub)
}

export const overGrpc = (): Promise<Batch> =>
  start(
    Effect.gen(function* () {
      const own = yield* Server.make(definition, { Echo: (request) => Effect.succeed(request) })
      const server = yield* GrpcServer.make({ services: [own], address: "127.0.0.1:0" })
      const to = { address: `127.0.0.1:${server.port}`, credentials: insecure }
      return byEffect(yield* Client.make(definition, to))
    })
  )

export const tunnelled = (): Promise<Batch> =>
  start(
    Effect.gen(function* () {
      const server = yield* GrpcServer.make({ services: [], address: "127.0.0.1:0" })
      const services = Services.empty.pipe(Services.add(definition, handlers))
      yield* server.add(yield* TunnelService.make({ services }))
      const tunnel = yield* openForward({ address: `127.0.0.1:${server.port}`, credentials: insecure })
      return byStub(tunnel.client(Constructor) as unknown as Stub)
    })
  )
