import type { IncomingMessage, ServerResponse } from "node:http"
import type { Server } from "node:net"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { defaults } from "./internal/defaults.ts"
import { remoteOf } from "./internal/httpClient.ts"
import { serveNode } from "./internal/nodeHttp.ts"
import { remoteSweep } from "./internal/remote.ts"
import type { SweepReport } from "./SweepReport.ts"

/**
 * Marks the effect that handles a request: its end is waited for.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Watch = <A, E, R>(handler: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * Starts a server with the handler under test, on a port of 127.0.0.1, and stops it when the scope closes: the driver.
 * Any framework will do that gives its `net.Server` out. The handlers have to run in the context of this effect, which
 * holds the scheduler and the clock of the sweep, and inside of `watch`.
 *
 * @see nodeHttp for node:http.
 * @stability unstable
 * @since 0.1.0
 */
export type Serve<E = never, R = never> = (watch: Watch) => Effect.Effect<Server, E, R | Scope.Scope>

/**
 * The request that is made, again and again.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface HttpCall {
  /** Default: GET. */
  readonly method?: string | undefined
  /** Default: /. */
  readonly path?: string | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly body?: string | Uint8Array | undefined
  /** Whether the body is never finished: more of it would follow. Default: false. */
  readonly unfinished?: boolean | undefined
}

/**
 * What a client got.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface HttpAnswer {
  /** 0 when there was no answer. */
  readonly status: number
  /** As far as it came; without an answer the code of the error. */
  readonly body: string
  /** Whether that is the whole answer. */
  readonly complete: boolean
}

/**
 * How a client leaves. `reset`: its socket is destroyed with an RST. `abort`: the `AbortSignal` of its request fires.
 * `halfClose`: it sends its FIN, and would still read.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type HttpWay = "reset" | "abort" | "halfClose"

/**
 * How far a sweep over a connection goes. Every option has a default.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface HttpSweepOptions {
  /** Stands in the report, and is what `expectSwept` looks for. */
  readonly name?: string | undefined
  readonly request?: HttpCall | undefined
  /** How the client leaves. `response`: a reset at each part of the answer. Default: `reset`, `abort`, `response`. */
  readonly modes?: ReadonlyArray<HttpWay | "response"> | undefined
  /** `fresh`: a server for each run. `kept`: one for all. Default: both. */
  readonly states?: ReadonlyArray<"fresh" | "kept"> | undefined
  /** Virtual time that work may go on after its request before it counts as left. Default: none. */
  readonly settle?: Duration.Input | undefined
  /** Real time to wait before a standstill is called one. Default: 100 milliseconds. */
  readonly patience?: Duration.Input | undefined
  /** The last step at which the client leaves. Default: 20,000. */
  readonly maxSteps?: number | undefined
  /** Called before each run. */
  readonly onProgress?:
    | ((progress: {
        readonly mode: string
        readonly state: string
        readonly step: number
        readonly of: number
      }) => void)
    | undefined
}

/**
 * Destroys the client's connection at every step: sends the same request again and again over a real socket, and lets
 * the client leave one step of the handler's fibers later each time, until a request is answered before that.
 *
 * **Guarantees**
 *
 * - **Every place**: each operation of each fiber of the request is a step.
 * - **Heard at that step**: nothing of the server runs on until its end of the connection knows; for a bounded number
 *   of turns, where it does not.
 * - **Each run is checked**: the handler ends, no fiber and no connection is left, the probes hold, and a normal request
 *   on a new connection afterwards is answered as before.
 * - **No waiting**: time is virtual, and moves only when the sockets have been silent for some turns of the event loop.
 *
 * **When cancelled**
 *
 * The run that is under way is abandoned, and none of its fibers runs again.
 *
 * **Gotchas**
 *
 * A server whose handlers do not run in the context of `serve` has no steps. What a server keeps beyond its requests
 * belongs to the scope of `serve`. Needs Node.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Probe } from "@curfew/testing"
 * import { nodeHttp, type Serve, sweepHttp } from "@curfew/testing/http"
 *
 * const server: Serve = (watch) =>
 *   Effect.flatMap(Probe.resource("row lock"), (lock) =>
 *     nodeHttp(({ response }) =>
 *       Effect.gen(function* () {
 *         yield* lock.acquire
 *         yield* Effect.sleep("1 second") // wrong: when the client leaves here, the lock stays
 *         yield* lock.release
 *         response.end("done")
 *       })
 *     )(watch)
 *   )
 * const report = await Effect.runPromise(sweepHttp(server))
 * report.findings[0]?.message // => "1 row lock acquired and not released"
 * ```
 *
 * @see sweep for the same without a connection.
 * @stability unstable
 * @since 0.1.0
 */
export const sweepHttp = <E, R>(
  serve: Serve<E, R>,
  options: HttpSweepOptions = {}
): Effect.Effect<SweepReport, E, Exclude<R, Scope.Scope>> => {
  const modes = options.modes ?? (["reset", "abort", "response"] as const)
  const swept = Effect.contextWith((context: Context.Context<never>) =>
    remoteSweep<HttpWay, E>({
      name: options.name,
      context,
      serve: (watch) =>
        Effect.map(serve(watch) as Effect.Effect<Server, E, Scope.Scope>, (server) =>
          remoteOf(server, options.request ?? {})
        ),
      stage: {
        ...defaults({ settle: options.settle }),
        live: true,
        quietTurns: 25,
        deadlockPatience: defaults({ patience: options.patience ?? 100 }).patience
      },
      ways: modes.filter((mode) => mode !== "response"),
      arrivals: modes.includes("response") ? { way: "reset", mode: "response" } : undefined,
      states: options.states ?? (["fresh", "kept"] as const),
      maxSteps: options.maxSteps ?? 20_000,
      onTrial: (mode, state, step, of) => options.onProgress?.({ mode, state, step, of })
    })
  )
  return swept as Effect.Effect<SweepReport, E, Exclude<R, Scope.Scope>>
}

/**
 * One request at a node:http server, as its handler sees it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Calls back when the connection closes before the answer was handed over; at once, when it has. */
  readonly onGone: (tell: () => void) => void
}

/**
 * What the node:http driver does by itself.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface NodeHttpOptions {
  /** `interrupt`: the handler's fiber. `tell`: nobody but those who asked by `onGone`. Default: `interrupt`. */
  readonly whenGone?: "interrupt" | "tell" | undefined
}

/**
 * The driver for node:http: each request runs an effect, in a fiber that belongs to the server.
 *
 * **When cancelled**
 *
 * Closing the scope interrupts the handlers, waits for them, and destroys the connections.
 *
 * @see sweepHttp
 * @stability unstable
 * @since 0.1.0
 */
export const nodeHttp =
  <R = never>(
    handle: (exchange: Exchange) => Effect.Effect<unknown, unknown, R>,
    options: NodeHttpOptions = {}
  ): Serve<never, R> =>
  (watch) =>
    serveNode(handle, options, watch)
