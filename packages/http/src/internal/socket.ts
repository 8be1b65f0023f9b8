/**
 * A WebSocket as a port.
 *
 * Invariants
 * 1. Who closed it first decides: what we closed is completed, what its client closed, or what broke, is the client's leaving.
 * 2. A socket that is closed here is destroyed when its client does not close it in time.
 * 3. Every socket has an `error` listener: what breaks a connection also closes the socket, and that is listened to.
 */
import type { IncomingMessage } from "node:http"
import { type CancelScope, promiseSettled, withCancelScope } from "@curfew/promise"
import { CancelReason } from "@curfew/reason"
import { PeerSignal } from "@curfew/request"
import { moveOnAfter } from "@curfew/scope"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { WebSocket } from "ws"
import type { Delivery } from "../Exchange.ts"
import type { SocketScope } from "../WebSocket.ts"
import { deferred } from "./bridge.ts"
import { Delegate } from "./delegate.ts"
import type { Edge, Spec } from "./edge.ts"
import { awaitOver, type Port } from "./port.ts"

const open = 1

/** What says to a client what a status says: going away, a policy, too big, try again later, our fault. */
const codes: Readonly<Record<number, number>> = { 400: 1008, 413: 1009, 429: 1013, 503: 1001, 504: 1008 }

export const startSocket = (
  edge: Edge,
  spec: Spec,
  socket: WebSocket,
  request: IncomingMessage,
  handle: (scope: SocketScope) => unknown
): void => {
  const peer = PeerSignal.makeUnsafe()
  const ears = new Set<() => void>()
  let over = false
  let ours = false
  let gone: CancelReason | undefined
  const leave = (detail: string): void => {
    const reason = CancelReason.ClientGone({ transport: "ws", detail })
    if (peer.goneUnsafe(reason)) gone = reason
  }
  socket.on("error", () => {})
  socket.once("close", (code: number) => {
    over = true
    if (ours) peer.completeUnsafe()
    else leave(code === 1006 ? "closed its connection" : `closed the socket with the code ${code}`)
    for (const ear of [...ears]) ear()
    ears.clear()
  })
  const close = (code: number, words: string): void => {
    if (socket.readyState !== open) return
    ours = true
    socket.close(code, words)
  }
  const onOver = (ear: () => void): (() => void) => {
    if (over) ear()
    else ears.add(ear)
    return () => {
      ears.delete(ear)
    }
  }
  const port: Port = {
    method: request.method ?? "GET",
    url: request.url ?? "/",
    transport: "ws",
    peer,
    gone: () => gone,
    onOver,
    header: (name) => {
      const value = request.headers[name]
      return Array.isArray(value) ? value[0] : value
    },
    status: () => 101,
    respond: (status, sentence) =>
      Effect.suspend(() => {
        // A close frame has room for 123 bytes of words.
        close(codes[status] ?? 1011, sentence.slice(0, 120))
        return Effect.map(moveOnAfter(Duration.seconds(1))(awaitOver({ onOver })), (closed) => {
          if (Option.isNone(closed)) socket.terminate()
        })
      }),
    drop: () => socket.terminate(),
    stopping: () => {},
    beat: (within) =>
      Effect.suspend(() =>
        socket.readyState === open
          ? Effect.map(moveOnAfter(within)(pong(socket)), (answered) => {
              if (Option.isSome(answered)) return
              leave("answered no ping")
              socket.terminate()
            })
          : Effect.void
      )
  }
  const { route } = spec.options
  const handler = promiseSettled(
    (signal) => withCancelScope((scope) => handle(new Scope(scope, socket, port)), { signal, name: route }),
    { name: route }
  )
  edge.start(port, spec, handler, {
    value: () => {
      close(1000, "")
    }
  })
}

const pong = (socket: WebSocket): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const answered = (): void => resume(Effect.void)
    socket.once("pong", answered)
    socket.ping()
    return Effect.sync(() => {
      socket.off("pong", answered)
    })
  })

class Scope extends Delegate implements SocketScope {
  readonly #socket: WebSocket
  readonly #port: Port

  constructor(scope: CancelScope, socket: WebSocket, port: Port) {
    super(scope)
    this.#socket = socket
    this.#port = port
  }

  readonly send: SocketScope["send"] = (message) => {
    const { promise, resolve } = deferred<Delivery>()
    const told = (): Delivery => {
      const reason = this.#port.gone()
      return reason === undefined ? { _tag: "Answered" } : { _tag: "PeerGone", reason }
    }
    if (this.#socket.readyState !== open) resolve(told())
    else {
      // Its callback need not come when the connection breaks.
      const off = this.#port.onOver(() => resolve(told()))
      this.#socket.send(message, (error) => {
        off()
        // What could not be written is told by the close that follows it.
        if (error == null) resolve({ _tag: "Sent" })
        else this.#port.onOver(() => resolve(told()))
      })
    }
    return promise
  }
}
