/** The streams that a `grpc.Server` takes tunnels on: their windows, as callers see them, and who writes to them. */
import { type ClientHttp2Session, connect } from "node:http2"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { openForward, Services, serveReverse, TunnelService } from "../src/index.ts"
import { paths } from "../src/internal/grpcCarrier.ts"
import { connectionWindow } from "../src/internal/limits.ts"
import { collect, definition, EchoClient, implementation, metadata, unary } from "./support/echo.ts"
import { kindsAndDials, listen, listenWith, tunnelPair } from "./support/network.ts"

const usual = 65_535

const session = (address: string): Effect.Effect<ClientHttp2Session, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => connect(`http://${address}`)),
    (it) => Effect.sync(() => it.destroy())
  )

/** What the server lets a call of the path send ahead, on the call and on the connection. */
const allowed = (it: ClientHttp2Session, path: string) =>
  Effect.gen(function* () {
    const answered = Deferred.makeUnsafe<void>()
    const call = it.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers"
    })
    call.on("error", () => undefined)
    call.once("response", () => Deferred.doneUnsafe(answered, Effect.void))
    yield* Deferred.await(answered)
    // Settings and updates were sent before the response.
    return [it.remoteSettings.initialWindowSize, it.state.remoteWindowSize] as const
  })

describe("a connection to a server", () => {
  it.live("has wide windows once it carries a tunnel, and no sooner", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address } = yield* listen(service.addTo)
      const it = yield* session(address)
      expect(yield* allowed(it, "/a/b")).toEqual([usual, usual])
      expect(yield* allowed(it, paths.reverse)).toEqual([connectionWindow, connectionWindow])
    }).pipe(Effect.scoped)
  )

  it.live("keeps those of its server when no service wants others any more", () =>
    Effect.gen(function* () {
      const { address } = yield* Effect.flatMap(Effect.scoped(TunnelService.make()), (service) =>
        listen(service.addTo)
      )
      expect(yield* allowed(yield* session(address), paths.reverse)).toEqual([usual, usual])
    }).pipe(Effect.scoped)
  )
})

describe("a call finds its stream", () => {
  it.live("and no other, whatever its peer says, and tells nobody", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make()
      const { address } = yield* listen(service.addTo)
      const lies = metadata(
        Object.fromEntries(Array.from({ length: 5 }, (_, copy) => [`curfew-stream-${copy + 1}`, "1"]))
      )
      const services = Services.empty.pipe(Services.add(definition, implementation()))
      yield* serveReverse({ address, tls: false }, services, { metadata: lies })
      yield* serveReverse({ address, tls: false }, services, { metadata: lies })
      const tunnels = yield* Effect.repeat(service.reverse.list, { until: (all) => all.length === 2 })
      for (const tunnel of tunnels) {
        const answer = yield* Effect.promise(() => unary(tunnel.client(EchoClient), Buffer.from("q")))
        expect(answer.code).toBe(0)
        expect(tunnel.metadata.get("curfew-stream-1")).toEqual([])
      }
    }).pipe(Effect.scoped)
  )

  it.live("through which nothing is written before the headers that an interceptor keeps back", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make({
        services: Services.empty.pipe(Services.add(definition, implementation()))
      })
      const later: grpc.ServerInterceptor = (_method, call) =>
        new grpc.ServerInterceptingCall(call, {
          sendMetadata: (headers, next) => void setImmediate(() => next(headers)),
          start: (next) => next()
        })
      const { address } = yield* listenWith(grpc.ServerCredentials.createInsecure(), service.addTo, {
        interceptors: [later]
      })
      const tunnel = yield* openForward({ address, tls: false })
      const request = Buffer.alloc(500_000, 7)
      const answer = yield* Effect.promise(() => unary(tunnel.client(EchoClient), request))
      expect(answer.value?.equals(request)).toBe(true)
    }).pipe(Effect.scoped)
  )
})

describe.each(kindsAndDials)("a %s tunnel dialled over %s", (kind, dialled) => {
  it.live("carries messages both ways at once that are larger than every window on the way", () =>
    Effect.gen(function* () {
      const size = 3_000_000
      const { channel, client } = yield* tunnelPair(kind, { with: dialled })
      const call = client.Bidi()
      const collected = Effect.promise(() => collect(call))
      for (let count = 0; count < 6; count++) call.write(Buffer.alloc(size, count + 1))
      call.end()
      const { code, messages } = yield* collected
      expect(code).toBe(0)
      expect(messages.map((message) => [message.length, message[0], message[size - 1]])).toEqual(
        [1, 2, 3, 4, 5, 6].map((value) => [size, value, value])
      )
      expect(yield* channel.stats).toMatchObject({ heldBytes: 0 })
    }).pipe(Effect.scoped)
  )

  it.live("goes on when calls are cancelled in the middle of their messages", () =>
    Effect.gen(function* () {
      const { channel, client } = yield* tunnelPair(kind, { with: dialled })
      for (let round = 0; round < 20; round++) {
        const call = client.Bidi()
        const collected = Effect.promise(() => collect(call))
        const message = Buffer.alloc(1_000_000, 1)
        call.write(message)
        for (let turn = 0; turn < round; turn++) {
          yield* Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))
        }
        call.cancel()
        // It is the caller's again, and may hold anything by the time it is read.
        message.fill(2)
        yield* collected
      }
      const call = client.Bidi()
      const collected = Effect.promise(() => collect(call))
      call.write(Buffer.alloc(1_000_000, 3))
      call.end()
      const { messages } = yield* collected
      expect(messages.map((it) => it.equals(Buffer.alloc(1_000_000, 3)))).toEqual([true])
      expect(yield* channel.stats).toMatchObject({ streams: 0, heldBytes: 0 })
    }).pipe(Effect.scoped)
  )
})
