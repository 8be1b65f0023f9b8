import { Owner } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import { openForward, Services, serveReverse, TunnelService } from "@curfew/tunnel"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Client, GrpcServer, Server } from "../src/index.ts"

const bytes = {
  requestSerialize: Buffer.from,
  requestDeserialize: Buffer.from,
  responseSerialize: Buffer.from,
  responseDeserialize: Buffer.from
}
const definition = {
  Slow: { path: "/test.Slow/Slow", requestStream: false, responseStream: false, ...bytes }
} as const

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

it.live(
  "a staged shutdown drains its tunnels: the call in flight is answered, and the drain ends with it",
  () =>
    Effect.gen(function* () {
      const ports = Deferred.makeUnsafe<number>()
      const stop = Deferred.makeUnsafe<void>()
      const asked = Deferred.makeUnsafe<void>()
      const answer = Deferred.makeUnsafe<void>()
      const program = Effect.gen(function* () {
        const slow = yield* Server.make(definition, {
          Slow: (text) =>
            Effect.andThen(Deferred.succeed(asked, undefined), Effect.as(Deferred.await(answer), text))
        })
        const service = yield* TunnelService.make({
          services: Services.empty.pipe(Services.add(slow.definition, slow.implementation))
        })
        const server = yield* GrpcServer.make({ services: [service], address: "127.0.0.1:0" })
        yield* Deferred.succeed(ports, server.port)
        yield* Deferred.await(stop)
        yield* Shutdown.begin
        return yield* Effect.never
      })
      const running = yield* Effect.forkChild(
        Shutdown.run(Effect.scoped(program), { drain: "1 hour", force: "1 hour" })
      )
      const tunnel = yield* openForward({ address: `127.0.0.1:${yield* Deferred.await(ports)}`, credentials })
      const client = yield* Client.make(definition, { channel: tunnel.grpc })
      const call = yield* Effect.forkChild(client.Slow(Buffer.from("hello")))
      yield* Deferred.await(asked)
      yield* Deferred.succeed(stop, undefined)
      expect(yield* tunnel.awaitDraining).toBe("peer")
      yield* Deferred.succeed(answer, undefined)
      expect(String(yield* Fiber.join(call))).toBe("hello")
      expect((yield* tunnel.closed)._tag).toBe("ClosedByPeer")
      const { report } = yield* Fiber.join(running)
      expect(report.phases.find(({ phase }) => phase === "drain")?.endedBy).toBe("done")
    }).pipe(Effect.scoped)
)
