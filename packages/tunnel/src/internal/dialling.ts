/**
 * The end that dials: the connection, the outer call, and the tunnel over it.
 *
 * **Invariants**
 * 1. A connection that is made here is used by one tunnel and closed with it: a tunnel that is lost takes no other along,
 *    and the next one starts from nothing that the last one knew.
 * 2. A connection is pinged, so that a peer that is frozen or cut off is noticed within a bound.
 * 3. The outer call ends with the scope.
 */
import type { ConnectionOptions } from "node:tls"
import { countUnsafe } from "@curfew/scope/Argument"
import { IllegalArgument } from "@curfew/scope/IllegalArgument"
import { Client, status as Code, connectivityState, credentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Services } from "../Services.ts"
import type { ConnectOptions, Endpoint } from "../Tunnel.ts"
import type { TunnelChannel, TunnelHandle } from "../TunnelChannel.ts"
import { TunnelOpenError } from "../TunnelError.ts"
import type { Admission } from "./admission.ts"
import { batchLimit } from "./batch.ts"
import type { Carrier } from "./carrier.ts"
import type { ClientEngine } from "./clientEngine.ts"
import { connect as connectOnce } from "./connection.ts"
import { dial, paths } from "./grpcCarrier.ts"
import { dialOwn } from "./http2Carrier.ts"
import { keepaliveOptions } from "./keepalive.ts"
import { limitsOf } from "./limits.ts"
import { type Target, targetOf } from "./target.ts"
import { runClient, runServer } from "./tunnel.ts"

/** What the server may send ahead, to the connection and to the call: more than a link of 50 ms at 1 Gbit/s has room for. */
const ownWindow = 8 * 1024 * 1024

/** The longest message that grpc-js takes by default. */
const leastMaxMessage = 4 * 1024 * 1024

interface OwnEndpoint {
  readonly target: Target
  readonly tls: ConnectionOptions | false
  readonly window: number
}

/** HTTP/2 has no window below its default, and none of more than 31 bits. */
const windowOf = (given: number | undefined): number =>
  given === undefined
    ? ownWindow
    : Math.min(Math.max(countUnsafe("the window of a connection", given, 1), 65_535), 0x7fff_ffff)

/** The credentials of grpc-js do not show what they hold; but those without TLS are of one class. */
const inTheClear = (given: object): boolean =>
  Object.getPrototypeOf(given) === Object.getPrototypeOf(credentials.createInsecure())

/** grpc-js goes through a proxy where one of these names it. */
const proxied = (): boolean =>
  ["grpc_proxy", "https_proxy", "http_proxy"].some((name) => (process.env[name] ?? "") !== "")

/** What a tunnel's own connection can dial; `undefined` where it takes grpc-js. */
const ownEndpoint = (to: Endpoint): OwnEndpoint | undefined => {
  if ("client" in to) return undefined
  const target = targetOf(to.address)
  if ("tls" in to) {
    if (target === undefined) {
      throw new IllegalArgument({
        argument: "the address of a tunnel with tls",
        value: to.address,
        expected: "host:port or unix:/path; a grpc-js client dials anything else"
      })
    }
    return { target, tls: to.tls, window: windowOf(to.window) }
  }
  const plain = inTheClear(to.credentials) && Object.keys(to.channelOptions ?? {}).length === 0 && !proxied()
  return target === undefined || !plain ? undefined : { target, tls: false, window: ownWindow }
}

type GrpcEndpoint = Exclude<Endpoint, { readonly tls: unknown }>

const clientOf = (
  to: GrpcEndpoint,
  { keepalive }: ConnectOptions
): Effect.Effect<Client, never, Scope.Scope> =>
  "client" in to
    ? Effect.succeed(to.client)
    : Effect.acquireRelease(
        Effect.sync(
          () =>
            new Client(to.address, to.credentials, {
              "grpc.per_rpc_retry_buffer_size": 0,
              "grpc.use_local_subchannel_pool": 1,
              ...keepaliveOptions(keepalive),
              ...to.channelOptions
            })
        ),
        (client) => Effect.sync(() => client.close())
      )

/** What is wanted of a tunnel besides its options. */
export interface Dialling extends ConnectOptions {
  /**
   * The connection takes no new calls: its server, or a proxy on the way, sent GOAWAY, and will close it. grpc-js tells
   * nobody; but its channel is no longer ready then, although the outer call goes on.
   */
  readonly onGoaway?: (() => void) | undefined
}

const watchGoaway = (client: Client, onGoaway: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const watch = { over: false }
      const channel = client.getChannel()
      const noticed = () => {
        if (!watch.over) onGoaway()
      }
      if (channel.getConnectivityState(false) !== connectivityState.READY) noticed()
      else channel.watchConnectivityState(connectivityState.READY, Number.POSITIVE_INFINITY, noticed)
      return watch
    }),
    (watch) =>
      Effect.sync(() => {
        watch.over = true
      })
  ).pipe(Effect.asVoid)

/** Opens the outer call; it ends with the scope. */
const connect = (
  to: Endpoint,
  path: string,
  options: Dialling
): Effect.Effect<Carrier, TunnelOpenError, Scope.Scope> =>
  Effect.suspend(() => {
    const own = ownEndpoint(to)
    return own === undefined
      ? connectWithClient(to as GrpcEndpoint, path, options)
      : connectOwn(own, path, options)
  })

const connectWithClient = (
  to: GrpcEndpoint,
  path: string,
  options: Dialling
): Effect.Effect<Carrier, TunnelOpenError, Scope.Scope> =>
  Effect.flatMap(clientOf(to, options), (client) =>
    Effect.tap(opened(dial(client, path, options.metadata), options), () =>
      options.onGoaway === undefined ? Effect.void : watchGoaway(client, options.onGoaway)
    )
  )

const connectOwn = (
  { target, tls, window }: OwnEndpoint,
  path: string,
  options: Dialling
): Effect.Effect<Carrier, TunnelOpenError, Scope.Scope> => {
  const { keepalive, metadata, onGoaway } = options
  const { maxMessageSize, maxMetadataSize } = limitsOf(options)
  const maxMessage = Math.max(leastMaxMessage, maxMessageSize, 2 * maxMetadataSize) + batchLimit
  return Effect.flatMap(connectOnce({ target, tls, window, keepalive }), (connection) =>
    Effect.tap(opened(dialOwn(connection, { target, path, metadata, maxMessage }), options), () =>
      Effect.sync(() => {
        connection.onGoaway = onGoaway
        if (connection.leaving) onGoaway?.()
      })
    )
  )
}

const opened = (
  dialled: Effect.Effect<Carrier, TunnelOpenError>,
  options: ConnectOptions
): Effect.Effect<Carrier, TunnelOpenError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.timeoutOrElse(dialled, {
      duration: limitsOf(options).openTimeout,
      orElse: () =>
        Effect.fail(
          new TunnelOpenError({
            code: Code.DEADLINE_EXCEEDED,
            details: "The peer sent no response headers in time"
          })
        )
    }),
    (carrier) => carrier.end(),
    { interruptible: true }
  )

/** Runs a forward tunnel until it ends. */
export const runForward = (
  to: Endpoint,
  options: Dialling,
  ready: (channel: TunnelChannel, engine: ClientEngine) => Effect.Effect<unknown, never, Scope.Scope>
): Effect.Effect<void, TunnelOpenError, Scope.Scope> =>
  Effect.flatMap(connect(to, paths.forward, options), (carrier) =>
    runClient(carrier, "forward", options, ready)
  )

/** Runs a reverse tunnel until it ends. */
export const runReverse = (
  to: Endpoint,
  services: Services,
  admission: Admission,
  options: Dialling,
  ready: (handle: TunnelHandle) => Effect.Effect<unknown>
): Effect.Effect<void, TunnelOpenError, Scope.Scope> =>
  Effect.flatMap(connect(to, paths.reverse, options), (carrier) =>
    runServer(carrier, "reverse", services, admission, options, ready)
  )
