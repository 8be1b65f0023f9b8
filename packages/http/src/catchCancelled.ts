import { caughtIf } from "./internal/bridge.ts"
import { isOwn, willCatch } from "./internal/own.ts"
import type { NodeRequest, NodeResponse } from "./NodeEdge.ts"

/**
 * Puts up with the cancellation of a request: around a listener whose blocks begin with `fromNode`.
 *
 * **Guarantees**
 *
 * - **Its own alone**: a `Cancelled` with which a block of this very request was left ends here, because its client has gone
 *   or the edge has answered. Anything else goes on to where it went before, the `Cancelled` of somebody else's work too.
 * - **What is refused does not begin**: over a body that is too large, at an edge that stops, `fromNode` throws in place
 *   of giving an exchange that is over, and nothing behind it runs.
 *
 * **When cancelled**
 *
 * The promise of the listener resolves with nothing, when its clean-up has run.
 *
 * **Gotchas**
 *
 * It catches outside of what the listener catches: where that answers 500 to whatever is thrown in it, put this around the
 * route instead.
 *
 * **Example**
 *
 * ```ts
 * import { createServer } from "node:http"
 * import { catchCancelled, fromNode, nodeEdge } from "@curfew/http"
 *
 * await using edge = nodeEdge({ deadline: "10 millis" })
 * const server = createServer(
 *   catchCancelled(async (request, response) => {
 *     await using exchange = fromNode(request, response, { edge, policy: "cancel" })
 *     while (true) await exchange.checkpoint()
 *   })
 * )
 * edge.attach(server)
 * await new Promise<void>((listening) => server.listen(0, listening))
 * const { port } = server.address() as { port: number }
 * const { status } = await fetch(`http://localhost:${port}`)
 * status // => 504
 * ```
 *
 * @see NodeEdge.handle for a listener that is given its exchange.
 * @stability unstable
 * @since 0.1.0
 */
export const catchCancelled =
  <Req extends NodeRequest, Res extends NodeResponse, Rest extends ReadonlyArray<unknown>>(
    listener: (request: Req, response: Res, ...rest: Rest) => unknown
  ): ((request: Req, response: Res, ...rest: Rest) => unknown) =>
  (request, response, ...rest) => {
    willCatch(response)
    return caughtIf(
      () => listener(request, response, ...rest),
      (error) => isOwn(response, error)
    )
  }
