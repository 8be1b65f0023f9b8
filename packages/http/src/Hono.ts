import type { Handler as Marked } from "@curfew/request"
import type { Context, Env, Handler } from "hono"
import type { HandlerOptions } from "./EdgeOptions.ts"
import type { Exchange } from "./Exchange.ts"
import { type Deferred, deferred } from "./internal/bridge.ts"
import { mechanismOf } from "./internal/edges.ts"
import { alreadySent, type Bindings } from "./internal/honoServer.ts"
import type { PlainRoute } from "./internal/lightNode.ts"
import type { NodeEdge } from "./NodeEdge.ts"

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
  const route: PlainRoute<Context<E, P>, undefined, Deferred<Response>> = {
    spec: mechanism.specify(handler as Marked, options),
    name: options?.route ?? (handler.name || undefined),
    handle: (context, _, exchange) => handler(context, exchange),
    value: (response, { resolve }) => resolve(response as Response),
    hooks: (_context, _, { reject, resolve }) => ({
      value: (response) => resolve(response as Response),
      failure: reject,
      withhold: () => resolve(alreadySent())
    })
  }
  return (context: Context<E, P>): Promise<Response> => {
    const { incoming, outgoing } = (context.env ?? {}) as Partial<Bindings>
    if (incoming === undefined || outgoing === undefined) throw new TypeError(notNode)
    const answer = deferred<Response>()
    mechanism.startPlain({
      route,
      request: incoming,
      response: outgoing,
      first: context,
      second: undefined,
      third: answer
    })
    return answer.promise
  }
}

const notNode =
  "The request did not come by @hono/node-server; use fetchHandler of @curfew/http/Web on this runtime."
