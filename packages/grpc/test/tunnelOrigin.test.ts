import { Owner } from "@curfew/scope"
import { openForward, Services, TunnelService } from "@curfew/tunnel"
import { expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Client, GrpcServer, Server, ServerCall } from "../src/index.ts"

const bytes = {
  requestSerialize: Buffer.from,
  requestDeserialize: Buffer.from,
  responseSerialize: Buffer.from,
  responseDeserialize: Buffer.from
}
const definition = {
  Who: { path: "/test.Who/Who", requestStream: false, responseStream: false, ...bytes }
} as const

/** Answers with what the handler knows of the tunnel that its call came through. */
const answering = Server.make(definition, {
  Who: () =>
    Effect.map(ServerCall.current, (call) => {
      const tunnel = Option.flatMap(call, (it) => it.tunnel)
      return Buffer.from(
        Option.match(tunnel, {
          onNone: () => "no tunnel",
          onSome: ({ identity, kind, metadata }) => `${kind} ${metadata.get("agent")[0]} ${String(identity)}`
        })
      )
    })
})

it.live("a handler asks for the tunnel of its call, with its headers and its identity", () =>
  Effect.gen(function* () {
    const server = yield* GrpcServer.make({ services: [answering], address: "127.0.0.1:0" })
    const who = yield* answering
    const service = yield* TunnelService.make({
      services: Services.empty.pipe(Services.add(who.definition, who.implementation)),
      authenticate: ({ metadata }) => Effect.succeed(`is ${metadata.get("agent")[0]}`)
    })
    yield* server.add(service)
    const to = { address: `127.0.0.1:${server.port}`, credentials: grpc.credentials.createInsecure() }
    const metadata = new grpc.Metadata()
    metadata.set("agent", "seven")
    const tunnel = yield* openForward(to, { metadata })
    const through = yield* Client.make(definition, { channel: tunnel.grpc })
    const past = yield* Client.make(definition, to)
    expect(String(yield* through.Who(Buffer.from("?")))).toBe("forward seven is seven")
    expect(String(yield* past.Who(Buffer.from("?")))).toBe("no tunnel")
  }).pipe(Effect.provide(Owner.layer()), Effect.scoped)
)
