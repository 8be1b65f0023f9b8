/**
 * grpc-js over a relay on the loopback device, so that a connection can be destroyed under its channel.
 *
 * Invariants
 * 1. Each connection has a relay of its own, and so a TCP connection of its own: a pooled subchannel is never shared.
 * 2. Destroying resets both ends. Nothing is written to an end after that.
 * 3. Closing the scope ends the relays, then the server, and waits for both.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { GrpcConnection, GrpcLink, GrpcTarget } from "../grpc.ts"

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

/** Carries bytes between a client and the server, until it is destroyed. */
const relayTo = (
  port: number,
  opened: (pair: ReadonlyArray<Socket>) => void
): Effect.Effect<{ readonly relay: Server; readonly port: number }> =>
  Effect.callback((resume) => {
    // Held back by Nagle's algorithm, a message would come after the clock has jumped.
    const relay = createServer({ noDelay: true }, (near) => {
      const far = connect({ host: "127.0.0.1", noDelay: true, port })
      for (const [from, to] of [
        [near, far],
        [far, near]
      ] as const) {
        from.pipe(to)
        from.on("error", () => to.destroy())
        from.on("close", () => to.destroy())
      }
      opened([near, far])
    })
    relay.listen(0, "127.0.0.1", () =>
      resume(Effect.succeed({ relay, port: (relay.address() as AddressInfo).port }))
    )
  })

export const openGrpcJs = (
  register: (target: GrpcTarget) => void
): Effect.Effect<GrpcLink, never, Scope.Scope> =>
  Effect.gen(function* () {
    const port = yield* bound(register)
    const open = new Set<Socket>()
    const relays = new Set<Server>()
    let calm: (() => void) | undefined
    const settled = () => {
      if (open.size === 0 && relays.size === 0) calm?.()
    }
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const relay of relays) relay.close()
        for (const socket of open) socket.destroy()
      })
    )
    const connection: Effect.Effect<GrpcConnection> = Effect.gen(function* () {
      const sockets: Array<Socket> = []
      const { port: near, relay } = yield* relayTo(port, (pair) => {
        for (const socket of pair) {
          sockets.push(socket)
          open.add(socket)
          socket.on("close", () => {
            open.delete(socket)
            settled()
          })
        }
      })
      relays.add(relay)
      relay.on("close", () => {
        relays.delete(relay)
        settled()
      })
      const channel = new grpc.Channel(`127.0.0.1:${near}`, grpc.credentials.createInsecure(), {
        "grpc.use_local_subchannel_pool": 1
      })
      return {
        channel,
        destroy: () => {
          relay.close()
          for (const socket of sockets) socket.resetAndDestroy()
        },
        close: () => {
          channel.close()
          relay.close()
        }
      }
    })
    return {
      connect: connection,
      connections: () => open.size / 2,
      calm: Effect.callback<void>((resume) => {
        calm = () => resume(Effect.void)
        settled()
      })
    }
  })
