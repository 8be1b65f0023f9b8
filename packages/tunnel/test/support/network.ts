/** A real grpc-js server on a free port of the loopback, and tunnels of both kinds through it. */
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import {
  type Endpoint,
  openForward,
  Services,
  serveReverse,
  type TunnelChannel,
  type TunnelEvent,
  type TunnelOptions,
  TunnelService
} from "../../src/index.ts"
import { definition, EchoClient, type Handlers, implementation } from "./echo.ts"

export interface Listening {
  readonly server: grpc.Server
  readonly address: string
}

/** Listens until the scope ends, then drops every connection. */
export const listen = (add: (server: grpc.Server) => void): Effect.Effect<Listening, never, Scope.Scope> =>
  listenWith(grpc.ServerCredentials.createInsecure(), add)

/** The same with TLS, with options, or at a port that was taken before. */
export const listenWith = (
  credentials: grpc.ServerCredentials,
  add: (server: grpc.Server) => void,
  options: grpc.ServerOptions & { readonly port?: number } = {}
): Effect.Effect<Listening, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Listening>((resume) => {
      const { port: wanted = 0, ...rest } = options
      const server = new grpc.Server(rest)
      add(server)
      server.bindAsync(`127.0.0.1:${wanted}`, credentials, (error, port) => {
        if (error) throw error
        resume(Effect.succeed({ server, address: `127.0.0.1:${port}` }))
      })
    }),
    ({ server }) => Effect.sync(() => server.forceShutdown())
  )

export const kinds = ["forward", "reverse"] as const
export type Kind = (typeof kinds)[number]

/** How a tunnel is dialled: over a connection of its own, or over a grpc-js client. */
const dialledWith = ["a connection of its own", "a grpc-js client"] as const
type DialledWith = (typeof dialledWith)[number]

/** Each kind of tunnel, dialled in each way. */
export const kindsAndDials = kinds.flatMap((kind) => dialledWith.map((dialled) => [kind, dialled] as const))

/** An endpoint in the clear that is dialled as said. */
const endpointOf = (
  address: string,
  dialled: DialledWith = "a connection of its own"
): Effect.Effect<Endpoint, never, Scope.Scope> => {
  if (dialled === "a connection of its own") return Effect.succeed({ address, tls: false })
  const make = () =>
    new grpc.Client(address, grpc.credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 })
  return Effect.map(
    Effect.acquireRelease(Effect.sync(make), (client) => Effect.sync(() => client.close())),
    (client) => ({ client })
  )
}

export interface Pair {
  readonly channel: TunnelChannel
  readonly client: EchoClient
  readonly events: ReadonlyArray<TunnelEvent>
  readonly service: TunnelService.TunnelService
  readonly listening: Listening
}

export interface PairOptions {
  readonly handlers?: Partial<Handlers>
  /** At both ends. */
  readonly tunnel?: TunnelOptions
  /** Beside those, at the end that is dialled. */
  readonly dialled?: TunnelOptions
  /** Beside those, at the end that dials. */
  readonly dialling?: TunnelOptions
  readonly with?: DialledWith
}

/** A tunnel of either kind whose serving end runs the echo service. */
export const tunnelPair = (
  kind: Kind,
  options: PairOptions = {}
): Effect.Effect<Pair, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const events: Array<TunnelEvent> = []
    const observer = (event: TunnelEvent): void => {
      events.push(event)
      options.tunnel?.observer?.(event)
    }
    const shared = { ...options.tunnel, observer }
    const services = Services.empty.pipe(Services.add(definition, implementation(options.handlers)))
    const service = yield* TunnelService.make({ ...shared, ...options.dialled, services })
    const listening = yield* listen(service.addTo)
    const own = { ...shared, ...options.dialling }
    const to = yield* endpointOf(listening.address, options.with)
    const channel =
      kind === "forward"
        ? yield* openForward(to, own)
        : yield* Effect.andThen(serveReverse(to, services, own), service.reverse.awaitReverse())
    return { channel, client: channel.client(EchoClient), events, service, listening }
  })
