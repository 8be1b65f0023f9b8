/**
 * The port for tunnels. Its calls do not end by themselves, so it takes no part in a drain; the tunnels are closed by
 * their own service before it.
 *
 * **Invariants**
 * 1. What was bound is given back, within a limit.
 */
import { BindError } from "@curfew/grpc"
import { moveOnAfter } from "@curfew/scope"
import { Server, type ServerCredentials, type ServerOptions } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Address } from "./values.ts"

/** Makes a server and ends it with the scope. */
export const tunnelServer = (options: ServerOptions): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Server(options)),
    (server) => {
      const ended = Effect.callback<void>((resume) => server.tryShutdown(() => resume(Effect.void)))
      return Effect.andThen(
        moveOnAfter("2 seconds")(ended),
        Effect.sync(() => server.forceShutdown())
      )
    }
  )

/** Binds a server; gives the port. */
export const bind = (
  server: Server,
  at: Address,
  credentials: ServerCredentials
): Effect.Effect<number, BindError> =>
  Effect.uninterruptible(
    Effect.callback<number, BindError>((resume) => {
      const failed = (cause: Error) => resume(Effect.fail(new BindError({ address: at.text, cause })))
      try {
        server.bindAsync(at.text, credentials, (cause, port) =>
          cause === null ? resume(Effect.succeed(port)) : failed(cause)
        )
      } catch (error) {
        failed(error as Error)
      }
    })
  )
