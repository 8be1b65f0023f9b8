import type { Handler } from "@curfew/request"
import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from "fastify"
import type { HandlerOptions } from "./EdgeOptions.ts"
import type { Exchange } from "./Exchange.ts"
import { type Deferred, deferred } from "./internal/bridge.ts"
import { mechanismOf } from "./internal/edges.ts"
import type { PlainRoute } from "./internal/lightNode.ts"
import type { NodeEdge } from "./NodeEdge.ts"

/**
 * A handler for Fastify 5 behind an edge. What it gives, Fastify sends.
 *
 * **Guarantees**
 *
 * - **The right event**: the client's leaving is read off the raw response, not off `request.signal`, which aborts on every
 *   request whose body was read, nor off `onRequestAbort`, which misses requests with a body.
 * - **Fastify answers failures**: its error handler gets them. A deadline (504), a limit and a shutdown (503) the edge
 *   answers itself, and nobody answers a client that has gone.
 *
 * **When cancelled**
 *
 * As `handle` of the edge: by the policy of the handler.
 *
 * **Gotchas**
 *
 * Fastify reads and parses a body before it calls a handler; until then nobody is told of a client that leaves.
 *
 * **Example**
 *
 * ```ts
 * import Fastify from "fastify"
 * import { nodeEdge } from "@curfew/http"
 * import { route } from "@curfew/http/Fastify"
 * import { cancellable } from "@curfew/request"
 *
 * await using edge = nodeEdge()
 * const app = Fastify()
 * app.get("/search", route(edge, cancellable(async () => ({ found: 1 }))))
 * await app.listen({ port: 0 })
 * edge.attach(app.server)
 * const { port } = app.server.address() as { port: number }
 * await (await fetch(`http://localhost:${port}/search`)).text() // => '{"found":1}'
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const route = (
  edge: NodeEdge,
  handler: (request: FastifyRequest, reply: FastifyReply, exchange: Exchange) => unknown,
  options?: HandlerOptions
): RouteHandlerMethod => {
  const mechanism = mechanismOf(edge)
  const route: PlainRoute<FastifyRequest, FastifyReply, Deferred<unknown>> = {
    spec: mechanism.specify(handler as Handler, options),
    name: options?.route ?? (handler.name || undefined),
    handle: handler,
    value: (value, { resolve }) => resolve(value),
    hooks: (_request, reply, { reject, resolve }) => ({
      value: resolve,
      failure: reject,
      // Its promise ends, and Fastify takes its hands off the response.
      withhold: () => {
        if (!reply.sent) reply.hijack()
        resolve(undefined)
      }
    })
  }
  return (request: FastifyRequest, reply: FastifyReply): Promise<unknown> => {
    const answer = deferred<unknown>()
    mechanism.startPlain({
      route,
      request: request.raw,
      response: reply.raw,
      first: request,
      second: reply,
      third: answer
    })
    return answer.promise
  }
}
