import type { Owner } from "@curfew/scope"
import { ReflectionService } from "@grpc/reflection"
import * as Effect from "effect/Effect"
import { reflecting } from "./internal/reflecting.ts"
import type { Service } from "./Server.ts"

/**
 * Server reflection, `grpc.reflection.v1` and `v1alpha`, for tools that ask a server what it serves: switched on by
 * putting its services among those of a `GrpcServer`. What it answers is `@grpc/reflection`'s, which has to be
 * installed; its calls are run here, so they are limited, drained and ended like any other.
 *
 * **When cancelled**
 *
 * An inspection is a stream: it ends when its client leaves, and at a forced shutdown.
 *
 * **Gotchas**
 *
 * It takes what `@grpc/proto-loader` loads. Whoever can reach the server can then read its definitions.
 *
 * **Example**
 *
 * ```ts no-run
 * import { loadSync } from "@grpc/proto-loader"
 * import { GrpcServer } from "@curfew/grpc"
 * import * as Reflection from "@curfew/grpc/Reflection"
 *
 * const services = Reflection.services(loadSync("orders.proto"))
 * const server = GrpcServer.layer({ services, address: "0.0.0.0:50051" })
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const services = (
  loaded: ConstructorParameters<typeof ReflectionService>[0],
  options?: {
    /** The full names of the services to tell of. Default: all that were loaded. */
    readonly only?: ReadonlyArray<string> | undefined
  }
): ReadonlyArray<Effect.Effect<Service, never, Owner>> => {
  const only = options?.only
  const reflection = new ReflectionService(loaded, only === undefined ? {} : { services: [...only] })
  const found: Array<Effect.Effect<Service, never, Owner>> = []
  reflection.addToServer({
    addService: (definition, implementation) =>
      found.push(Effect.suspend(() => reflecting(definition, implementation)))
  } as Parameters<ReflectionService["addToServer"]>[0])
  return found
}
