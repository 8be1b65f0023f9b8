import { createServer } from "node:http"
import type { Report, Signals } from "@curfew/shutdown"
import type * as Duration from "effect/Duration"
import type { EdgeOptions, HandlerOptions } from "./EdgeOptions.ts"
import { knownAs, mechanismOf } from "./internal/edges.ts"
import { type Held, hold, listen } from "./internal/holding.ts"
import type { NodeEdge, NodeServer, PlainHandler, StopReport } from "./NodeEdge.ts"
import { type ServerLimits, serverOptions } from "./ServerLimits.ts"

/**
 * How an edge without an Effect program ends.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EndOptions {
  /** How long requests may end by themselves. Default: 20 seconds. */
  readonly drain?: Duration.Input | undefined
  /** How long cancelled requests may clean up. Default: 8 seconds. */
  readonly force?: Duration.Input | undefined
  /** What begins the end, and hurries it on: `processSignals()` of `@curfew/shutdown/Node`. Default: nothing but `shutdown`. */
  readonly signals?: Signals | undefined
  /** Is given what became of the requests, once. Default: a line in the log. */
  readonly onStopped?: ((report: StopReport) => void) | undefined
}

/**
 * An edge for plain code.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface PlainEdge extends NodeEdge, AsyncDisposable {
  /** Lets a server take part in the shutdown. */
  readonly attach: (server: NodeServer) => void
  /**
   * Ends it in stages: stop accepting, drain, cancel with 503, abandon and report. Called again, it moves on to the next
   * stage. Resolves within drain and force, with the report.
   */
  readonly shutdown: () => Promise<Report.Report>
  /** The report, once it has ended, whatever began that. */
  readonly ended: Promise<Report.Report>
}

/**
 * Makes an edge for plain code, with an owner and a shutdown of its own.
 *
 * **Guarantees**
 *
 * - **Bounded (L43)**: `shutdown` resolves within drain and force, whatever handlers do; idle connections do not delay it.
 *
 * **When cancelled**
 *
 * It is not cancelled with anybody: it ends by `shutdown`, by disposing it, or by its signals.
 *
 * **Example**
 *
 * ```ts
 * import { createServer } from "node:http"
 * import { nodeEdge } from "@curfew/http"
 *
 * await using edge = nodeEdge({ deadline: "5 seconds" })
 * const server = createServer(edge.handle(async (_request, response) => response.end("hello")))
 * edge.attach(server)
 * await new Promise<void>((listening) => server.listen(0, listening))
 * const { port } = server.address() as { port: number }
 * await (await fetch(`http://localhost:${port}`)).text() // => "hello"
 * ```
 *
 * @see serve which makes the server as well.
 * @stability unstable
 * @since 0.1.0
 */
export const nodeEdge = (options: EdgeOptions & EndOptions = {}): PlainEdge => toPlain(hold(options))

const toPlain = (held: Held): PlainEdge =>
  knownAs(
    {
      ...methodsOf(held.edge),
      get inFlight() {
        return held.edge.inFlight
      },
      attach: held.attach,
      shutdown: held.shutdown,
      ended: held.ended,
      [Symbol.asyncDispose]: held.dispose
    },
    mechanismOf(held.edge)
  )

const methodsOf = ({ from, handle, name }: NodeEdge) => ({ name, handle, from })

/**
 * A server that listens.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Serving extends PlainEdge {
  readonly server: ReturnType<typeof createServer>
  readonly port: number
}

/**
 * Serves a handler by node:http, on a port.
 *
 * **Guarantees**
 *
 * - **Slow clients have limits**: see {@link ServerLimits}; each ends in the right status and a closed connection.
 * - **Bounded (L43)**: as {@link nodeEdge}.
 *
 * **When cancelled**
 *
 * As {@link nodeEdge}.
 *
 * **Example**
 *
 * ```ts
 * import { serve } from "@curfew/http"
 *
 * await using server = await serve((_request, response) => response.end("hello"))
 * await (await fetch(`http://localhost:${server.port}`)).text() // => "hello"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const serve = (
  handler: PlainHandler,
  options: EdgeOptions &
    EndOptions &
    Pick<HandlerOptions, "route" | "kind"> & {
      /** Default: one that is free. */
      readonly port?: number | undefined
      /** Default: every interface. */
      readonly host?: string | undefined
      readonly server?: ServerLimits | undefined
    } = {}
): Promise<Serving> => {
  const made = serverOptions(options.server)
  const held = hold(options)
  const server = createServer(
    made.options,
    held.edge.handle(handler, { route: options.route, kind: options.kind })
  )
  made.apply(server, options.halfClose)
  held.attach(server)
  return listen(held, server, options, (port) => Object.assign(toPlain(held), { server, port }))
}
