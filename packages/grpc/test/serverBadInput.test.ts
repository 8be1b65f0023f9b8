/** What no well-behaved client or handler does. After each of it the server answers the next call. */
import http2 from "node:http2"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { GrpcError, Server } from "../src/index.ts"
import {
  Code,
  call,
  echo,
  type Handlers,
  inAllKinds,
  kinds,
  notebook,
  run,
  type Serving,
  serving,
  transports
} from "./support/serving.ts"

const frame = (text: string, compressed = 0): Buffer => {
  const body = Buffer.from(text)
  const head = Buffer.alloc(5)
  head.writeUInt8(compressed, 0)
  head.writeUInt32BE(body.length, 1)
  return Buffer.concat([head, body])
}

/** One call, byte by byte. */
const rawCall = (
  { address }: Serving,
  method: string,
  bytes: ReadonlyArray<Buffer>,
  headers: http2.OutgoingHttpHeaders = {}
): Effect.Effect<{ readonly http: number; readonly status: string | undefined; readonly message: string }> =>
  Effect.callback((resume) => {
    const session = http2.connect(`http://${address}`)
    const stream = session.request({
      ":method": "POST",
      ":path": `/curfew.test.Words/${method}`,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers
    })
    let seen: http2.IncomingHttpHeaders = {}
    stream.on("response", (response) => {
      seen = { ...response }
    })
    stream.on("trailers", (trailers) => {
      seen = { ...seen, ...trailers }
    })
    stream.on("error", () => undefined)
    stream.on("close", () => {
      session.destroy()
      const message = decodeURI(String(seen["grpc-message"] ?? ""))
      resume(
        Effect.succeed({ http: Number(seen[":status"]), status: seen["grpc-status"] as string, message })
      )
    })
    stream.resume()
    for (const part of bytes) stream.write(part)
    stream.end()
  })

const stillServes = (world: Serving) =>
  Effect.gen(function* () {
    yield* world.idle
    const answer = yield* call(world.stub, "Unary", { request: "next" }).answer
    expect([answer.code, answer.messages]).toEqual([Code.OK, ["next"]])
  })

const errors = (logs: ReadonlyArray<string>) => logs.filter((line) => /^(Error|Warn)/.test(line))

describe("bytes that are no call", () => {
  const cases: ReadonlyArray<
    readonly [string, string, ReadonlyArray<Buffer>, http2.OutgoingHttpHeaders, number, RegExp]
  > = [
    ["no message for a unary method", "Unary", [], {}, Code.UNIMPLEMENTED, /no request message/],
    [
      "two messages for a unary method",
      "Unary",
      [frame("a"), frame("b")],
      {},
      Code.UNIMPLEMENTED,
      /second request/
    ],
    ["an undecodable message", "Unary", [frame("undecodable")], {}, Code.INTERNAL, /could not be decoded/],
    [
      "an undecodable message",
      "ServerStream",
      [frame("undecodable")],
      {},
      Code.INTERNAL,
      /could not be decoded/
    ],
    [
      "an undecodable message",
      "ClientStream",
      [frame("a"), frame("undecodable")],
      {},
      Code.INTERNAL,
      /decoded/
    ],
    ["an undecodable message", "Bidi", [frame("a"), frame("undecodable")], {}, Code.INTERNAL, /decoded/],
    [
      "a message said to be compressed",
      "Unary",
      [frame("a", 1)],
      { "grpc-encoding": "gzip" },
      Code.INTERNAL,
      /decompress/
    ],
    [
      "an encoding that nobody knows",
      "Unary",
      [frame("a", 1)],
      { "grpc-encoding": "zip" },
      Code.UNIMPLEMENTED,
      /zip/
    ],
    [
      "a length beyond the limit",
      "Unary",
      [Buffer.from([0, 0xff, 0xff, 0xff, 0xff])],
      {},
      Code.RESOURCE_EXHAUSTED,
      /larger/
    ],
    [
      "a timeout that is no number",
      "Unary",
      [frame("a")],
      { "grpc-timeout": "soon" },
      Code.INTERNAL,
      /grpc-timeout/
    ],
    ["a method that nobody has", "Nothing", [frame("a")], {}, Code.UNIMPLEMENTED, /Nothing/]
  ]

  test.each(cases)("%s (%s)", (_name, method, bytes, headers, code, message) =>
    run(
      Effect.gen(function* () {
        const world = yield* serving("grpc", echo)
        const answer = yield* rawCall(world, method, bytes, headers)
        expect([answer.http, Number(answer.status)]).toEqual([200, code])
        expect(answer.message).toMatch(message)
        yield* stillServes(world)
        if (message.source.includes("decoded")) {
          expect(errors(world.logs)).toEqual([
            `Warn: The request could not be decoded. Check that both ends use the same definition. | Fail @ curfew.test.Words/${method}`
          ])
        }
      })
    )
  )

  test("a request that is no gRPC is refused as HTTP", () =>
    run(
      Effect.gen(function* () {
        const world = yield* serving("grpc", echo)
        const answer = yield* rawCall(world, "Unary", [frame("a")], { "content-type": "text/plain" })
        expect(answer.http).toBe(415)
        yield* stillServes(world)
      })
    ))

  test("pinned: grpc-js ends the stream where a message breaks off, as if nothing had come; no handler sees half of it", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const world = yield* serving("grpc", {
          ...echo,
          Bidi: (requests) => Stream.tap(requests, book.note as never)
        })
        const answer = yield* rawCall(world, "Bidi", [frame("whole").subarray(0, 7)])
        expect(book.seen).toEqual([])
        expect(Number(answer.status)).toBe(Code.OK)
        yield* stillServes(world)
      })
    ))
})

describe.each(transports)("handlers that go wrong, over %s", (transport) => {
  const boom = new Error("boom")
  const cases: ReadonlyArray<
    readonly [string, () => Effect.Effect<string, unknown>, number, string, boolean]
  > = [
    [
      "throws synchronously",
      () => {
        throw boom
      },
      Code.UNKNOWN,
      "The handler failed",
      true
    ],
    ["dies", () => Effect.die(boom), Code.UNKNOWN, "The handler failed", true],
    ["fails with what nobody maps", () => Effect.fail(boom), Code.UNKNOWN, "The handler failed", true],
    ["fails with what is mapped", () => Effect.fail("gone"), Code.NOT_FOUND, "it is gone", false],
    [
      "is interrupted from elsewhere",
      () => Effect.interrupt,
      Code.INTERNAL,
      "The handler was interrupted from elsewhere",
      true
    ],
    [
      "fails with the status OK",
      () => Effect.fail(new GrpcError({ code: 0, details: "fine" })),
      Code.UNKNOWN,
      "A failure cannot be OK: fine",
      false
    ],
    [
      "fails with a status that does not exist",
      () => Effect.fail(new GrpcError({ code: 99, details: "what" })),
      Code.UNKNOWN,
      "what",
      false
    ],
    [
      "answers with what cannot be encoded",
      () => Effect.succeed("unencodable"),
      Code.INTERNAL,
      "The response could not be encoded",
      true
    ]
  ]

  test.each(cases)("%s", (_name, handler, code, details, logged) =>
    run(
      Effect.gen(function* () {
        const next = {
          ...inAllKinds(handler),
          Unary: (request: string) => (request === "next" ? Effect.succeed(request) : handler())
        }
        const world = yield* serving(transport, next as Handlers, {
          mapError: (error) =>
            error === "gone" ? new GrpcError({ code: Code.NOT_FOUND, details: "it is gone" }) : undefined
        })
        for (const kind of kinds) {
          const started = call(world.stub, kind)
          started.call.end?.()
          const answer = yield* started.answer
          expect([kind, answer.code, answer.details, answer.messages]).toEqual([kind, code, details, []])
        }
        yield* stillServes(world)
        const spans = errors(world.logs).map((line) => line.split(" @ ")[1])
        expect(spans).toEqual(logged ? kinds.map((kind) => `curfew.test.Words/${kind}`) : [])
      })
    )
  )

  test("a handler that gives something else than it should says what to do, in the log", () =>
    run(
      Effect.gen(function* () {
        const world = yield* serving(transport, {
          ...echo,
          ServerStream: (() => "text") as never,
          ClientStream: (() => "text") as never
        })
        for (const kind of ["ServerStream", "ClientStream"] as const) {
          const started = call(world.stub, kind)
          started.call.end?.()
          expect((yield* started.answer).code).toBe(Code.UNKNOWN)
        }
        yield* stillServes(world)
        expect(errors(world.logs)).toHaveLength(2)
      })
    ))

  test("a stream that fails after some messages: they arrive, and then the status", () =>
    run(
      Effect.gen(function* () {
        const failing = Stream.concat(
          Stream.make("one", "two"),
          Stream.fail(new GrpcError({ code: Code.DATA_LOSS, details: "the rest is gone" }))
        )
        const world = yield* serving(transport, { ...echo, ServerStream: () => failing, Bidi: () => failing })
        for (const kind of ["ServerStream", "Bidi"] as const) {
          const answer = yield* call(world.stub, kind).answer
          expect([answer.code, answer.details, answer.messages]).toEqual([
            Code.DATA_LOSS,
            "the rest is gone",
            ["one", "two"]
          ])
        }
        const broken = yield* serving(transport, {
          ...echo,
          ServerStream: () => Stream.make("one", "unencodable", "three")
        })
        const answer = yield* call(broken.stub, "ServerStream").answer
        expect([answer.code, answer.messages]).toEqual([Code.INTERNAL, ["one"]])
        yield* stillServes(broken)
      })
    ))

  test("a handler that returns late has nobody to answer, and one that never returns is left by nobody", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const world = yield* serving(transport, {
          ...echo,
          ServerStream: () => Stream.never,
          ClientStream: (_requests, given) =>
            Effect.andThen(
              Effect.andThen(book.noting("started"), given.awaitPeerGone),
              Effect.succeed("late")
            )
        })
        const late = call(world.stub, "ClientStream")
        yield* book.awaits("started")
        late.call.cancel()
        expect((yield* late.answer).code).toBe(Code.CANCELLED)
        const answer = yield* call(world.stub, "ServerStream", { call: { deadline: Date.now() + 40 } }).answer
        expect(answer.code).toBe(Code.DEADLINE_EXCEEDED)
        yield* stillServes(world)
        expect(world.unhandled).toEqual([])
      })
    ))

  test("a promise that throws before it is one, and an observer that throws", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const world = yield* serving(
          transport,
          {
            ...echo,
            ServerStream: () => Stream.onStart(Stream.never, book.noting("started")),
            ClientStream: Server.fromPromise(() => {
              throw boom
            })
          },
          {
            callsOptions: {
              onCancelled: () => {
                throw boom
              }
            }
          }
        )
        const started = call(world.stub, "ClientStream")
        started.call.end?.()
        expect((yield* started.answer).code).toBe(Code.UNKNOWN)
        const left = call(world.stub, "ServerStream")
        yield* book.awaits("started")
        left.call.cancel()
        yield* stillServes(world)
        expect(errors(world.logs).some((line) => line.includes("The observer of cancellations threw"))).toBe(
          true
        )
      })
    ))
})
