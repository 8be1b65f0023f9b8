/**
 * The end that dials: the connection, the outer call, and the tunnel over it.
 *
 * **Invariants**
 * 1. A connection that is made here is used by one tunnel and closed with it: a tunnel that is lost takes no other along,
 *    and the next one starts from nothing that the last one knew.
 * 2. A connection is pinged, so that a peer that is frozen or cut off is noticed within a bound.
 * 3. The outer call ends with the scope.
 */
import { Client, status as Code, connectivityState } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Services } from "../Services.ts"
import type { ConnectOptions, Endpoint } from "../Tunnel.ts"
import type { TunnelChannel, TunnelHandle } from "../TunnelChannel.ts"
import { TunnelOpenError } from "../TunnelError.ts"
import type { Admission } from "./admission.ts"
import type { Carrier } from "./carrier.ts"
import type { ClientEngine } from "./clientEngine.ts"
import { dial, paths } from "./grpcCarrier.ts"
import { keepaliveOptions } from "./keepalive.ts"
import { limitsOf } from "./limits.ts"
import { runClient, runServer } from "./tunnel.ts"

const clientOf = (to: Endpoint, { keepalive }: ConnectOptions): Effect.Effect<Client, never, Scope.Scope> =>
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
  Effect.flatMap(clientOf(to, options), (client) =>
    Effect.tap(opened(client, path, options), () =>
      options.onGoaway === undefined ? Effect.void : watchGoaway(client, options.onGoaway)
    )
  )

const opened = (
  client: Client,
  path: string,
  options: ConnectOptions
): Effect.Effect<Carrier, TunnelOpenError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.timeoutOrElse(dial(client, path, options.metadata), {
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
