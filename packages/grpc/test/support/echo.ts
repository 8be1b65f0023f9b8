/** A service with one method of each kind whose messages are texts, and real ways to reach it. */
import { openForward, Services, TunnelService } from "@curfew/tunnel"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Client } from "../../src/index.ts"

const toBytes = (text: string): Buffer => Buffer.from(text)
const toText = (bytes: Buffer): string => bytes.toString()

const codec = {
  requestSerialize: toBytes,
  requestDeserialize: toText,
  responseSerialize: toBytes,
  responseDeserialize: toText
}

export const definition = {
  Unary: { path: "/curfew.test.Echo/Unary", requestStream: false, responseStream: false, ...codec },
  ServerStream: {
    path: "/curfew.test.Echo/ServerStream",
    requestStream: false,
    responseStream: true,
    ...codec
  },
  ClientStream: {
    path: "/curfew.test.Echo/ClientStream",
    requestStream: true,
    responseStream: false,
    ...codec
  },
  Bidi: { path: "/curfew.test.Echo/Bidi", requestStream: true, responseStream: true, ...codec }
} as const

export type Echo = Client.Client<typeof definition>

export interface Handlers {
  readonly Unary: grpc.handleUnaryCall<string, string>
  readonly ServerStream: grpc.handleServerStreamingCall<string, string>
  readonly ClientStream: grpc.handleClientStreamingCall<string, string>
  readonly Bidi: grpc.handleBidiStreamingCall<string, string>
}

const echoing: Handlers = {
  Unary: (call, reply) => reply(null, call.request),
  ServerStream: (call) => {
    for (let index = 0; index < Number(call.request); index++) call.write(`${index}`)
    call.end()
  },
  ClientStream: (call, reply) => {
    const parts: Array<string> = []
    call.on("data", (part: string) => parts.push(part))
    call.on("end", () => reply(null, parts.join(",")))
  },
  Bidi: (call) => {
    call.on("data", (part: string) => call.write(part))
    call.on("end", () => call.end())
  }
}

const implementation = (overrides: Partial<Handlers> = {}): grpc.UntypedServiceImplementation =>
  ({ ...echoing, ...overrides }) as unknown as grpc.UntypedServiceImplementation

/** A started server, and its end without mercy. */
const listening = (server: grpc.Server): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<string>((resume) =>
      server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) =>
        resume(error ? Effect.die(error) : Effect.succeed(`127.0.0.1:${port}`))
      )
    ),
    () => Effect.sync(() => server.forceShutdown())
  )

/** A grpc-js server with these handlers; its address. */
export const serve = (
  overrides: Partial<Handlers> = {},
  options?: grpc.ServerOptions
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.suspend(() => {
    const server = new grpc.Server(options)
    server.addService(definition, implementation(overrides))
    return listening(server)
  })

export const insecure = grpc.credentials.createInsecure()

/** A stock channel, as a program without this library has it. */
export const stockClient = (address: string, options?: grpc.ClientOptions) =>
  Effect.acquireRelease(
    Effect.sync(() => new grpc.Client(address, insecure, options)),
    (client) => Effect.sync(() => client.close())
  )

/** The channel of a tunnel to a server that offers these handlers. */
export const tunnelTo = (
  overrides: Partial<Handlers> = {}
): Effect.Effect<grpc.ChannelInterface, never, Scope.Scope> =>
  Effect.gen(function* () {
    const server = new grpc.Server()
    const service = yield* TunnelService.make({
      services: Services.empty.pipe(Services.add(definition, implementation(overrides)))
    })
    service.addTo(server)
    const address = yield* listening(server)
    const tunnel = yield* Effect.orDie(openForward({ address, credentials: insecure }))
    return tunnel.grpc
  })

/** Something that a callback tells and a fiber waits for. */
export class Signal<A = void> {
  #values: Array<A> = []
  #waiting: Array<(value: A) => void> = []

  readonly tell = (value: A): void => {
    const next = this.#waiting.shift()
    if (next === undefined) this.#values.push(value)
    else next(value)
  }

  readonly heard: Effect.Effect<A> = Effect.callback<A>((resume) => {
    if (this.#values.length > 0) return resume(Effect.succeed(this.#values.shift() as A))
    const wake = (value: A) => resume(Effect.succeed(value))
    this.#waiting.push(wake)
    return Effect.sync(() => {
      this.#waiting = this.#waiting.filter((waiting) => waiting !== wake)
    })
  })

  /** How many were told and not heard. */
  get pending(): number {
    return this.#values.length
  }
}

/** A turn of the event loop, with its sockets. */
const turn: Effect.Effect<void> = Effect.callback((resume) => {
  setImmediate(() => resume(Effect.void))
})

export const turns = (count: number): Effect.Effect<void> => Effect.repeat(turn, { times: count })

/** Waits, turn by turn, until a condition holds. */
export const until = (holds: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => (holds() ? Effect.void : Effect.andThen(turn, until(holds))))
