import type { CancelScope } from "@curfew/promise"
import type { Handler } from "@curfew/request"
import type { HandlerOptions } from "./EdgeOptions.ts"
import { type Deferred, deferred } from "./internal/bridge.ts"
import type { Edge } from "./internal/edge.ts"
import { mechanismOf } from "./internal/edges.ts"
import { alreadySent, bindingsOf } from "./internal/honoServer.ts"
import type { PlainRoute } from "./internal/lightNode.ts"
import { startWeb } from "./internal/web.ts"
import type { NodeEdge } from "./NodeEdge.ts"

/**
 * A web-standard handler behind an edge: the client's leaving is what `request.signal` says, or node's own response, where
 * the runtime hands that over beside the request, as `@hono/node-server` does.
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
): ((request: Request, environment?: unknown) => Promise<Response>) => {
  const mechanism = mechanismOf(edge)
  const spec = mechanism.specify(handler as Handler, options)
  const route = onNode(mechanism, handler, options)
  return (request, environment) => {
    const bindings = bindingsOf(environment)
    if (bindings === undefined) return startWeb(mechanism, spec, request, handler)
    const answer = deferred<Response>()
    mechanism.startPlain({
      route,
      request: bindings.incoming,
      response: bindings.outgoing,
      first: request,
      second: undefined,
      third: answer
    })
    return answer.promise
  }
}

/** The same handler where the runtime hands over node's own request and response. Its body is the runtime's all the same. */
const onNode = (
  mechanism: Edge,
  handler: (request: Request, scope: CancelScope) => Response | PromiseLike<Response>,
  options: HandlerOptions | undefined
): PlainRoute<Request, undefined, Deferred<Response>> => ({
  spec: mechanism.specify(handler as Handler, {
    ...options,
    body: "ignore",
    bodyBytes: Number.POSITIVE_INFINITY
  }),
  name: options?.route ?? (handler.name || undefined),
  handle: (request, _, scope) => handler(request, scope),
  value: (response, { resolve }) => resolve(response as Response),
  hooks: (_request, _, { resolve }) => ({
    value: (response) => resolve(response as Response),
    withhold: () => resolve(alreadySent())
  })
})
