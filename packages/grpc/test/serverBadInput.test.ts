/** What no well-behaved client or handler does. After each of it the server answers the next call. */
import http2 from "node:http2"
import { DefaultOnDisconnect } from "@curfew/request"
import * as grpc from "@grpc/grpc-js"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { GrpcError, Server } from "../src/index.ts"
import {
  type Call,
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

  test("L48 errors that throw when looked at, and a mapError that throws, are a status too", () =>
    run(
      Effect.gen(function* () {
        const trap = (): never => {
          throw boom
        }
        const failures: Record<string, unknown> = {
          getter: Object.defineProperty({}, "code", { get: trap }),
          proxy: new Proxy({}, { get: trap, getPrototypeOf: trap }),
          mapped: "mapError throws",
          nonsense: "mapError gives nonsense"
        }
        const world = yield* serving(
          transport,
          {
            ...echo,
            Unary: (what) => (what === "next" ? Effect.succeed(what) : Effect.fail(failures[what]))
          },
          {
            mapError: (error) => {
              if (error === "mapError throws") throw boom
              return {} as never
            }
          }
        )
        for (const request of Object.keys(failures)) {
          const answer = yield* call(world.stub, "Unary", { request }).answer
          expect([request, answer.code, answer.details]).toEqual([
            request,
            Code.UNKNOWN,
            "The handler failed"
          ])
        }
        yield* stillServes(world)
        expect(errors(world.logs).length).toBe(4)
        expect(world.unhandled).toEqual([])
      })
    ))

  test("L48 metadata with a value that a program does not have is a status, of an error and of trailers", () =>
    run(
      Effect.gen(function* () {
        const without = new grpc.Metadata()
        without.set("k", undefined as never)
        const failure = new GrpcError({ code: Code.NOT_FOUND, details: "no such item", metadata: without })
        const world = yield* serving(transport, {
          ...echo,
          Unary: (what, given) =>
            what === "next"
              ? Effect.succeed(what)
              : what === "error"
                ? Effect.fail(failure)
                : Effect.as(given.setTrailers(without), what)
        })
        for (const request of ["error", "trailers"]) {
          const answer = yield* call(world.stub, "Unary", { request }).answer
          expect([answer.code, answer.details]).toEqual([
            Code.INTERNAL,
            expect.stringContaining("of the answer cannot be sent")
          ])
        }
        yield* stillServes(world)
        expect(world.unhandled).toEqual([])
      })
    ))

  test("L48 whatever the policy of the program throws, there is a status", () =>
    run(
      Effect.gen(function* () {
        const policy = (): never => {
          throw boom
        }
        const provide = Context.make(DefaultOnDisconnect, policy) as Context.Context<never>
        const world = yield* serving(transport, echo, { provide })
        for (const kind of kinds) {
          const answer = yield* call(world.stub, kind).answer
          expect([kind, answer.code]).toEqual([kind, Code.INTERNAL])
        }
        yield* world.idle
        expect(world.unhandled.length).toBe(4)
      })
    ))

  test("a limit, and a status of a limit, that throws refuses the call and is logged", () =>
    run(
      Effect.gen(function* () {
        const throws = (): never => {
          throw boom
        }
        const spends = {
          ...echo,
          Unary: (_request: string, { budget }: Call) => Effect.andThen(budget.spend(2e9), Effect.never)
        }
        const refused = yield* serving(transport, echo, {
          callsOptions: { limits: { perPeer: throws }, limitStatus: throws }
        })
        const spent = yield* serving(transport, spends as never, { limitStatus: throws })
        for (const world of [refused, spent]) {
          const answer = yield* call(world.stub, "Unary").answer
          expect([answer.code, answer.details]).toEqual([
            Code.RESOURCE_EXHAUSTED,
            expect.not.stringContaining(boom.message)
          ])
          yield* world.idle
          expect(errors(world.logs)).toContainEqual(expect.stringContaining("limitStatus threw"))
        }
        expect(errors(refused.logs)).toContainEqual(expect.stringContaining("perPeer threw"))
      })
    ))

  test("details and metadata that no connection carries break off neither it nor its other calls", () =>
    run(
      Effect.gen(function* () {
        // Text that cannot be packed.
        const long = Array.from({ length: 40_000 }, (_, i) => `~^|${i}`).join("")
        const book = notebook()
        const failure = (what: string) =>
          what === "details"
            ? new GrpcError({ code: Code.NOT_FOUND, details: long })
            : new GrpcError({ code: Code.NOT_FOUND, details: "d", metadata: { what: long } as never })
        const world = yield* serving(transport, {
          ...echo,
          Unary: (what, { sendHeaders, setTrailers }) =>
            what === "next"
              ? Effect.succeed(what)
              : what === "headers"
                ? Effect.as(sendHeaders({ what: long }), what)
                : what === "trailers"
                  ? Effect.as(setTrailers({ what: long }), what)
                  : Effect.fail(failure(what)),
          Bidi: (requests) => Stream.onStart(requests, book.noting("started"))
        })
        const open = call(world.stub, "Bidi")
        yield* book.awaits("started")
        const answers: Array<readonly [string, number]> = []
        for (const request of ["details", "metadata", "headers", "trailers"]) {
          const { code, details } = yield* call(world.stub, "Unary", { request }).answer
          answers.push([details, code])
        }
        expect(answers).toEqual([
          [expect.stringMatching(/^~\^\|0.{4000,12000}…$/), Code.NOT_FOUND],
          ["The trailers of the answer cannot be sent", Code.INTERNAL],
          ["The headers of the answer cannot be sent", Code.INTERNAL],
          ["The trailers of the answer cannot be sent", Code.INTERNAL]
        ])
        open.call.end?.()
        expect((yield* open.answer).code).toBe(Code.OK)
        yield* stillServes(world)
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

  test("a status that it cancels with and that cannot be sent is INTERNAL, and the log says why", () =>
    run(
      Effect.gen(function* () {
        const bad = new grpc.Metadata()
        bad.set("te", "trailers")
        const { idle, logs, stub } = yield* serving(
          transport,
          inAllKinds((given) =>
            Effect.andThen(
              given.cancel({ code: Code.ABORTED, details: "no more", metadata: bad }),
              Effect.never
            )
          )
        )
        expect((yield* call(stub, "Bidi").answer).code).toBe(Code.INTERNAL)
        yield* idle
        expect(logs.filter((line) => line.startsWith("Error"))).toEqual([
          expect.stringContaining("The trailers of the answer cannot be sent")
        ])
      })
    ))
})
