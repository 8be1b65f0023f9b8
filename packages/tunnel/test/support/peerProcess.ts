/** A peer in a process of its own, which can be frozen: `server`, or `agent` with the address of a server. */
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { Agent, Services, TunnelService } from "../../src/index.ts"
import { definition, implementation } from "./echo.ts"

const [role, address = ""] = process.argv.slice(2)
const services = Services.empty.pipe(
  Services.add(
    definition,
    implementation({
      // Never answered: in flight when the process freezes.
      Unary: (call, callback) => {
        if (call.request.toString() !== "hang") callback(null, call.request)
      }
    })
  )
)

const serving = Effect.gen(function* () {
  const service = yield* TunnelService.make({ services })
  const server = new grpc.Server()
  service.addTo(server)
  server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (_error, port) =>
    process.send?.(`127.0.0.1:${port}`)
  )
  return yield* Effect.never
})

const dialling = Effect.gen(function* () {
  const agent = yield* Agent.serve({ address, credentials: grpc.credentials.createInsecure() }, services)
  yield* agent.awaitReady()
  process.send?.("ready")
  return yield* Effect.never
})

void Effect.runPromise(Effect.scoped(role === "server" ? serving : dialling))
