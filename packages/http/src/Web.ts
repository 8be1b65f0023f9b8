import type { CancelScope } from "@curfew/promise"
import type { Handler } from "@curfew/request"
import type { HandlerOptions } from "./EdgeOptions.ts"
import { mechanismOf } from "./internal/edges.ts"
import { startWeb } from "./internal/web.ts"
import type { NodeEdge } from "./NodeEdge.ts"

/**
 * A web-standard handler behind an edge: the client's leaving is what `request.signal` says.
 *
 * **Guarantees**
 *
 * - **The policy holds (L39)**: under `cancel` the scope is cancelled by the signal, under `shield` it is not.
 * - **Each end has its status (L48)**: 504 at a deadline, 503 at a shutdown, 500 for a failure.
 * - **A streamed body is part of it**: the request has ended when the body of its response was read to the end, or
 *   cancelled by the runtime.
 *
 * **When cancelled**
 *
 * The promise gives a response in any case; one of 499 goes to nobody.
 *
 * **Gotchas**
 *
 * A signal says what the runtime makes of it. Where one aborts after every answer, that is no cancel here, because the answer
 * was given before; where one aborts when the body was read, nothing can tell, and the adapter for that framework is the
 * better choice. No limit is put on the body, which the runtime owns.
 *
 * **Example**
 *
 * ```ts
 * import { nodeEdge } from "@curfew/http"
 * import { fetchHandler } from "@curfew/http/Web"
 * import { cancellable } from "@curfew/request"
 *
 * await using edge = nodeEdge({ deadline: "5 seconds" })
 * const handle = fetchHandler(edge, cancellable(async (request: Request) => new Response(request.method)))
 * const response = await handle(new Request("http://localhost/"))
 * await response.text() // => "GET"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const fetchHandler = (
  edge: NodeEdge,
  handler: (request: Request, scope: CancelScope) => Response | PromiseLike<Response>,
  options?: Omit<HandlerOptions, "body" | "bodyBytes" | "halfClose" | "heartbeat">
): ((request: Request) => Promise<Response>) => {
  const mechanism = mechanismOf(edge)
  const spec = mechanism.specify(handler as Handler, options)
  return (request) => startWeb(mechanism, spec, request, handler)
}
