/**
 * A relay on the loopback device, so that a connection can be destroyed under whatever runs over it.
 *
 * Invariants
 * 1. Each connection has a relay of its own, and so a TCP connection of its own: a pooled subchannel is never shared.
 * 2. Destroying resets both ends. Nothing is written to an end after that.
 * 3. Closing the scope ends the relays and waits until the last of their sockets has closed.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * A way to a server, for one connection.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface RelayPort {
  readonly port: number
  /** Resets the connection at both ends. */
  readonly destroy: () => void
  /** Takes no connection any more. The one that is open goes on. */
  readonly close: () => void
}

/**
 * Carries connections to a port of this machine, each on a port of its own.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Relay {
  readonly open: Effect.Effect<RelayPort>
  /** How many are open. */
  readonly connections: () => number
  /** Resumes when there is no connection and no way to a new one. */
  readonly calm: Effect.Effect<void>
}

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

export const relaysTo = (port: number): Effect.Effect<Relay, never, Scope.Scope> =>
  Effect.gen(function* () {
    const open = new Set<Socket>()
    const relays = new Set<Server>()
    let calm: (() => void) | undefined
    const settled = () => {
      if (open.size === 0 && relays.size === 0) calm?.()
    }
    const becalmed = Effect.callback<void>((resume) => {
      calm = () => resume(Effect.void)
      settled()
    })
    yield* Effect.addFinalizer(() =>
      Effect.andThen(
        Effect.sync(() => {
          for (const relay of relays) relay.close()
          for (const socket of open) socket.destroy()
        }),
        becalmed
      )
    )
    const way: Effect.Effect<RelayPort> = Effect.gen(function* () {
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
      return {
        port: near,
        destroy: () => {
          relay.close()
          for (const socket of sockets) socket.resetAndDestroy()
        },
        close: () => {
          relay.close()
        }
      }
    })
    return {
      open: way,
      connections: () => open.size / 2,
      calm: becalmed
    }
  })
