/**
 * A plain node:http server whose requests are handled by effects.
 *
 * Invariants
 * 1. A handler's fiber belongs to the server's scope, which interrupts it and waits for it before the server closes.
 * 2. A request counts as left when its connection closes before the answer was handed over to the last byte.
 * 3. The answer is ended with the handler, whichever way that ends, unless the handler ended it.
 */
import { createServer, type Server } from "node:http"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import type { Exchange, NodeHttpOptions, Watch } from "../http.ts"

const listening: Effect.Effect<Server, never, Scope.Scope> = /* @__PURE__ */ Effect.acquireRelease(
  Effect.callback<Server>((resume) => {
    const server = createServer()
    server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
  }),
  (server) =>
    Effect.callback<void>((resume) => {
      server.close(() => resume(Effect.void))
      server.closeAllConnections()
    })
)

export const serveNode = <R>(
  handle: (exchange: Exchange) => Effect.Effect<unknown, unknown, R>,
  options: NodeHttpOptions,
  watch: Watch
): Effect.Effect<Server, never, R | Scope.Scope> =>
  Effect.gen(function* () {
    const server = yield* listening
    const fibers = yield* FiberSet.make<unknown, unknown>()
    const run = yield* FiberSet.runtime(fibers)<R>()
    server.on("request", (request, response) => {
      const told: Array<() => void> = []
      let gone = false
      response.on("close", () => {
        if (response.writableFinished) return
        gone = true
        for (const tell of told) tell()
      })
      // What the client has left behind is no error of the server's.
      request.on("error", () => undefined)
      response.on("error", () => undefined)
      const exchange: Exchange = {
        request,
        response,
        onGone: (tell) => {
          if (gone) tell()
          else told.push(tell)
        }
      }
      const handled = Effect.onExit(handle(exchange), (exit) =>
        Effect.sync(() => {
          if (response.writableEnded || response.destroyed) return
          if (Exit.isFailure(exit) && !response.headersSent) response.statusCode = 500
          response.end()
        })
      )
      const fiber = run(watch(handled))
      if ((options.whenGone ?? "interrupt") === "interrupt") exchange.onGone(() => fiber.interruptUnsafe())
    })
    return server
  })
