import type { IncomingMessage } from "node:http"
import type { CancelScope } from "@curfew/promise"
import type { Handler } from "@curfew/request"
import type { WebSocket, WebSocketServer } from "ws"
import type { HandlerOptions } from "./EdgeOptions.ts"
import type { Delivery } from "./Exchange.ts"
import { mechanismOf } from "./internal/edges.ts"
import { startSocket } from "./internal/socket.ts"
import type { NodeEdge } from "./NodeEdge.ts"

/**
 * The life of one socket.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SocketScope extends CancelScope {
  /** Sends a message, and resolves when it was handed to the system or nobody is there to take it. */
  readonly send: (message: string | Uint8Array) => Promise<Delivery>
}

/**
 * Runs a handler for each socket of a `WebSocketServer` of `ws`: the socket's life is a cancel scope of an edge.
 *
 * | the handler | the socket is closed with |
 * | --- | --- |
 * | ends | 1000 |
 * | fails | 1011 |
 * | is cancelled by a shutdown | 1001 |
 * | is cancelled by a deadline | 1008 |
 * | is cancelled by a limit | 1013 |
 * | is cancelled by its client, which has closed the socket or has gone | nothing: nobody reads it |
 *
 * **Guarantees**
 *
 * - **The policy holds (L39)**: without a mark it is `cancel`: a socket is a stream.
 * - **A value, not an exception (L41)**: `send` to a client that has gone is `PeerGone`.
 * - **Part of the shutdown (L43)**: an open socket is drained like a request, then closed, then destroyed.
 * - **Silence is noticed**: with a `heartbeat` a client that answers no ping has gone.
 *
 * **When cancelled**
 *
 * The handler's clean-up runs, then the socket is closed by the table above, and destroyed when its client does not close it
 * within a second.
 *
 * **Example**
 *
 * ```ts
 * import { once } from "node:events"
 * import { serve } from "@curfew/http"
 * import { onSocket } from "@curfew/http/WebSocket"
 * import { WebSocketServer } from "ws"
 *
 * const server = await serve((_request, response) => response.writeHead(426).end())
 * const sockets = new WebSocketServer({ server: server.server })
 * onSocket(server, sockets, async (_socket, scope) => scope.send("hello"))
 * const client = new WebSocket(`ws://localhost:${server.port}`)
 * const [message] = await once(client, "message")
 * message.data // => "hello"
 * const [closed] = await once(client, "close")
 * closed.code // => 1000
 * await server.shutdown()
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const onSocket = (
  edge: NodeEdge,
  sockets: WebSocketServer,
  handler: (socket: WebSocket, scope: SocketScope, request: IncomingMessage) => unknown,
  options?: Pick<HandlerOptions, "route" | "policy" | "deadline" | "heartbeat">
): void => {
  const mechanism = mechanismOf(edge)
  const spec = mechanism.specify(handler as Handler, { ...options, kind: "stream" })
  sockets.on("connection", (socket, request) =>
    startSocket(mechanism, spec, socket, request, (scope) => handler(socket, scope, request))
  )
}
