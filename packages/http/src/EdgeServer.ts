import type { ListenOptions } from "node:net"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type * as NodeServices from "@effect/platform-node/NodeServices"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Etag from "effect/http/Etag"
import type * as HttpPlatform from "effect/http/HttpPlatform"
import * as HttpServer from "effect/http/HttpServer"
import type * as HttpServerError from "effect/http/HttpServerError"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { NodeServer, StopReport } from "./internal/listening.ts"
import { staged } from "./internal/router/staged.ts"
import type { ServerLimits } from "./ServerLimits.ts"

/**
 * How a server listens and how it stops.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EdgeServerOptions extends ListenOptions, Pick<NodeHttpServer.Options, "websocket"> {
  /** A server of node, not yet listening, in place of a plain one with `limits`: for TLS and HTTP/2. */
  readonly server?: (() => NodeServer) | undefined
  /** What clients may take: time, bytes, connections. */
  readonly limits?: ServerLimits | undefined
  /** Stands in the report of a shutdown. Default: `HTTP` and the address that was bound. */
  readonly name?: string | undefined
  /** How long requests may end by themselves where no shutdown has drained them. Default: 20 seconds. */
  readonly drain?: Duration.Input | undefined
  /** What a client means that sends its FIN and may still read. Say it to the edge, too. Default: `gone`. */
  readonly halfClose?: "gone" | "stays" | undefined
  /** Is given what became of the requests. It is logged in any case. */
  readonly onStopped?: ((report: StopReport) => void) | undefined
}

/**
 * Effect's HTTP server on node, as long as its `Scope` is open, with an end in stages.
 *
 * | stage | what happens |
 * | --- | --- |
 * | stop | no new connection; `Connection: close` on what is open; what is idle is closed; a request that still comes gets 503 |
 * | drain | requests run to their end, those that their clients left and nobody cancelled, too |
 * | force | those that are left are cancelled with `Shutdown` and answered 503 |
 * | end | what has not ended within the clean-up budget is left behind, by name; connections are broken off |
 *
 * **Guarantees**
 *
 * - **Nothing holds it up (L43)**: neither an idle connection nor a handler that ignores its interrupt, nor a client that
 *   does not read. Effect's own server waits for the last two for ever. It keeps the limits of a surrounding
 *   `Shutdown.run`, by its hooks.
 * - **One report**: what was drained, cancelled and left behind, by method and URL.
 *
 * **When cancelled**
 *
 * The end of what serves goes through the stages; the drain is skipped when a shutdown has had one.
 *
 * **Gotchas**
 *
 * `limits` belong to the plain server: one of your own has node's, or those that `serverOptions` gives. It listens on
 * 127.0.0.1 unless `host` says otherwise.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as HttpServer from "effect/http/HttpServer"
 * import { EdgeServer } from "@curfew/http/EdgeServer"
 *
 * const program = Effect.map(EdgeServer.make({ port: 0 }), ({ address }) => HttpServer.formatAddress(address))
 * const address = await Effect.runPromise(Effect.scoped(program))
 * address.startsWith("http://127.0.0.1:") // => true
 * ```
 *
 * @see HttpEdge.edge for the policies of routes.
 * @stability unstable
 * @since 0.1.0
 */
export const EdgeServer: {
  /** Listens until the `Scope` ends. */
  readonly make: (
    options: EdgeServerOptions
  ) => Effect.Effect<HttpServer.HttpServer["Service"], HttpServerError.ServeError, Scope.Scope>
  /** The server alone, as a layer. */
  readonly layerServer: (
    options: EdgeServerOptions
  ) => Layer.Layer<HttpServer.HttpServer, HttpServerError.ServeError>
  /** The server with what `HttpRouter.serve` needs beside it, as `NodeHttpServer.layer` has it. */
  readonly layer: (
    options: EdgeServerOptions
  ) => Layer.Layer<
    HttpServer.HttpServer | NodeServices.NodeServices | HttpPlatform.HttpPlatform | Etag.Generator,
    HttpServerError.ServeError
  >
} = {
  make: staged,
  layerServer: (options) => Layer.effect(HttpServer.HttpServer, staged(options)),
  layer: (options) =>
    Layer.merge(Layer.effect(HttpServer.HttpServer, staged(options)), NodeHttpServer.layerHttpServices)
}
