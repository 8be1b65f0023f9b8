/**
 * An HTTP/2 connection of a tunnel's own, over Node's public client.
 *
 * **Invariants**
 * 1. It belongs to the scope in which it is made: leaving that closes it, politely at first, and waits until its socket
 *    is closed.
 * 2. A peer that is frozen or cut off is noticed within the keepalive's `time` and `timeout` together.
 * 3. Why it ended is known before anybody is told that it has.
 */
import { type ClientHttp2Session, connect as connectHttp2, constants } from "node:http2"
import { connect as connectTcp, type Socket } from "node:net"
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls"
import { TaskScope } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { KeepaliveOptions } from "../TunnelOptions.ts"
import { keepaliveOptions } from "./keepalive.ts"
import type { Target } from "./target.ts"

export interface ConnectionSettings {
  readonly target: Target
  readonly tls: ConnectionOptions | false
  /** Bytes that the server may send ahead, on the connection and on the call. */
  readonly window: number
  readonly keepalive: KeepaliveOptions | undefined
}

/** How a connection came to its end. */
export interface Loss {
  /** The HTTP/2 error code of a GOAWAY. */
  readonly code: number | undefined
  readonly details: string
}

export class Connection {
  readonly session: ClientHttp2Session
  readonly socket: Socket
  loss: Loss | undefined
  /** Told when the server takes no more calls on this connection. */
  onGoaway: (() => void) | undefined
  private away = false
  /** The server speaks HTTP/2: its settings have come. */
  private greeted = false

  constructor(settings: ConnectionSettings) {
    const { target, tls, window } = settings
    this.socket = dial(settings)
    // Before the session hears of it, which then ends its calls and says nothing of why.
    this.socket.once("error", (error) => this.lose(undefined, said(error)))
    this.socket.once("close", () => this.lose(undefined, "The connection was lost"))
    this.session = connectHttp2(`${tls === false ? "http" : "https"}://${target.authority}`, {
      createConnection: () => this.socket,
      settings: { initialWindowSize: window, enablePush: false },
      maxSendHeaderBlockLength: Number.MAX_SAFE_INTEGER,
      // What it holds is bounded by the windows and by the writer.
      maxSessionMemory: Number.MAX_SAFE_INTEGER
    })
    const { session } = this
    session.once("connect", () => session.setLocalWindowSize(window))
    session.once("remoteSettings", () => {
      this.greeted = true
    })
    session.on("error", (error) => this.lose(undefined, said(error)))
    session.on("goaway", (code, _last, data) => {
      const why = data === undefined || data.length === 0 ? "" : `: ${Buffer.from(data).toString("latin1")}`
      if (code !== constants.NGHTTP2_NO_ERROR) this.lose(code, `The server closed the connection${why}`)
      this.goesAway()
    })
    session.once("close", () => {
      this.lose(undefined, "The connection was closed")
      this.goesAway()
    })
  }

  /** The first that is heard of it counts. */
  lose(code: number | undefined, details: string): void {
    this.loss ??= { code, details: this.greeted ? details : `Failed to connect: ${details}` }
  }

  private goesAway(): void {
    if (this.away) return
    this.away = true
    this.onGoaway?.()
  }

  /** Whether the server has said that it takes no more calls. */
  get leaving(): boolean {
    return this.away
  }

  /** The server's certificate, which TLS has verified. */
  get certificate() {
    return "getPeerCertificate" in this.socket ? (this.socket as TLSSocket).getPeerCertificate() : undefined
  }

  get peer(): string {
    const { remoteAddress, remoteFamily, remotePort } = this.socket
    if (remoteAddress === undefined) return "unknown"
    return remoteFamily === "IPv6" ? `[${remoteAddress}]:${remotePort}` : `${remoteAddress}:${remotePort}`
  }

  /** Waits until nothing is left of it. */
  readonly closed: Effect.Effect<void> = Effect.callback<void>((resume) => {
    const { session, socket } = this
    const look = (): void => {
      if (session.destroyed && socket.closed) resume(Effect.void)
    }
    session.once("close", look)
    socket.once("close", look)
    look()
    return Effect.sync(() => {
      session.removeListener("close", look)
      socket.removeListener("close", look)
    })
  })

  /** One ping; false when the connection has none to give. */
  readonly ping: Effect.Effect<boolean> = Effect.callback<boolean>((resume) => {
    const { session } = this
    if (session.destroyed) return resume(Effect.succeed(false))
    const sent = session.ping((error) => resume(Effect.succeed(error === null)))
    // Too many are on their way: they count.
    if (!sent) resume(Effect.never)
  })

  destroy(details: string): void {
    this.lose(undefined, details)
    this.session.destroy()
    this.socket.destroy()
  }
}

const said = (error: Error & { readonly errors?: ReadonlyArray<Error> }): string =>
  // Node tries each address of a name, and says what became of each.
  error.message === "" && error.errors !== undefined
    ? error.errors.map(({ message }) => message).join("; ")
    : error.message

const dial = ({ target, tls }: ConnectionSettings): Socket => {
  if (tls === false) return connectTcp({ ...target.to, noDelay: true })
  const name = "host" in target.to ? target.to.host : undefined
  return connectTls({
    ...(name === undefined || isAddress(name) ? {} : { servername: name }),
    ...tls,
    ...target.to,
    ALPNProtocols: ["h2"]
  }).setNoDelay(true)
}

/** TLS names no addresses. */
const isAddress = (host: string): boolean => /^[\d.]+$|:/.test(host)

/** Pings until the connection is over; it is, when one is not answered. */
const pings = (connection: Connection, keepalive: KeepaliveOptions | undefined): Effect.Effect<void> => {
  const times = keepaliveOptions(keepalive)
  const time = times["grpc.keepalive_time_ms"]
  const timeout = times["grpc.keepalive_timeout_ms"]
  return Effect.gen(function* () {
    while (!connection.session.destroyed) {
      yield* Effect.sleep(time)
      const answer = yield* Effect.timeoutOption(connection.ping, timeout)
      if (Option.isNone(answer)) connection.destroy("The server did not answer a ping in time")
    }
  })
}

/** Makes a connection that is closed with the scope. Calls may be made at once: they wait for it. */
export const connect = (settings: ConnectionSettings): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.gen(function* () {
    const connection = yield* Effect.acquireRelease(
      Effect.sync(() => new Connection(settings)),
      (it) =>
        Effect.gen(function* () {
          if (!it.session.destroyed) it.session.close()
          yield* Effect.timeoutOption(it.closed, "1 second")
          it.destroy("The connection was closed here")
          yield* boundedAt(it.closed, { name: "tunnel connection" })
        })
    )
    const tasks = yield* TaskScope.make({ name: "tunnel connection" })
    yield* Effect.orDie(tasks.spawn(pings(connection, settings.keepalive), { name: "keepalive" }))
    return connection
  })
