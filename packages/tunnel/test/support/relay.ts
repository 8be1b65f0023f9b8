/** A TCP relay whose cable can be cut: both ends stay connected to it, and nothing passes any more. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

export interface Relay {
  readonly address: string
  readonly cut: Effect.Effect<void>
}

export const relayTo = (address: string): Effect.Effect<Relay, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly port: number; readonly sockets: Set<Socket>; readonly close: () => void }>(
        (resume) => {
          const sockets = new Set<Socket>()
          const port = Number(address.slice(address.lastIndexOf(":") + 1))
          const relay = createServer({ noDelay: true }, (near) => {
            const far = connect({ host: "127.0.0.1", port, noDelay: true })
            for (const [from, to] of [
              [near, far],
              [far, near]
            ] as const) {
              sockets.add(from)
              from.on("error", () => undefined)
              from.on("data", (bytes) => to.write(bytes))
              from.on("end", () => to.end())
              from.on("close", () => sockets.delete(from))
            }
          })
          relay.listen(0, "127.0.0.1", () =>
            resume(
              Effect.succeed({
                port: (relay.address() as AddressInfo).port,
                sockets,
                close: () => relay.close()
              })
            )
          )
        }
      ),
      ({ close, sockets }) =>
        Effect.sync(() => {
          close()
          for (const socket of sockets) socket.destroy()
        })
    ),
    ({ port, sockets }) => ({
      address: `127.0.0.1:${port}`,
      cut: Effect.sync(() => {
        for (const socket of sockets) {
          socket.removeAllListeners("data")
          socket.removeAllListeners("end")
          // Paused, a socket does not even see its other end leave.
          socket.pause()
        }
      })
    })
  )
