/**
 * A client over a socket of its own, and what a listening server knows of its sockets.
 *
 * Invariants
 * 1. Each call has a connection of its own, so that leaving hits nothing else.
 * 2. The outcome comes once: with the last byte of the answer, or with the end of the socket. A client that has its
 *    answer closes its socket.
 * 3. A socket of the server is told by the port of its client: `heard` looks at the server's end, not at the client's.
 */
import { type ClientRequest, type IncomingMessage, request } from "node:http"
import type { AddressInfo, Server, Socket } from "node:net"
import * as Effect from "effect/Effect"
import type { HttpAnswer, HttpCall, HttpWay } from "../http.ts"
import type { Remote, RemoteCall } from "./remote.ts"

type Code = NodeJS.ErrnoException

const answerOf = (response: IncomingMessage, body: Array<Buffer>, ended: boolean): HttpAnswer => ({
  status: response.statusCode ?? 0,
  body: Buffer.concat(body).toString("utf8"),
  complete: ended
})

/** Starts a request. The outcome is an answer, or the reason why there is none. */
const callOf = (port: number, options: HttpCall, ended: (port: number) => boolean): RemoteCall<HttpWay> => {
  const body: Array<Buffer> = []
  const aborter = new AbortController()
  let response: IncomingMessage | undefined
  let socket: Socket | undefined
  let clientPort = 0
  let outcome: HttpAnswer | undefined
  let told: ((answer: HttpAnswer) => void) | undefined
  let arrival: (() => void) | undefined
  const settle = (answer: HttpAnswer): void => {
    if (outcome !== undefined) return
    outcome = answer
    // A pending close would hold the server's end open.
    socket?.destroy()
    told?.(answer)
  }
  const broken = (error?: Code): void => {
    if (response !== undefined) settle(answerOf(response, body, false))
    else settle({ status: 0, body: error?.code ?? "closed", complete: false })
  }
  const sent: ClientRequest = request({
    agent: false,
    host: "127.0.0.1",
    port,
    method: options.method ?? "GET",
    path: options.path ?? "/",
    headers: options.headers ?? {},
    signal: aborter.signal
  })
  sent.on("socket", (given) => {
    socket = given
    given.on("connect", () => {
      clientPort = given.localPort ?? 0
    })
    given.on("close", () => broken())
  })
  sent.on("error", broken)
  sent.on("response", (given) => {
    response = given
    given.on("data", (chunk: Buffer) => {
      body.push(chunk)
      arrival?.()
    })
    given.on("error", broken)
    given.on("end", () => settle(answerOf(given, body, given.complete)))
  })
  if (options.body !== undefined) sent.write(options.body)
  if (options.unfinished !== true) sent.end()
  else sent.flushHeaders()
  return {
    outcome: Effect.callback<unknown>((resume) => {
      if (outcome !== undefined) {
        resume(Effect.succeed(outcome))
        return
      }
      told = (answer) => resume(Effect.succeed(answer))
      return Effect.sync(() => socket?.destroy())
    }),
    leave: (way) => {
      if (way === "reset") socket?.resetAndDestroy()
      else if (way === "abort") aborter.abort()
      else socket?.end()
    },
    heard: () => clientPort === 0 || ended(clientPort),
    onArrival: (tell) => {
      arrival = tell
    }
  }
}

/** Makes requests to a server that listens on the loopback device. */
export const remoteOf = (server: Server, options: HttpCall): Remote<HttpWay> => {
  const open = new Set<Socket>()
  const half = new Set<number>()
  let calm: (() => void) | undefined
  const ports = () => [...open].map(({ remotePort }) => remotePort)
  server.on("connection", (socket: Socket) => {
    const port = socket.remotePort ?? 0
    half.delete(port)
    open.add(socket)
    socket.on("end", () => half.add(port))
    socket.on("close", () => {
      open.delete(socket)
      if (open.size === 0) calm?.()
    })
  })
  const { port } = server.address() as AddressInfo
  return {
    call: Effect.sync(() => callOf(port, options, (client) => half.has(client) || !ports().includes(client))),
    connections: () => open.size,
    calm: Effect.callback<void>((resume) => {
      if (open.size === 0) {
        resume(Effect.void)
        return
      }
      calm = () => resume(Effect.void)
    })
  }
}
