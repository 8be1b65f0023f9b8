import type { Departure } from "./Disconnects.ts"
import { departures } from "./internal/departures.ts"

/**
 * What the clients of the HTTP matrix need: the port of a server on 127.0.0.1.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface HttpLink {
  readonly port: number
}

/**
 * How clients leave over HTTP/1.1: before the request is complete, while the handler runs (by a reset, by an
 * `AbortSignal`, by a FIN, as a process that is killed, with a large body unread), in the second request of a connection,
 * in a streamed answer, after the answer. For `disconnectMatrix`.
 *
 * **When cancelled**
 *
 * The client's socket is destroyed, and its process killed.
 *
 * **Example**
 *
 * ```ts
 * import { httpDisconnects } from "@curfew/testing/httpDisconnects"
 *
 * httpDisconnects.filter(({ at }) => at === "streaming").length // => 1
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const httpDisconnects: ReadonlyArray<Departure<HttpLink>> = departures
