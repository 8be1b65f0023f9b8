/**
 * Effect's server with the stages of the one for node.
 *
 * Invariants
 * 1. The fibers of requests belong to a scope of this module: its end is waited for within the clean-up budget, and
 *    what does not end then is left behind by name. Effect's own end would wait for it for ever.
 * 2. The stages run when the program that serves ends, before the server's own scope does: once, whoever comes first.
 * 3. What comes when the server has stopped is told so, and that its connection closes.
 */
import { createServer } from "node:http"
import { millisUnsafe } from "@curfew/scope/Argument"
import { boundedAt } from "@curfew/scope/bounded"
import { Shutdown } from "@curfew/shutdown"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpServer from "effect/http/HttpServer"
import type * as HttpServerError from "effect/http/HttpServerError"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Scope from "effect/Scope"
import type { EdgeServerOptions } from "../../EdgeServer.ts"
import { serverOptions } from "../../ServerLimits.ts"
import { Attached } from "../listening.ts"
import { Table } from "../table.ts"
import { enterAll } from "./places.ts"

export const staged = (
  options: EdgeServerOptions
): Effect.Effect<HttpServer.HttpServer["Service"], HttpServerError.ServeError, Scope.Scope> =>
  Effect.gen(function* () {
    const { drain = "20 seconds", halfClose, limits, name, onStopped, server: make, ...listen } = options
    const limited = serverOptions(limits)
    const server = make?.() ?? createServer(limited.options)
    limited.apply(server as never, halfClose)
    const table = new Table()
    enterAll(server, table)
    const serving = new Set<Scope.Closeable>()
    const held = { name: name ?? "HTTP", table }
    const attached = new Attached(held, server, {
      drain: Duration.millis(millisUnsafe("the drain of the server", drain)),
      onStopped,
      cancelling: Effect.suspend(() =>
        Effect.forEach([...serving], closeBounded(held.name), { concurrency: "unbounded", discard: true })
      )
    })
    const listener = Scope.makeUnsafe()
    // Registered before the address is bound: what was bound is always given back.
    yield* Effect.addFinalizer(() =>
      Effect.andThen(attached.end, closeBounded(`listener of ${held.name}`)(listener))
    )
    const inner = yield* Scope.provide(
      NodeHttpServer.make(() => server as never, {
        host: "127.0.0.1",
        ...listen,
        disablePreemptiveShutdown: true
      }),
      listener
    )
    if (name === undefined) held.name = `HTTP ${HttpServer.formatAddress(inner.address)}`
    yield* Shutdown.onStop(held.name, attached.stop)
    yield* Shutdown.onDrain(held.name, attached.drained)
    yield* Shutdown.onForce(held.name, Effect.andThen(attached.cancel, attached.breakOff))
    return HttpServer.make({
      address: inner.address,
      serve: (app, middleware) =>
        Effect.gen(function* () {
          const scope = Scope.makeUnsafe()
          serving.add(scope)
          yield* Effect.addFinalizer(() => attached.end)
          const guarded = Effect.suspend(() => (table.refusing ? Effect.succeed(stopped) : app))
          const served =
            middleware === undefined ? inner.serve(guarded) : inner.serve(guarded, middleware as never)
          yield* Effect.updateContext(Scope.provide(served, scope), roomy)
        }) as never
    })
  })

/**
 * A context that takes in what a request and its handler add to it. Each keeps some eight additions apart before it copies
 * all services; a request behind an edge makes a dozen.
 */
const roomy = <R>(context: Context.Context<R>): Context.Context<R> =>
  Context.makeUnsafe(context.mapUnsafe, { maxDepth: 24 })

const stopped = /* @__PURE__ */ HttpServerResponse.text("The server is shutting down.\n", {
  status: 503,
  headers: { connection: "close" }
})

const closeBounded =
  (name: string) =>
  (scope: Scope.Closeable): Effect.Effect<unknown> =>
    boundedAt(Scope.close(scope, Exit.void), { name: `requests of ${name}` })
