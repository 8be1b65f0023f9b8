import type { HandlerOptions } from "./EdgeOptions.ts"
import type { Exchange } from "./Exchange.ts"
import { type Held, hold } from "./internal/holding.ts"
import type { NodeEdge, NodeRequest, NodeResponse } from "./NodeEdge.ts"

let ofProcess: Held | undefined

/**
 * Gives a request of `node:http` a cancel scope: in the code that is there, with one line more.
 *
 * **Guarantees**
 *
 * - **The policy holds (L39)**: under `cancel` the scope is cancelled in the turn in which node knows that the client has
 *   gone; without a policy it is a shield, and `clientGone` tells.
 * - **Each end has its status (L48)**: a deadline is answered 504, a shutdown 503, a body over its limit 413, by itself,
 *   once the block has been left. A client that has gone is 499 in the record.
 * - **Noticed with bodies of any size up to the buffer**: see `body` in {@link HandlerOptions}.
 *
 * **When cancelled**
 *
 * As any cancel scope. Disposing waits for what was started in it.
 *
 * **Gotchas**
 *
 * A block that is left by a `Cancelled` rejects the promise of its function, and node's `request` event takes no promises:
 * put `catchCancelled` around it, or use `handle` of an edge, which knows what to answer. A request that is refused at its
 * start has an exchange that is `cancelled` already; inside of `catchCancelled` the block is left here. An exchange that is never disposed stays
 * under way. Without an edge it belongs to one of the process, which no shutdown ends: give yours.
 *
 * **Example**
 *
 * ```ts
 * import { createServer } from "node:http"
 * import { catchCancelled, fromNode, nodeEdge } from "@curfew/http"
 *
 * await using edge = nodeEdge({ deadline: "5 seconds" })
 * const server = createServer(
 *   catchCancelled(async (request, response) => {
 *     await using exchange = fromNode(request, response, { edge, policy: "cancel" })
 *     exchange.onCancel(() => console.log("given back"))
 *     for (let i = 0; i < 1000; i++) await exchange.checkpoint()
 *     exchange.answer(200, "done")
 *   })
 * )
 * edge.attach(server)
 * await new Promise<void>((listening) => server.listen(0, listening))
 * const { port } = server.address() as { port: number }
 * const answer = await (await fetch(`http://localhost:${port}`)).text() // => "done"
 * ```
 *
 * @see catchCancelled for what its block may throw.
 * @see nodeEdge for an edge with records, limits and a shutdown.
 * @stability unstable
 * @since 0.1.0
 */
export const fromNode = (
  request: NodeRequest,
  response: NodeResponse,
  options?: HandlerOptions & {
    /** Default: one of the process. */
    readonly edge?: NodeEdge | undefined
  }
): Exchange => {
  const { edge, ...rest } = options ?? {}
  if (edge !== undefined) return edge.from(request, response, rest)
  ofProcess ??= hold({})
  return ofProcess.edge.from(request, response, rest)
}
