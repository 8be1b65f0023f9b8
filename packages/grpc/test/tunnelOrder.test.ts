import { Owner } from "@curfew/scope"
import { openForward, Services, serveReverse, TunnelService } from "@curfew/tunnel"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { GrpcServer } from "../src/index.ts"

const credentials = grpc.credentials.createInsecure()

describe.each(["before", "after"] as const)("a tunnel service that is made %s its server", (order) => {
  it.live.each(["forward", "reverse"] as const)(
    "does not hold the end of their scope up, with a %s tunnel",
    (kind) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const listening = GrpcServer.make({ services: [], address: "127.0.0.1:0", drain: "1 hour" })
        const service = TunnelService.make({ services: Services.empty })
        const { port } = yield* Effect.gen(function* () {
          if (order === "before") {
            const made = yield* service
            const server = yield* listening
            yield* server.add(made)
            return server
          }
          const server = yield* listening
          yield* server.add(yield* service)
          return server
        }).pipe(Scope.provide(scope), Effect.provide(Owner.layer()))
        const to = { address: `127.0.0.1:${port}`, credentials }
        const tunnel = yield* kind === "forward" ? openForward(to) : serveReverse(to, Services.empty)
        yield* Scope.close(scope, Exit.void)
        expect((yield* tunnel.closed)._tag).toBe("ClosedByPeer")
      }).pipe(Effect.scoped)
  )
})
