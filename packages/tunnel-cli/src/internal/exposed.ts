/**
 * The port for callers: an ordinary gRPC server that takes any method.
 *
 * **Invariants**
 * 1. It stops in the stages of `GrpcServer`: no new calls, calls end, calls are cancelled and told so.
 * 2. The health service of this program answers on it only where the taker says so.
 */
import { GrpcServer, type GrpcServerShape } from "@curfew/grpc"
import type { Owner } from "@curfew/scope"
import { status as Code, type ServerCredentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { catchAll } from "./catchAll.ts"
import { type Mistake, mistake } from "./mistake.ts"
import { type Incoming, refuse } from "./relay.ts"
import type { Address } from "./values.ts"

export interface Exposed extends GrpcServerShape {
  /** Answers a call to `grpc.health.v1.Health` about this program. */
  readonly answerHealth: (incoming: Incoming) => void
}

export const healthPrefix = "/grpc.health.v1.Health/"

export const exposed = (options: {
  readonly flag: string
  readonly at: Address
  readonly credentials: ServerCredentials
  readonly maxMessage: number
  readonly take: (incoming: Incoming) => void
}): Effect.Effect<Exposed, Mistake, Owner | Scope.Scope> =>
  Effect.gen(function* () {
    const { at, credentials, flag, maxMessage } = options
    let take: (incoming: Incoming) => void = () => undefined
    const server = yield* GrpcServer.make({
      services: [],
      address: at.text,
      credentials,
      health: false,
      name: `calls on ${flag}`,
      // One caller may be a proxy with many callers of its own behind it.
      limits: { perPeer: 10_000 },
      options: {
        "grpc.max_receive_message_length": maxMessage,
        "grpc.max_send_message_length": maxMessage
      }
    }).pipe(Effect.mapError((error) => mistake(`${flag}: ${error.message}`)))
    yield* Effect.sync(() => {
      take = options.take
      catchAll(server.server, (incoming) => take(incoming))
    })
    const { definition, implementation } = yield* server.health.service
    const answerHealth = (incoming: Incoming): void => {
      const path = incoming.getPath()
      const [name, method] = Object.entries(definition).find(([, one]) => one.path === path) ?? []
      const handler =
        name === undefined ? undefined : (implementation[name] as (...given: ReadonlyArray<unknown>) => void)
      if (method === undefined || handler === undefined) {
        refuse(incoming, Code.UNIMPLEMENTED, `The method ${path} is not implemented`)
        return
      }
      const nothing = () =>
        refuse(incoming, Code.UNIMPLEMENTED, "The call ended before it asked anything: send one request")
      incoming.once("end", nothing)
      incoming.once("data", (bytes: Buffer) => {
        incoming.off("end", nothing)
        const call = Object.assign(incoming, { request: method.requestDeserialize(bytes) })
        const respond = (error: unknown, value?: Buffer | null): void => {
          if (error !== null && error !== undefined) {
            incoming.emit("error", error)
            return
          }
          incoming.write(value ?? Buffer.alloc(0))
          incoming.end()
        }
        if (method.responseStream) handler(call)
        else handler(call, respond)
      })
    }
    return { ...server, answerHealth }
  })
