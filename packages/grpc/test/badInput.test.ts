/** What a caller can get wrong, and what a peer can: each is a typed error that says what to do. */

import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { receiver } from "../../../test/support/recorder.ts"
import { Client, GrpcError, StatusDetails } from "../src/index.ts"
import { definition, insecure, serve, stockClient, turns } from "./support/echo.ts"
import { echoing, memoryChannel } from "./support/memoryChannel.ts"

const remote = Effect.flatMap(serve(), (address) =>
  Client.make(definition, { address, credentials: insecure })
)

describe("timeouts", () => {
  it.live("one that is not a time is INVALID_ARGUMENT, and no call is made", () =>
    Effect.gen(function* () {
      const { calls, channel } = memoryChannel(echoing)
      const { around, seen } = receiver()
      let started = 0
      const echo = yield* Client.make(definition, { channel })
      for (const options of [
        { timeout: Number.NaN },
        { timeout: "soon" as never },
        { deadline: Number.NaN as never },
        { deadline: "tomorrow" as never }
      ]) {
        const error = yield* Effect.flip(echo.Unary("hello", options))
        expect(error).toMatchObject({ _tag: "GrpcError", code: grpc.status.INVALID_ARGUMENT })
        expect(error.details).toContain("give ")
        const requests = Stream.fromEffect(Effect.sync(() => started++)).pipe(Stream.map(String))
        const streamed = yield* around(Effect.flip(Stream.runDrain(echo.Bidi(requests, options))))
        expect(streamed).toMatchObject({ code: grpc.status.INVALID_ARGUMENT })
      }
      expect(calls).toEqual([])
      expect(started).toBe(0)
      expect(seen).toEqual([])
    })
  )

  it.live("L5: an infinite one is none, a negative one has passed", () =>
    Effect.gen(function* () {
      const { calls, channel } = memoryChannel(echoing)
      const echo = yield* Client.make(definition, { channel })
      expect(yield* echo.Unary("hello", { timeout: Number.POSITIVE_INFINITY })).toBe("hello")
      expect(calls[0]?.deadline).toBe(Number.POSITIVE_INFINITY)
      for (const timeout of [-5, Number.NEGATIVE_INFINITY]) {
        expect(yield* Effect.flip(echo.Unary("hello", { timeout }))).toMatchObject({
          code: grpc.status.DEADLINE_EXCEEDED
        })
      }
      expect(calls.length).toBe(1)
    })
  )
})

describe("metadata", () => {
  it.live("illegal keys and values are INVALID_ARGUMENT", () =>
    Effect.gen(function* () {
      const echo = yield* remote
      for (const metadata of [
        { "no spaces": "x" },
        { key: Buffer.from("bytes") },
        { "key-bin": "text" },
        { key: "ä\n" }
      ]) {
        const error = yield* Effect.flip(echo.Unary("hello", { metadata }))
        expect(error).toMatchObject({ _tag: "GrpcError", code: grpc.status.INVALID_ARGUMENT })
        expect(error.details).toContain("use lower-case keys")
      }
    })
  )

  it.live("that of the client and of the call go out together, and neither is changed", () =>
    Effect.gen(function* () {
      const { calls, channel } = memoryChannel(echoing)
      const mine = new grpc.Metadata()
      mine.set("a", "1")
      const echo = yield* Client.make(definition, { channel }, { metadata: mine, waitForReady: true })
      yield* echo.Unary("hello", { metadata: { b: ["2", "3"], "c-bin": Buffer.from([7]) } })
      expect(calls[0]?.metadata.get("a")).toEqual(["1"])
      expect(calls[0]?.metadata.get("b")).toEqual(["2", "3"])
      expect(calls[0]?.metadata.get("c-bin")).toEqual([Buffer.from([7])])
      expect(calls[0]?.metadata.getOptions()).toMatchObject({ waitForReady: true })
      expect(mine.toJSON()).toEqual({ a: ["1"] })
      expect(mine.getOptions()).toEqual({})
    })
  )
})

describe("messages", () => {
  const broken = {
    ...definition,
    Unary: {
      ...definition.Unary,
      requestSerialize: (text: string): Buffer => {
        if (text === "throw") throw new Error("no such field")
        return text === "text" ? ("text" as never) : Buffer.from(text)
      },
      responseDeserialize: (): string => {
        throw new Error("index out of range")
      }
    },
    ClientStream: {
      ...definition.ClientStream,
      requestSerialize: (text: string): Buffer => {
        if (text === "throw") throw new Error("no such field")
        return Buffer.from(text)
      }
    }
  } as const

  it.live("a serializer that throws, or gives no bytes, is INTERNAL, and no call is made", () =>
    Effect.gen(function* () {
      const { calls, channel } = memoryChannel(echoing)
      const echo = yield* Client.make(broken, { channel })
      expect((yield* Effect.flip(echo.Unary("throw"))).details).toBe(
        "The request could not be serialized (no such field): check it against the definition."
      )
      expect(yield* Effect.flip(echo.Unary("text"))).toMatchObject({ code: grpc.status.INTERNAL })
      expect(calls).toEqual([])
    })
  )

  it.live("a serializer that throws in a request stream ends the call and the stream", () =>
    Effect.gen(function* () {
      const address = yield* serve()
      const echo = yield* Client.make(broken, { address, credentials: insecure })
      const ended: Array<string> = []
      const requests = Stream.concat(Stream.make("a", "throw"), Stream.never).pipe(
        Stream.ensuring(Effect.sync(() => ended.push("requests")))
      )
      const error = yield* Effect.flip(echo.ClientStream(requests))
      expect(error).toMatchObject({ code: grpc.status.INTERNAL })
      expect(error.details).toContain("no such field")
      expect(ended).toEqual(["requests"])
    })
  )

  it.live("a response that cannot be decoded is INTERNAL, and its call is cancelled", () =>
    Effect.gen(function* () {
      const { calls, channel } = memoryChannel(echoing)
      const echo = yield* Client.make(broken, { channel })
      const error = yield* Effect.flip(echo.Unary("hello"))
      expect(error).toMatchObject({ code: grpc.status.INTERNAL })
      expect(error.details).toContain("check that both ends use the same definition")
      expect(calls[0]?.cancelledWith?.code).toBe(grpc.status.INTERNAL)
    })
  )

  it.live("OK without a message is UNIMPLEMENTED", () =>
    Effect.gen(function* () {
      const { channel } = memoryChannel((call, event) => event === "halfClose" && call.end(grpc.status.OK))
      const echo = yield* Client.make(definition, { channel })
      for (const call of [echo.Unary("hello"), echo.ClientStream(Stream.empty)]) {
        const error = yield* Effect.flip(call)
        expect(error).toMatchObject({ code: grpc.status.UNIMPLEMENTED })
        expect(error.details).toContain("OK and no message")
      }
    })
  )

  it.live("a falsy message is a message", () =>
    Effect.gen(function* () {
      const zero = { Unary: { ...definition.Unary, responseDeserialize: (): number => 0 } } as const
      const { channel } = memoryChannel(echoing)
      const echo = yield* Client.make(zero, { channel })
      expect(yield* echo.Unary("hello")).toBe(0)
    })
  )
})

describe("channels", () => {
  it.live("one that is closed, and a client that outlived its scope, are UNAVAILABLE", () =>
    Effect.gen(function* () {
      const address = yield* serve()
      const outlived = yield* Effect.scoped(Client.make(definition, { address, credentials: insecure }))
      const stub = new grpc.Client(address, insecure)
      const closed = yield* Client.make(definition, { client: stub })
      stub.close()
      for (const echo of [outlived, closed]) {
        const error = yield* Effect.flip(echo.Unary("hello"))
        expect(error).toMatchObject({ code: grpc.status.UNAVAILABLE })
        expect(error.details).toContain("make the client again")
        expect(yield* Effect.flip(Stream.runDrain(echo.Bidi(Stream.never)))).toMatchObject({
          code: grpc.status.UNAVAILABLE
        })
      }
    })
  )

  it.live("an address or credentials that are none are INVALID_ARGUMENT", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Client.make(definition, { address: "localhost:1", credentials: {} as never })
      )
      expect(error).toMatchObject({ code: grpc.status.INVALID_ARGUMENT })
      expect(error.details).toContain("give an address")
    })
  )

  it.live("a server that is not there is UNAVAILABLE", () =>
    Effect.gen(function* () {
      const echo = yield* Client.make(definition, { address: "127.0.0.1:1", credentials: insecure })
      const error = yield* Effect.flip(echo.Unary("hello"))
      expect(GrpcError.is("UNAVAILABLE")(error)).toBe(true)
      expect(GrpcError.is()(error)).toBe(true)
      expect(GrpcError.is("NOT_FOUND", "INTERNAL")(error)).toBe(false)
    })
  )

  it.live("waitForReady waits for the server in place of failing", () =>
    Effect.gen(function* () {
      const echo = yield* Client.make(definition, { address: "127.0.0.1:1", credentials: insecure })
      const error = yield* Effect.flip(echo.Unary("hello", { waitForReady: true, timeout: "50 millis" }))
      expect(error).toMatchObject({ code: grpc.status.DEADLINE_EXCEEDED })
    })
  )

  it.live("a connection that is lost is UNAVAILABLE to every call on it", () =>
    Effect.gen(function* () {
      const server = new grpc.Server()
      server.addService(definition, {
        Unary: () => server.forceShutdown(),
        ServerStream: () => {},
        ClientStream: () => {},
        Bidi: () => {}
      })
      const address = yield* Effect.callback<string>((resume) =>
        server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (_, port) =>
          resume(Effect.succeed(`127.0.0.1:${port}`))
        )
      )
      const echo = yield* Client.make(definition, { address, credentials: insecure })
      const stream = yield* Effect.forkChild(Effect.exit(Stream.runDrain(echo.Bidi(Stream.never))), {
        startImmediately: true
      })
      yield* turns(20)
      expect(yield* Effect.exit(echo.Unary("hello"))).toSatisfy(Exit.isFailure)
      const exit = yield* Fiber.join(stream)
      expect(exit).toSatisfy(Exit.isFailure)
    })
  )
})

describe("callbacks", () => {
  it.live("onHeaders and onTrailers see what the server sent", () =>
    Effect.gen(function* () {
      const address = yield* serve({
        Unary: (call, reply) => {
          const head = new grpc.Metadata()
          head.set("head", "1")
          const tail = new grpc.Metadata()
          tail.set("tail", "2")
          call.sendMetadata(head)
          reply(null, call.request, tail)
        }
      })
      const echo = yield* Client.make(definition, { address, credentials: insecure })
      const seen: Array<unknown> = []
      yield* echo.Unary("hello", {
        onHeaders: (headers) => seen.push(headers.get("head")),
        onTrailers: (trailers, status) => seen.push(trailers.get("tail"), status.code)
      })
      expect(seen).toEqual([["1"], ["2"], 0])
    })
  )

  it.live("one that throws is a defect of its call and of nothing else", () =>
    Effect.gen(function* () {
      const echo = yield* remote
      const bug = new Error("bug")
      const broken = () => {
        throw bug
      }
      expect(yield* Effect.exit(echo.Unary("hello", { onHeaders: broken }))).toEqual(Exit.die(bug))
      expect(yield* Effect.exit(echo.Unary("hello", { onTrailers: broken }))).toEqual(Exit.die(bug))
      expect(yield* echo.Unary("hello")).toBe("hello")
    })
  )

  it.live("an interceptor that throws is an error of its call", () =>
    Effect.gen(function* () {
      const { channel } = memoryChannel(echoing)
      const broken: grpc.Interceptor = () => {
        throw new Error("no token")
      }
      const echo = yield* Client.make(definition, { channel }, { interceptors: [broken] })
      expect((yield* Effect.flip(echo.Unary("hello"))).details).toContain("no token")
    })
  )
})

describe("interceptors of a stub", () => {
  const marks =
    (mark: string): grpc.Interceptor =>
    (options, next) =>
      new grpc.InterceptingCall(next(options), {
        start: (metadata, listener, go) => {
          metadata.add("marks", mark)
          go(metadata, listener)
        }
      })

  it.live(
    "run in the order of grpc-js (pinned: they stand in the stub in the order of its constructor)",
    () =>
      Effect.gen(function* () {
        const seen: Array<unknown> = []
        const address = yield* serve({
          Unary: (call, reply) => {
            seen.push(call.metadata.get("marks"))
            reply(null, call.request)
          }
        })
        const client = yield* stockClient(address, { interceptors: [marks("a"), marks("b")] })
        const viaProviders = yield* stockClient(address, { interceptor_providers: [() => marks("c")] })
        yield* (yield* Client.make(definition, { client })).Unary("hello")
        yield* (yield* Client.make(definition, { client: viaProviders })).Unary("hello")
        yield* (yield* Client.make(definition, { client }, { interceptors: [marks("d")] })).Unary("hello")
        expect(seen).toEqual([["a, b"], ["c"], ["d"]])
      })
  )
})

describe("rich status details", () => {
  const detail = {
    typeUrl: "type.googleapis.com/google.rpc.RetryInfo",
    value: Uint8Array.from([10, 2, 8, 1])
  }

  it.live("come with the error, and malformed ones are none", () =>
    Effect.gen(function* () {
      const good = new grpc.Metadata()
      good.set(
        StatusDetails.key,
        StatusDetails.encode({ code: 8, details: "slow down", statusDetails: [detail, detail] })
      )
      const bad = new grpc.Metadata()
      bad.set(StatusDetails.key, Buffer.from([26, 200, 1]))
      const address = yield* serve({
        Unary: (call, reply) =>
          reply({ code: 8, details: "slow down", metadata: call.request === "good" ? good : bad })
      })
      const echo = yield* Client.make(definition, { address, credentials: insecure })
      expect((yield* Effect.flip(echo.Unary("good"))).statusDetails).toEqual([detail, detail])
      const plain = yield* Effect.flip(echo.Unary("bad"))
      expect(plain).toMatchObject({ code: 8, details: "slow down" })
      expect(plain.statusDetails).toBeUndefined()
    })
  )

  it("are read whatever their bytes are", () => {
    const trailers = new grpc.Metadata()
    for (let seed = 0; seed < 2000; seed++) {
      const bytes = Buffer.from(
        Array.from({ length: seed % 40 }, (_, i) => (seed * 31 + i * i * 17 + (seed >> 3)) & 255)
      )
      trailers.set(StatusDetails.key, bytes)
      expect(() => StatusDetails.decode(trailers)).not.toThrow()
    }
    expect(StatusDetails.decode(undefined)).toBeUndefined()
    expect(StatusDetails.decode(new grpc.Metadata())).toBeUndefined()
  })
})
