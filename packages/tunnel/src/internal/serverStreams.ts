/**
 * The HTTP/2 streams of a `grpc.Server` that carry tunnels: their windows, and what is written to them.
 *
 * grpc-js gives a server no option for its windows, so that a caller may send 64 KiB ahead and waits for a round trip
 * then, whatever it has to send; and it takes one message per call of `write`, which it copies. Node tells of each stream
 * of a server on a diagnostics channel, and what it tells of is public: the stream, its headers and its session. A Node
 * without that channel leaves both as they are.
 *
 * **Invariants**
 * 1. Only sessions that carry a tunnel are changed, before its first frame is read; other calls on them profit too.
 * 2. One subscription for the process, from the first service's begin to the last one's end.
 * 3. A call finds its own stream and no other: by a header that is set here on every request of these paths, whatever its
 *    peer had put there, and that is gone before anybody else sees the metadata.
 */
import { type Channel, channel } from "node:diagnostics_channel"
import type { ServerHttp2Session, ServerHttp2Stream } from "node:http2"
import type { Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { transportKey } from "./callSurface.ts"
import { paths } from "./grpcCarrier.ts"

const created: Channel = /* @__PURE__ */ channel("http2.server.stream.created")

/** Services that want the windows of a process wide, by the width that each wants. */
const wanted: Array<number> = []

const wide = /* @__PURE__ */ new WeakSet<ServerHttp2Session>()

/** Streams whose calls have not been seen yet. */
const unclaimed = /* @__PURE__ */ new Map<string, ServerHttp2Stream>()
let streams = 0

/** A process may hold several copies of this package: each has a header of its own. */
const copiesKey: unique symbol = /* @__PURE__ */ Symbol.for("curfew.tunnel.copies") as never
let header: string | undefined

const ownHeader = (): string => {
  if (header !== undefined) return header
  const shared = globalThis as { [copiesKey]?: number }
  shared[copiesKey] = (shared[copiesKey] ?? 0) + 1
  header = `curfew-stream-${shared[copiesKey]}`
  return header
}

interface Created {
  readonly stream: ServerHttp2Stream
  readonly headers: Record<string, string | undefined>
}

const noticed = (message: unknown): void => {
  const { headers, stream } = message as Created
  const path = headers[":path"]
  if (path !== paths.forward && path !== paths.reverse) return
  const name = String(++streams)
  headers[ownHeader()] = name
  unclaimed.set(name, stream)
  stream.once("close", () => unclaimed.delete(name))
  if (stream.session !== undefined) widen(stream.session as ServerHttp2Session)
}

const widen = (session: ServerHttp2Session): void => {
  if (wide.has(session) || session.destroyed) return
  wide.add(session)
  const window = Math.max(...wanted)
  session.setLocalWindowSize(window)
  session.settings({ initialWindowSize: window })
}

/** Has a process notice the streams of its servers that carry tunnels, while the scope is open. */
export const noticeServerStreams = (window: number): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => {
        if (wanted.push(window) === 1) created.subscribe(noticed)
      }),
      () =>
        Effect.sync(() => {
          wanted.splice(wanted.indexOf(window), 1)
          if (wanted.length === 0) created.unsubscribe(noticed)
        })
    )
  )

/** The stream of a call that has just come to a service; nothing of a call that came through another tunnel. */
export const claimStream = (call: { readonly metadata: Metadata }): ServerHttp2Stream | undefined => {
  const own = ownHeader()
  const [name] = call.metadata.get(own)
  call.metadata.remove(own)
  if (typeof name !== "string" || transportKey in call) return undefined
  const stream = unclaimed.get(name)
  unclaimed.delete(name)
  return stream
}
