/**
 * grpc-js over a relay, so that a connection can be destroyed under its channel.
 *
 * Invariants
 * 1. Each channel has a relay of its own.
 * 2. Closing the scope ends the relays, then the server.
 */
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { GrpcConnection, GrpcLink, GrpcTarget } from "../grpc.ts"
import { type Relay, relaysTo } from "./relay.ts"

const bound = (register: (target: GrpcTarget) => void): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly server: grpc.Server; readonly port: number }>((resume) => {
        const server = new grpc.Server()
        register(server)
        server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) =>
          resume(error === null ? Effect.succeed({ server, port }) : Effect.die(error))
        )
      }),
      ({ server }) => Effect.sync(() => server.forceShutdown())
    ),
    ({ port }) => port
  )

/** A new channel over a new way of the relay. */
export const channelOver = (relay: Relay): Effect.Effect<GrpcConnection> =>
  Effect.map(relay.open, (way) => {
    const channel = new grpc.Channel(`127.0.0.1:${way.port}`, grpc.credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1
    })
    return {
      channel,
      destroy: way.destroy,
      close: () => {
        channel.close()
        way.close()
      }
    }
  })

export const openGrpcJs = (
  register: (target: GrpcTarget) => void
): Effect.Effect<GrpcLink, never, Scope.Scope> =>
  Effect.gen(function* () {
    const relay = yield* relaysTo(yield* bound(register))
    return { connect: channelOver(relay), connections: relay.connections, calm: relay.calm }
  })
