import type { Owner } from "@curfew/scope"
import { status as Code } from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { GrpcError } from "./GrpcError.ts"
import { definition } from "./internal/healthProtocol.ts"
import { Watched } from "./internal/watched.ts"
import * as Server from "./Server.ts"

/**
 * What a service says of itself.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type ServingStatus = "UNKNOWN" | "SERVING" | "NOT_SERVING"

/**
 * `grpc.health.v1.Health`: `Check`, `Watch` and `List`.
 *
 * **Guarantees**
 *
 * - **The newest counts**: a watch that is slow gets the last status, not all of them; nothing queues up.
 * - **Follows the stages**: after `stopServing` every service is NOT_SERVING, and watches end with `UNAVAILABLE` once
 *   they have said so. Nothing makes it serve again.
 *
 * **When cancelled**
 *
 * A watch ends with its call and leaves nothing behind.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Health {
  /** To be registered; `GrpcServer` does it. */
  readonly service: Effect.Effect<Server.Service, never, Owner>
  /** The empty name is the server as a whole; it begins as SERVING. */
  readonly setStatus: (service: string, status: ServingStatus) => Effect.Effect<void>
  /** The service is not known any more. */
  readonly remove: (service: string) => Effect.Effect<void>
  readonly status: (service: string) => Effect.Effect<Option.Option<ServingStatus>>
  readonly stopServing: Effect.Effect<void>
}

/**
 * The name of the health service itself.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const serviceName = "grpc.health.v1.Health"

/**
 * Makes a health service.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Health } from "@curfew/grpc"
 *
 * const program = Effect.gen(function* () {
 *   const health = yield* Health.make
 *   yield* health.stopServing
 *   return yield* health.status("")
 * })
 * Effect.runSync(program).toString() // => 'some("NOT_SERVING")'
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const make: Effect.Effect<Health> = /* @__PURE__ */ Effect.sync(() => {
  const statuses = new Watched<ServingStatus>()
  statuses.set("", "SERVING")

  const unknown = (service: string) =>
    new GrpcError({ code: Code.NOT_FOUND, details: `There is no service "${service}" here.` })
  const stopped = new GrpcError({ code: Code.UNAVAILABLE, details: "The server is shutting down" })

  const service = Server.make(
    definition,
    {
      Check: ({ service }) => {
        const status = statuses.get(service)
        return status === undefined ? Effect.fail(unknown(service)) : Effect.succeed({ status })
      },
      Watch: ({ service }) =>
        Stream.suspend(() => {
          let said: string | undefined
          const next = Effect.flatMap(
            statuses.next(service, (status) => (status ?? "SERVICE_UNKNOWN") !== said),
            (status) => {
              if (status === undefined && statuses.closed) return stopped
              said = status ?? "SERVICE_UNKNOWN"
              return Effect.succeed({ status: said })
            }
          )
          return Stream.fromEffectRepeat(next)
        }),
      List: () => Effect.sync(() => ({ statuses: statuses.entries() }))
    },
    { methodLimits: { Watch: { time: Duration.infinity } } }
  )

  return {
    service,
    setStatus: (name, status) => Effect.sync(() => statuses.set(name, status)),
    remove: (name) => Effect.sync(() => statuses.remove(name)),
    status: (name) => Effect.sync(() => Option.fromUndefinedOr(statuses.get(name))),
    stopServing: Effect.sync(() => statuses.close("NOT_SERVING"))
  }
})
