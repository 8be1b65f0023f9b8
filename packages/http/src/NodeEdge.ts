import type { IncomingMessage, ServerResponse } from "node:http"
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2"
import type { Handler } from "@curfew/request"
import type { Owner } from "@curfew/scope"
import { millisUnsafe } from "@curfew/scope/Argument"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { EdgeOptions, HandlerOptions } from "./EdgeOptions.ts"
import type { Exchange } from "./Exchange.ts"
import { Edge } from "./internal/edge.ts"
import { knownAs } from "./internal/edges.ts"
import { exchangeOf } from "./internal/handling.ts"
import type { PlainRoute } from "./internal/lightNode.ts"
import { attach as attachTo, type NodeServer, type StopReport } from "./internal/listening.ts"
import type { NodeRequest, NodeResponse } from "./internal/peer.ts"

export type { NodeRequest, NodeResponse, NodeServer, StopReport }

/**
 * What node calls with each request, over HTTP/1.1 or 2.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Listener {
  (request: IncomingMessage, response: ServerResponse): void
  (request: Http2ServerRequest, response: Http2ServerResponse): void
}

/**
 * A handler in plain code. Its promise is the handler's life; what it still sends after that is waited for.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type PlainHandler<Req = IncomingMessage, Res = ServerResponse> = (
  request: Req,
  response: Res,
  exchange: Exchange
) => unknown

/**
 * What the requests of one server share: an owner, a policy, limits, records, a shutdown.
 *
 * @see make for one in an Effect program, nodeEdge for one without.
 * @stability unstable
 * @since 0.1.0
 */
export interface NodeEdge {
  readonly name: string
  /** How many requests are under way, handlers that outlive their answers included. */
  readonly inFlight: number
  /** A promise handler as a listener. A mark that it carries (`cancellable`) counts. */
  readonly handle: (handler: PlainHandler, options?: HandlerOptions) => Listener
  /** A request as a value, for a block: `await using exchange = edge.from(request, response)`. */
  readonly from: (request: NodeRequest, response: NodeResponse, options?: HandlerOptions) => Exchange
}

/**
 * An edge of an Effect program.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EffectEdge extends NodeEdge {
  /** An effect as a listener. It answers by the response, and has the services of where the edge was made. */
  readonly handleEffect: <E>(
    handler: (request: NodeRequest, response: NodeResponse) => Effect.Effect<unknown, E, Owner>,
    options?: HandlerOptions
  ) => Listener
  /** Lets a server take part: in the shutdown of the program, or at the end of the `Scope`. */
  readonly attach: (
    server: NodeServer,
    options?: {
      /** How long the end of the `Scope` waits for requests before it cancels them. Default: 20 seconds. */
      readonly drain?: Duration.Input | undefined
      readonly onStopped?: ((report: StopReport) => void) | undefined
      /** Whether the line in the log that says the same is left out. Default: false. */
      readonly quiet?: boolean | undefined
    }
  ) => Effect.Effect<void, never, Scope.Scope>
}

/**
 * Makes an edge. Its handlers run under the surrounding {@link Owner}.
 *
 * **Guarantees**
 *
 * - **One policy for all transports (L39)**: HTTP/1.1, HTTP/2 and the frameworks over them.
 * - **Completed is not cancelled (L40)**: an answer that is out to its last byte cancels nothing.
 * - **One record (L37)**: each request is told once, when its last user has gone; 499 when its client left.
 * - **Bounded (L43)**: with {@link EffectEdge.attach} the end comes within drain and force, whatever handlers do.
 *
 * **When cancelled**
 *
 * A cancel of the owner reaches the handlers, which are answered 503.
 *
 * **Example**
 *
 * ```ts
 * import { createServer } from "node:http"
 * import * as Effect from "effect/Effect"
 * import { NodeEdge } from "@curfew/http"
 * import { Owner } from "@curfew/scope"
 *
 * const program = Effect.gen(function* () {
 *   const edge = yield* NodeEdge.make()
 *   const server = createServer(edge.handle((_request, _response, exchange) => exchange.answer(200, "hello")))
 *   yield* edge.attach(server)
 *   yield* Effect.callback<void>((resume) => void server.listen(0, () => resume(Effect.void)))
 *   const { port } = server.address() as { port: number }
 *   return yield* Effect.promise(async () => (await fetch(`http://localhost:${port}`)).text())
 * })
 * await Effect.runPromise(Effect.provide(Effect.scoped(program), Owner.layer())) // => "hello"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const make = (options: EdgeOptions = {}): Effect.Effect<EffectEdge, never, Owner> =>
  Effect.map(Edge.make(options), (edge) => {
    const made: EffectEdge = {
      name: edge.name,
      get inFlight() {
        return edge.table.size
      },
      handle: (handler, given) => {
        const route: PlainRoute<NodeRequest, NodeResponse, undefined> = {
          spec: edge.specify(handler as Handler, given),
          name: given?.route ?? (handler.name || undefined),
          handle: handler as PlainHandler<NodeRequest, NodeResponse>
        }
        return (request: NodeRequest, response: NodeResponse) =>
          edge.startPlain({ route, request, response, first: request, second: response, third: undefined })
      },
      handleEffect: (handler, given) => {
        const spec = edge.specify(handler as Handler, given)
        return (request: NodeRequest, response: NodeResponse) =>
          edge.startNode(request, response, spec, () => ({
            // The task has the services of where the edge was made.
            handler: Effect.suspend(() => handler(request, response)) as Effect.Effect<unknown, unknown>
          }))
      },
      from: (request, response, given) => exchangeOf(edge, request, response, edge.specify(undefined, given)),
      attach: (server, given) =>
        Effect.suspend(() =>
          attachTo(edge, server, {
            drain: Duration.millis(millisUnsafe("the drain of the server", given?.drain ?? "20 seconds")),
            onStopped: given?.onStopped,
            quiet: given?.quiet
          })
        )
    }
    knownAs(made, edge)
    return made
  })

/**
 * The mechanism of an edge, for those who write adapters.
 *
 * @stability internal
 * @since 0.1.0
 */
export { mechanismOf } from "./internal/edges.ts"
