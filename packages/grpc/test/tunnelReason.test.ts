import { CancelReason } from "@curfew/reason"
import { cancellable } from "@curfew/request"
import { CancelScope, Owner } from "@curfew/scope"
import { openForward, Services, TunnelService } from "@curfew/tunnel"
import { credentials } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { expect, test } from "vitest"
import { Client, GrpcServer, Server } from "../src/index.ts"

const bytes = {
  requestSerialize: (text: string) => Buffer.from(text),
  requestDeserialize: String,
  responseSerialize: (text: string) => Buffer.from(text),
  responseDeserialize: String
}
const definition = {
  Wait: { path: "/test.Waiting/Wait", requestStream: false, responseStream: false, ...bytes }
} as const

test("the reason of a caller's cancel is what the handler's call says over a tunnel, as the caller's word", () => {
  const started = Deferred.makeUnsafe<void>()
  const seen = Deferred.makeUnsafe<Option.Option<CancelReason>>()
  const program = Effect.gen(function* () {
    const server = yield* GrpcServer.make({ services: [], address: "127.0.0.1:0" })
    const waiting = yield* Server.make(definition, {
      Wait: cancellable((_text, call) =>
        Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
          Effect.onInterrupt(() => Effect.flatMap(call.reason, (reason) => Deferred.succeed(seen, reason)))
        )
      )
    })
    const services = Services.empty.pipe(Services.add(waiting.definition, waiting.implementation))
    yield* server.add(yield* TunnelService.make({ services }))
    const to = { address: `127.0.0.1:${server.port}`, credentials: credentials.createInsecure() }
    const tunnel = yield* openForward(to)
    const client = yield* Client.make(definition, { channel: tunnel.grpc })
    const because = CancelReason.LimitExceeded({ limit: "patience", detail: "nobody waits that long" })
    yield* CancelScope.run((scope) =>
      Effect.andThen(
        Effect.forkChild(Effect.andThen(Deferred.await(started), scope.cancel(because))),
        client.Wait("q")
      )
    ).pipe(Effect.exit)
    const reason = Option.getOrThrow(yield* Deferred.await(seen))
    expect(reason).toEqual(
      CancelReason.ClientGone({ transport: "tunnel", detail: "the caller cancelled", because })
    )
  })
  return Effect.runPromise(Effect.provide(Effect.scoped(program), Owner.layer()))
})
