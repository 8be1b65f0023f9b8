/**
 * The process that is called: `direct`, a `grpc.Server` with its handlers; `stubs`, the same handlers behind a tunnel;
 * `effect`, scoped handlers behind a tunnel; `bare` and `batches`, what gives bytes back.
 */
import { GrpcServer } from "@curfew/grpc"
import { Owner } from "@curfew/scope"
import { Services, TunnelService } from "@curfew/tunnel"
import { Server, ServerCredentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { answer } from "../harness/child.ts"
import { bareServer } from "./bare.ts"
import { deferred } from "./driver.ts"
import { service as effectService } from "./effects.ts"
import { handlers } from "./stubs.ts"
import { definition } from "./wire.ts"

const bind = (server: Server): Effect.Effect<number, Error> =>
  Effect.callback((resume) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
      resume(error === null ? Effect.succeed(port) : Effect.fail(error))
    )
  )

const direct = Effect.suspend(() => {
  const server = new Server()
  server.addService(definition, handlers)
  return bind(server)
})

const stubs = Effect.gen(function* () {
  const server = new Server(TunnelService.serverOptions())
  const services = Services.empty.pipe(Services.add(definition, handlers))
  const service = yield* TunnelService.make({ services })
  service.addTo(server)
  return yield* bind(server)
})

const effect = Effect.gen(function* () {
  const { definition, implementation } = yield* effectService
  const services = Services.empty.pipe(Services.add(definition, implementation))
  const server = yield* GrpcServer.make({ services: [], address: "127.0.0.1:0" })
  yield* server.add(yield* TunnelService.make({ services }))
  return server.port
})

const kinds = { direct, stubs, effect, bare: Effect.promise(bareServer), batches: Effect.promise(bareServer) }

const { promise: port, reject, resolve } = deferred<number>()
const listening = Effect.flatMap(kinds[process.argv[2] as keyof typeof kinds], (port) => {
  resolve(port)
  return Effect.never
})
Effect.runPromise(Effect.scoped(listening).pipe(Effect.provide(Owner.layer()))).catch(reject)
answer({ port: () => port })
