import type { IncomingMessage, ServerResponse } from "node:http"
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2"
import type { Handler as Marked } from "@curfew/request"
import type { Context, Env, Handler } from "hono"
import type { HandlerOptions } from "./EdgeOptions.ts"
import type { Exchange } from "./Exchange.ts"
import { deferred } from "./internal/bridge.ts"
import { mechanismOf } from "./internal/edges.ts"
import type { NodeEdge } from "./NodeEdge.ts"

/** What `@hono/node-server` puts into the environment of a request. */
interface Bindings {
  readonly incoming?: IncomingMessage | Http2ServerRequest
  readonly outgoing?: ServerResponse | Http2ServerResponse
}

/**
 * A handler for Hono on `@hono/node-server` behind an edge. Its response, Hono sends.
 *
 * **Guarantees**
 *
 * - **The right event**: the client's leaving is read off the response of node, and a body is read ahead, so that it is
 *   heard where `c.req.raw.signal` is deaf: behind a large body that nobody reads.
 * - **Hono answers failures**: `onError` gets them. A deadline (504), a limit and a shutdown (503) are answered by the edge.
 *
 * **When cancelled**
 *
 * As `handle` of the edge: by the policy of the handler.
 *
 * **Gotchas**
 *
 * On other runtimes a request has no response of node's: use `fetchHandler` of `@curfew/http/Web` there.
 *
 * **Example**
 *
 * ```ts
 * import { createAdaptorServer } from "@hono/node-server"
 * import { type Context, Hono } from "hono"
 * import { nodeEdge } from "@curfew/http"
 * import { route } from "@curfew/http/Hono"
 * import { cancellable } from "@curfew/request"
 *
 * await using edge = nodeEdge()
 * const search = cancellable(async (c: Context) => c.text("found"))
 * const app = new Hono().get("/search", route(edge, search))
 * const server = createAdaptorServer(app)
 * edge.attach(server)
 * await new Promise<void>((listening) => server.listen(0, listening))
 * const { port } = server.address() as { port: number }
 * await (await fetch(`http://localhost:${port}/search`)).text() // => "found"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const route = <E extends Env = Env, P extends string = string>(
  edge: NodeEdge,
  handler: (context: Context<E, P>, exchange: Exchange) => Response | PromiseLike<Response>,
  options?: HandlerOptions
): Handler<E, P> => {
  const mechanism = mechanismOf(edge)
  const spec = mechanism.specify(handler as Marked, options)
  const name = options?.route ?? (handler.name || undefined)
  return (context: Context<E, P>): Promise<Response> => {
    const { incoming, outgoing } = (context.env ?? {}) as Bindings
    if (incoming === undefined || outgoing === undefined) throw new TypeError(notNode)
    const { promise, reject, resolve } = deferred<Response>()
    mechanism.startPlain({
      request: incoming,
      response: outgoing,
      spec,
      name,
      handle: (exchange) => handler(context, exchange),
      hooks: {
        value: (response) => resolve(response as Response),
        failure: reject,
        withhold: () => resolve(alreadySent())
      }
    })
    return promise
  }
}

/** By its header the server of Hono knows that the response of node is somebody else's to write. */
const alreadySent = (): Response => {
  const response = new Response(null, { headers: { "x-hono-already-sent": "true" } })
  // That server puts a class of its own in the place of `Response`, and looks at the header only once this was asked.
  return response.body === null ? response : new Response(null)
}

const notNode =
  "The request did not come by @hono/node-server; use fetchHandler of @curfew/http/Web on this runtime."
