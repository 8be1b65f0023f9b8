import type { Server, ServerOptions } from "node:http"
import { countUnsafe, millisUnsafe } from "@curfew/scope/Argument"
import type * as Duration from "effect/Duration"
import { allowHalfOpen } from "./internal/peer.ts"

/**
 * What a server of node takes from its clients before any handler runs. Each is node's own setting, with a default
 * that is meant for a server that strangers reach.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ServerLimits {
  /** How long the head of a request may take; then 408. Default: 20 seconds. */
  readonly headers?: Duration.Input | undefined
  /** How long a whole request may take to arrive, its body included; then 408. Default: 2 minutes. */
  readonly request?: Duration.Input | undefined
  /** How long a connection may stay idle between two requests. Default: 5 seconds. */
  readonly keepAlive?: Duration.Input | undefined
  /** How often node looks for clients that are too slow: what a limit is late by at most. Default: 1 second. */
  readonly checkEvery?: Duration.Input | undefined
  /** The most bytes of a request's head; over it 431. Default: 16 KiB. */
  readonly headerBytes?: number | undefined
  /** The most connections; more are closed without a word, because nobody has read what they want. Default: 10,000. */
  readonly connections?: number | undefined
  /** After how long of silence the system asks whether a peer is there. Default: 60 seconds. */
  readonly tcpKeepAlive?: Duration.Input | undefined
}

/**
 * The limits as what `createServer` takes, and what has to be set on the server.
 *
 * **Example**
 *
 * ```ts
 * import { createServer } from "node:http"
 * import { serverOptions } from "@curfew/http"
 *
 * const limits = serverOptions({ headers: "5 seconds" })
 * const server = createServer(limits.options)
 * limits.apply(server)
 * server.headersTimeout // => 5000
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const serverOptions = (
  limits: ServerLimits = {}
): {
  readonly options: ServerOptions
  readonly apply: (server: Server, halfClose?: "gone" | "stays") => void
} => {
  const millis = (name: keyof ServerLimits, otherwise: Duration.Input): number => {
    const given = millisUnsafe(
      `the limit ${name} of the server`,
      (limits[name] as Duration.Input) ?? otherwise
    )
    // To node zero is no limit.
    return given === Number.POSITIVE_INFINITY ? 0 : Math.max(1, Math.ceil(given))
  }
  const connections = countUnsafe("the limit connections of the server", limits.connections ?? 10_000, 1)
  const headersTimeout = millis("headers", "20 seconds")
  return {
    options: {
      headersTimeout,
      requestTimeout: millis("request", "2 minutes"),
      keepAliveTimeout: millis("keepAlive", "5 seconds"),
      connectionsCheckingInterval: millis("checkEvery", "1 second"),
      maxHeaderSize: countUnsafe("the limit headerBytes of the server", limits.headerBytes ?? 16 * 1024, 1),
      keepAlive: true,
      keepAliveInitialDelay: millis("tcpKeepAlive", "60 seconds"),
      noDelay: true
    },
    apply: (server, halfClose) => {
      if (connections !== Number.POSITIVE_INFINITY) server.maxConnections = connections
      if (halfClose === "stays") allowHalfOpen(server)
    }
  }
}
