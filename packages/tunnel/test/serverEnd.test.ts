import { pipeline, Readable, type Writable } from "node:stream"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { metadataToWire } from "../src/internal/metadata.ts"
import type { BidiHandler, ClientStreamHandler, ServerStreamHandler, UnaryHandler } from "./support/echo.ts"
import { metadata } from "./support/echo.ts"
import { type CloseFrame, serverEnd, statusFromWire } from "./support/engines.ts"
import { turns, until } from "./support/turns.ts"

const { status: Code } = grpc

const outcome = (frame: CloseFrame) => {
  const status = statusFromWire(frame.trailers, frame.status)
  return "code" in status
    ? { code: status.code, details: status.details }
    : { code: -1, details: status.detail }
}

const unaryPath = "/curfew.test.Echo/Unary"
const bidiPath = "/curfew.test.Echo/Bidi"

describe("a tunnel server opens", () => {
  it.live("with its settings as the first frame, on the id −1", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ window: 1000 })
      const settings = yield* end.next((frame): frame is never => frame._tag === "Settings")
      expect(settings).toEqual({ _tag: "Settings", id: -1, revisions: [0, 1], window: 1000 })
      expect(end.written[0]).toEqual(settings)
    }).pipe(Effect.scoped)
  )

  it.live("without settings towards a peer that does not negotiate", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ negotiates: false })
      end.open(1, "foo", { revision: 0 })
      expect(outcome(yield* end.closeOf(1)).code).toBe(Code.INVALID_ARGUMENT)
      expect(end.written.some((frame) => frame._tag === "Settings")).toBe(false)
    }).pipe(Effect.scoped)
  )
})

describe("a mistake of the peer costs the call it belongs to, and the tunnel lives on:", () => {
  const mistakes: ReadonlyArray<
    readonly [what: string, code: number, act: (end: Effect.Success<ReturnType<typeof serverEnd>>) => void]
  > = [
    ["an unknown method", Code.UNIMPLEMENTED, (end) => end.open(1, "/no.Such/Method")],
    ["an unknown method with more slashes", Code.UNIMPLEMENTED, (end) => end.open(1, "//x/y")],
    ["an empty method name", Code.INVALID_ARGUMENT, (end) => end.open(1, "")],
    ["a lone slash", Code.INVALID_ARGUMENT, (end) => end.open(1, "/")],
    ["a method name without a slash", Code.INVALID_ARGUMENT, (end) => end.open(1, "foo")],
    ["an unknown revision", Code.UNAVAILABLE, (end) => end.open(1, unaryPath, { revision: 2 })],
    [
      "metadata over the limit",
      Code.RESOURCE_EXHAUSTED,
      (end) =>
        end.open(1, unaryPath, { headers: metadataToWire(metadata({ k: "x".repeat(70_000) })) as Buffer })
    ],
    [
      "metadata that is malformed",
      Code.INVALID_ARGUMENT,
      (end) => end.open(1, unaryPath, { headers: Buffer.from([0x0a, 0xff]) })
    ],
    [
      "a malformed frame that names its stream",
      Code.INTERNAL,
      (end) => end.sendBytes(Buffer.from("080112ff", "hex"))
    ],
    [
      "a malformed frame on a stream that runs",
      Code.INTERNAL,
      (end) => {
        end.open(1, bidiPath)
        end.sendBytes(Buffer.from("08011aff", "hex"))
      }
    ],
    [
      "a frame of an unknown kind",
      Code.INTERNAL,
      (end) => {
        end.open(1, bidiPath)
        end.send({ _tag: "Unset", id: 1 })
      }
    ],
    [
      "a continuation without a message",
      Code.INVALID_ARGUMENT,
      (end) => {
        end.open(1, bidiPath)
        end.send({ _tag: "MoreData", id: 1, data: Buffer.alloc(1) })
      }
    ],
    [
      "a message inside a message",
      Code.INVALID_ARGUMENT,
      (end) => {
        end.open(1, bidiPath)
        end.send({ _tag: "Message", id: 1, size: 9, data: Buffer.alloc(1) })
        end.send({ _tag: "Message", id: 1, size: 9, data: Buffer.alloc(1) })
      }
    ],
    [
      "more bytes than announced",
      Code.INVALID_ARGUMENT,
      (end) => {
        end.open(1, bidiPath)
        end.send({ _tag: "Message", id: 1, size: 1, data: Buffer.alloc(2) })
      }
    ],
    [
      "a message over the limit, on its first frame",
      Code.RESOURCE_EXHAUSTED,
      (end) => {
        end.open(1, bidiPath)
        end.send({ _tag: "Message", id: 1, size: 5 * 1024 * 1024, data: Buffer.alloc(1) })
      }
    ],
    [
      "more bytes than the window",
      Code.RESOURCE_EXHAUSTED,
      (end) => {
        end.open(1, bidiPath)
        end.send({ _tag: "Message", id: 1, size: 65_537, data: Buffer.alloc(65_537) })
      }
    ],
    [
      "a request stream that ends inside a message",
      Code.INVALID_ARGUMENT,
      (end) => {
        end.open(1, bidiPath)
        end.send({ _tag: "Message", id: 1, size: 5, data: Buffer.alloc(1) })
        end.send({ _tag: "HalfClose", id: 1 })
      }
    ],
    [
      "a unary request that never came",
      Code.INVALID_ARGUMENT,
      (end) => {
        end.open(1, unaryPath)
        end.send({ _tag: "HalfClose", id: 1 })
      }
    ],
    [
      "two unary requests",
      Code.INVALID_ARGUMENT,
      (end) => {
        end.open(1, unaryPath)
        end.send({ _tag: "Message", id: 1, size: 0, data: Buffer.alloc(0) })
        end.send({ _tag: "Message", id: 1, size: 0, data: Buffer.alloc(0) })
      }
    ],
    [
      "a deadline that has passed",
      Code.DEADLINE_EXCEEDED,
      (end) =>
        end.open(1, bidiPath, { headers: metadataToWire(metadata({ "grpc-timeout": "0m" })) as Buffer })
    ]
  ]

  it.live.each(mistakes)("%s", ([_what, code, act]) =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      act(end)
      expect(outcome(yield* end.closeOf(1)).code).toBe(code)
      // Whatever that call's frames still are, they are ignored, and the next call is served.
      end.send({ _tag: "Message", id: 1, size: 3, data: Buffer.alloc(3) })
      end.send({ _tag: "HalfClose", id: 1 })
      end.send({ _tag: "Cancel", id: 1 })
      end.call(2, "next")
      expect(outcome(yield* end.closeOf(2)).code).toBe(Code.OK)
      expect(end.ended()).toBeUndefined()
    }).pipe(Effect.scoped)
  )

  it.live("a stream too many", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ maxStreams: 2 })
      for (const id of [1, 2, 3]) end.open(id, bidiPath)
      expect(outcome(yield* end.closeOf(3)).code).toBe(Code.RESOURCE_EXHAUSTED)
      end.send({ _tag: "Cancel", id: 1 })
      end.call(4, "next")
      expect(outcome(yield* end.closeOf(4)).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )

  it.live("a stream opened while the server refuses new ones; those that run go on", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      end.open(1, unaryPath)
      end.admission.refuse()
      end.call(2, "late")
      expect(outcome(yield* end.closeOf(2)).code).toBe(Code.UNAVAILABLE)
      end.send({ _tag: "Message", id: 1, size: 2, data: Buffer.from("ok") })
      end.send({ _tag: "HalfClose", id: 1 })
      expect(outcome(yield* end.closeOf(1)).code).toBe(Code.OK)
      expect(end.ended()).toBeUndefined()
    }).pipe(Effect.scoped)
  )
})

describe("a mistake that makes the ids unreliable ends the tunnel, with a typed violation:", () => {
  it.live.each([
    [
      "a duplicate id that is active",
      "ids-increase",
      (end: Server) => {
        end.open(1, bidiPath)
        end.open(1, bidiPath)
      }
    ],
    [
      "a decreasing id",
      "ids-increase",
      (end: Server) => {
        end.open(5, bidiPath)
        end.open(3, bidiPath)
      }
    ],
    ["a negative id", "ids-increase", (end: Server) => end.open(-5, bidiPath)],
    [
      "a frame for a stream that was never opened",
      "stream-unknown",
      (end: Server) => end.send({ _tag: "Cancel", id: 9 })
    ],
    [
      "bytes that name no stream",
      "unreadable-frame",
      (end: Server) => end.sendBytes(Buffer.from([0x08, 0xff]))
    ],
    [
      "an id that no number can hold",
      "unreadable-frame",
      (end: Server) => end.sendBytes(Buffer.from("08ffffffffffffffff7f2a00", "hex"))
    ]
  ] as const)("%s", ([_what, rule, act]) =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      act(end)
      const closed = yield* end.handle.closed
      expect(closed).toMatchObject({ _tag: "Violated", error: { rule } })
      expect(end.ended()?.error).toMatchObject({ code: Code.INTERNAL })
    }).pipe(Effect.scoped)
  )

  it.live("frames for the tunnel's own id and for skipped ids are ignored", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      end.open(7, unaryPath)
      end.send({ _tag: "Cancel", id: -1 })
      end.send({ _tag: "WindowUpdate", id: 3, increment: 1 })
      end.call(8, "next")
      expect(outcome(yield* end.closeOf(8)).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )

  it.live("answers that are provoked and never read", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      end.flow(false)
      for (let id = 1; id < 100_000; id++) end.open(id, "nothing")
      yield* refused(end, 65_537)
      end.flow(true)
      expect(yield* end.handle.closed).toMatchObject({ _tag: "Violated", error: { rule: "answers-unread" } })
    }).pipe(Effect.scoped)
  )

  it.live("aborts that are provoked and never read", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      end.flow(false)
      for (let id = 1; id <= 65_000; id++) end.open(id, "nothing")
      for (let id = 65_001; id <= 66_000; id++) {
        end.open(id, bidiPath)
        end.send({ _tag: "Unset", id })
      }
      yield* refused(end, 65_000)
      yield* turns(30)
      expect((yield* end.handle.stats).refused).toBe(65_000)
      end.flow(true)
      expect(yield* end.handle.closed).toMatchObject({ _tag: "Violated", error: { rule: "answers-unread" } })
    }).pipe(Effect.scoped)
  )
})

describe("a peer that reads", () => {
  it.live("may provoke more refusals in one turn than any batch of ours holds", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      for (let id = 1; id <= 20_000; id++) end.open(id, "nothing")
      expect(outcome(yield* end.closeOf(20_000)).code).toBe(Code.INVALID_ARGUMENT)
      end.call(20_001, "x")
      expect(outcome(yield* end.closeOf(20_001)).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )
})

type Server = Effect.Success<ReturnType<typeof serverEnd>>

/** Waits until the end has refused so many streams, however many of them it looks at in a turn. */
const refused = (end: Server, count: number): Effect.Effect<void> =>
  until(Effect.map(end.handle.stats, ({ refused }) => refused >= count))

describe("a handler that misbehaves costs its own call:", () => {
  const broken: ReadonlyArray<readonly [what: string, handler: UnaryHandler, code: number]> = [
    [
      "it throws",
      () => {
        throw new Error("broken")
      },
      Code.UNKNOWN
    ],
    [
      "it returns a rejected promise",
      (() => Promise.reject(new Error("broken"))) as UnaryHandler,
      Code.UNKNOWN
    ],
    [
      "it rejects with a status",
      (() => Promise.reject(Object.assign(new Error("gone"), { code: Code.NOT_FOUND }))) as UnaryHandler,
      Code.NOT_FOUND
    ],
    [
      "it answers with what cannot be serialized",
      (_call, callback) => callback(null, 5 as unknown as Buffer),
      Code.INTERNAL
    ],
    [
      "its trailers are no metadata",
      (_call, callback) => callback(null, Buffer.from("x"), { t: "x" } as unknown as grpc.Metadata),
      Code.INTERNAL
    ],
    [
      "its error carries something else as metadata",
      (_call, callback) =>
        callback({ code: Code.NOT_FOUND, metadata: { t: "x" } as unknown as grpc.Metadata }),
      Code.NOT_FOUND
    ],
    [
      "its error has a code that no number on the wire holds",
      (_call, callback) => callback({ code: 1e300 as grpc.status }),
      Code.UNKNOWN
    ],
    [
      "its headers are larger than the limit",
      (call) => call.sendMetadata(metadata({ t: "x".repeat(70_000) })),
      Code.RESOURCE_EXHAUSTED
    ],
    [
      "its trailers are larger than the limit",
      (_call, callback) => callback(null, Buffer.from("x"), metadata({ t: "x".repeat(70_000) })),
      Code.RESOURCE_EXHAUSTED
    ],
    [
      "its error is longer than the limit",
      (_call, callback) => callback({ code: Code.NOT_FOUND, details: "x".repeat(70_000) }),
      Code.RESOURCE_EXHAUSTED
    ],
    [
      "it emits its error, later",
      (call) =>
        void setImmediate(() =>
          call.emit("error", Object.assign(new Error("gone"), { code: Code.NOT_FOUND }))
        ),
      Code.NOT_FOUND
    ],
    [
      "its trailers cannot be carried",
      (_call, callback) => callback(null, Buffer.from("x"), metadata({ "t-bin": Buffer.from([0xff]) })),
      Code.INTERNAL
    ],
    [
      "its headers cannot be carried",
      (call) => call.sendMetadata(metadata({ "t-bin": Buffer.from([0xff]) })),
      Code.INTERNAL
    ],
    [
      "it answers twice",
      (_call, callback) => {
        callback({ code: Code.ABORTED })
        callback(null, Buffer.from("x"))
      },
      Code.ABORTED
    ]
  ]

  it.live.each(broken)("%s", ([_what, handler, code]) =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ handlers: { Unary: handler } })
      end.call(1, "x")
      expect(outcome(yield* end.closeOf(1)).code).toBe(code)
      end.open(2, bidiPath)
      end.send({ _tag: "HalfClose", id: 2 })
      expect(outcome(yield* end.closeOf(2)).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )
})

describe("a streaming handler that fails answers its call:", () => {
  const failing = (): Readable =>
    Readable.from(
      (async function* () {
        yield Buffer.from("part")
        throw new Error("source")
      })()
    )
  const gone = (): Error => Object.assign(new Error("gone"), { code: Code.NOT_FOUND })

  it.live.each<readonly [what: string, handler: ServerStreamHandler, code: number]>([
    ["it destroys its call with an error", (call) => void call.destroy(gone()), Code.NOT_FOUND],
    [
      "it is the end of a pipeline that fails",
      (call) => void pipeline(failing(), call as unknown as Writable, () => undefined),
      Code.UNKNOWN
    ],
    [
      "it writes after its end, with writes that still wait",
      (call) => {
        call.write(Buffer.alloc(100_000))
        call.end()
        call.write(Buffer.from("late"))
      },
      Code.UNKNOWN
    ],
    ["it ends with a message for trailers", (call) => call.end(Buffer.from("last") as never), Code.INTERNAL]
  ])("%s", ([_what, ServerStream, code]) =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ handlers: { ServerStream } })
      end.open(1, "/curfew.test.Echo/ServerStream")
      end.send({ _tag: "Message", id: 1, size: 0, data: Buffer.alloc(0) })
      end.send({ _tag: "HalfClose", id: 1 })
      end.send({ _tag: "WindowUpdate", id: 1, increment: 1_000_000 })
      expect(outcome(yield* end.closeOf(1)).code).toBe(code)
      expect((yield* end.handle.stats).streams).toBe(0)
    }).pipe(Effect.scoped)
  )

  it.live("it rejects while its writes wait, and their callbacks come", () =>
    Effect.gen(function* () {
      const called: Array<string> = []
      const ServerStream = (async (call: grpc.ServerWritableStream<Buffer, Buffer>) => {
        for (const text of ["a", "b"]) call.write(Buffer.from(text), () => called.push(text))
        throw gone()
      }) as ServerStreamHandler
      const end = yield* serverEnd({ handlers: { ServerStream } })
      end.open(1, "/curfew.test.Echo/ServerStream")
      end.send({ _tag: "Message", id: 1, size: 0, data: Buffer.alloc(0) })
      end.send({ _tag: "HalfClose", id: 1 })
      expect(outcome(yield* end.closeOf(1)).code).toBe(Code.NOT_FOUND)
      yield* Effect.repeat(Effect.yieldNow, { until: () => called.length === 2 })
    }).pipe(Effect.scoped)
  )

  it.live("a client-streaming one emits its error", () =>
    Effect.gen(function* () {
      const ClientStream: ClientStreamHandler = (call) => void setImmediate(() => call.emit("error", gone()))
      const end = yield* serverEnd({ handlers: { ClientStream } })
      end.open(1, "/curfew.test.Echo/ClientStream")
      expect(outcome(yield* end.closeOf(1)).code).toBe(Code.NOT_FOUND)
    }).pipe(Effect.scoped)
  )
})

describe("a deadline that is far away", () => {
  it.live("occupies nothing once its call has ended", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd()
      const headers = metadataToWire(metadata({ "grpc-timeout": "9H" })) as Buffer
      end.open(1, bidiPath, { headers })
      end.open(2, bidiPath, { headers })
      expect(yield* end.handle.stats).toMatchObject({ streams: 2, deadlines: 2 })
      end.send({ _tag: "HalfClose", id: 1 })
      yield* end.closeOf(1)
      end.send({ _tag: "Cancel", id: 2 })
      expect(yield* end.handle.stats).toMatchObject({ streams: 0, deadlines: 0 })
    }).pipe(Effect.scoped)
  )
})

describe("a handler that stopped reading early", () => {
  it.live("can still write and end, and the callback of each write comes", () =>
    Effect.gen(function* () {
      const called: Array<string> = []
      const Bidi = (async (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
        for await (const _first of call) break
        for (const text of ["a", "b"]) call.write(Buffer.from(text), () => called.push(text))
        call.end()
      }) as BidiHandler
      const end = yield* serverEnd({ handlers: { Bidi } })
      end.open(1, bidiPath)
      end.send({ _tag: "Message", id: 1, size: 0, data: Buffer.alloc(0) })
      expect(outcome(yield* end.closeOf(1)).code).toBe(Code.OK)
      expect(end.written.filter((frame) => frame._tag === "Message").length).toBe(2)
      expect(called).toEqual(["a", "b"])
    }).pipe(Effect.scoped)
  )
})

describe("a handler's write that waits for credit", () => {
  it.live("is told PeerGone when its peer cancels", () =>
    Effect.gen(function* () {
      const written = Deferred.makeUnsafe<unknown>()
      const Bidi: BidiHandler = (call) => {
        call.write(
          Buffer.from("held"),
          (error: unknown) => void Deferred.doneUnsafe(written, Effect.succeed(error))
        )
      }
      const end = yield* serverEnd({ handlers: { Bidi } })
      end.open(1, bidiPath, { window: 0 })
      yield* end.next((frame): frame is never => frame._tag === "ResponseHeaders")
      end.send({ _tag: "Cancel", id: 1 })
      expect(yield* Deferred.await(written)).toMatchObject({ _tag: "PeerGone", streamId: 1 })
      expect(end.written.filter((frame) => frame._tag === "CloseStream")).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("goes out as credit comes, cut to what there is", () =>
    Effect.gen(function* () {
      const Bidi: BidiHandler = (call) => {
        call.write(Buffer.from("0123456789"))
        call.end()
      }
      const end = yield* serverEnd({ handlers: { Bidi } })
      end.open(1, bidiPath, { window: 4 })
      yield* end.next((frame): frame is never => frame._tag === "Message")
      end.send({ _tag: "WindowUpdate", id: 1, increment: 0xffff_ffff })
      end.send({ _tag: "WindowUpdate", id: 1, increment: 0xffff_ffff })
      yield* end.closeOf(1)
      const pieces = end.written.flatMap((frame) => ("data" in frame ? [frame.data.toString()] : []))
      expect(pieces).toEqual(["0123", "456789"])
    }).pipe(Effect.scoped)
  )
})
