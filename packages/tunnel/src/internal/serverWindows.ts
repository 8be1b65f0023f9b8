/**
 * The HTTP/2 windows of the connections that bring tunnels to a `grpc.Server`.
 *
 * grpc-js gives a server no option for them, so that a caller may send 64 KiB ahead and waits for a round trip then,
 * whatever it has to send. Node tells of each stream of a server on a diagnostics channel, and what it tells of is
 * public: the stream, its headers, and its session. A Node without that channel leaves the windows as they are.
 *
 * **Invariants**
 * 1. Only sessions that carry a tunnel are changed, before its first frame is read; other calls on them profit too.
 * 2. One subscription for the process, from the first service's begin to the last one's end.
 */
import { type Channel, channel } from "node:diagnostics_channel"
import type { ServerHttp2Session, ServerHttp2Stream } from "node:http2"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { paths } from "./grpcCarrier.ts"

const created: Channel = /* @__PURE__ */ channel("http2.server.stream.created")

/** Services that want the windows of a process wide, by the width that each wants. */
const wanted: Array<number> = []

const wide = /* @__PURE__ */ new WeakSet<ServerHttp2Session>()

interface Created {
  readonly stream: ServerHttp2Stream
  readonly headers: { readonly ":path"?: string }
}

const widen = (message: unknown): void => {
  const { headers, stream } = message as Created
  const path = headers[":path"]
  const { session } = stream
  if ((path !== paths.forward && path !== paths.reverse) || session === undefined) return
  const server = session as ServerHttp2Session
  if (wide.has(server) || server.destroyed) return
  wide.add(server)
  const window = Math.max(...wanted)
  server.setLocalWindowSize(window)
  server.settings({ initialWindowSize: window })
}

/** Widens the windows for tunnels that come while the scope is open. */
export const widenServerWindows = (window: number): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => {
        if (wanted.push(window) === 1) created.subscribe(widen)
      }),
      () =>
        Effect.sync(() => {
          wanted.splice(wanted.indexOf(window), 1)
          if (wanted.length === 0) created.unsubscribe(widen)
        })
    )
  )
