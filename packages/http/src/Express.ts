import type { Handler } from "@curfew/request"
import type { NextFunction, Request, RequestHandler, Response } from "express"
import type { HandlerOptions } from "./EdgeOptions.ts"
import { mechanismOf } from "./internal/edges.ts"
import type { PlainRoute } from "./internal/lightNode.ts"
import type { NodeEdge, PlainHandler } from "./NodeEdge.ts"

/**
 * A handler for Express 5 behind an edge.
 *
 * **Guarantees**
 *
 * - **The right event**: the client's leaving is read off the response, not off `req.on("close")`, which also fires when
 *   a body parser has read the body.
 * - **Express answers failures**: they go to `next`. A deadline (504), a limit and a shutdown (503) the edge answers itself,
 *   and nobody answers a client that has gone.
 *
 * **When cancelled**
 *
 * As `handle` of the edge: by the policy of the handler.
 *
 * **Example**
 *
 * ```ts
 * import express from "express"
 * import { nodeEdge } from "@curfew/http"
 * import { route } from "@curfew/http/Express"
 * import { cancellable } from "@curfew/request"
 *
 * await using edge = nodeEdge()
 * const search = cancellable(async (request: express.Request, response: express.Response) => {
 *   response.json({ id: request.params["id"] })
 * })
 * const server = express().get("/search/:id", route(edge, search)).listen(0)
 * edge.attach(server)
 * const { port } = server.address() as { port: number }
 * await (await fetch(`http://localhost:${port}/search/7`)).text() // => '{"id":"7"}'
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const route = (
  edge: NodeEdge,
  handler: PlainHandler<Request, Response>,
  options?: HandlerOptions
): RequestHandler => {
  const mechanism = mechanismOf(edge)
  const route: PlainRoute<Request, Response, NextFunction> = {
    spec: mechanism.specify(handler as Handler, options),
    name: options?.route ?? (handler.name || undefined),
    handle: handler,
    hooks: (_request, _response, failure) => ({ failure })
  }
  return (request: Request, response: Response, next: NextFunction): void =>
    mechanism.startPlain({ route, request, response, first: request, second: response, third: next })
}
