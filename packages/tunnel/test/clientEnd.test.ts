import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { noBytes } from "../src/internal/frame.ts"
import { metadataToWire } from "../src/internal/metadata.ts"
import { refusalToWire } from "../src/internal/rpcStatus.ts"
import { collect, definition, type EchoClient, metadata, unary } from "./support/echo.ts"
import { clientEnd, statusOf } from "./support/engines.ts"

const { status: Code } = grpc
type Client = Effect.Success<ReturnType<typeof clientEnd>>

/** A unary call that is on the wire, and its outcome. */
const begin = (end: Client) =>
  Effect.gen(function* () {
    const answer = unary(end.client, Buffer.from("q"))
    yield* end.sent(1, "HalfClose")
    return Effect.promise(() => answer)
  })

const close = (end: Client, id = 1): void =>
  end.send({ _tag: "CloseStream", id, trailers: noBytes, status: undefined })

const message = (end: Client, text: string, id = 1): void =>
  end.send({ _tag: "Message", id, size: text.length, data: Buffer.from(text) })

describe("a tunnel client", () => {
  it.live("sends a call as new stream, message and half-close, and takes headers, message and close", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd({ window: 5000 })
      const answer = yield* begin(end)
      expect(end.written.map((frame) => frame._tag)).toEqual(["NewStream", "Message", "HalfClose"])
      expect(end.written[0]).toMatchObject({
        id: 1,
        method: "/curfew.test.Echo/Unary",
        window: 5000,
        revision: 1
      })
      end.send({ _tag: "ResponseHeaders", id: 1, headers: noBytes })
      message(end, "a")
      close(end)
      expect(yield* answer).toMatchObject({ code: Code.OK, value: Buffer.from("a") })
    }).pipe(Effect.scoped)
  )

  it.live("accepts a response without headers, and headers that come late", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* begin(end)
      message(end, "a")
      end.send({ _tag: "ResponseHeaders", id: 1, headers: metadataToWire(metadata({ k: "v" })) as Buffer })
      end.send({ _tag: "ResponseHeaders", id: 1, headers: noBytes })
      close(end)
      const { code, headers } = yield* answer
      expect(code).toBe(Code.OK)
      expect(headers?.get("k")).toEqual(["v"])
    }).pipe(Effect.scoped)
  )

  it.live("sends the remaining time as grpc-timeout", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      end.client.Bidi(new grpc.Metadata(), { deadline: Date.now() + 60_000 }).on("error", () => undefined)
      const { headers } = yield* end.sent(1, "NewStream")
      expect(headers?.toString("latin1")).toMatch(/grpc-timeout.*[56]\d{4}m/s)
    }).pipe(Effect.scoped)
  )

  it.live("keeps nothing of a far deadline once its call has ended", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const call = { deadline: Date.now() + 3_600_000 }
      const answer = unary(end.client, Buffer.from("q"), { call })
      yield* end.sent(1, "HalfClose")
      expect(yield* end.channel.stats).toMatchObject({ streams: 1, deadlines: 1 })
      message(end, "a")
      close(end)
      expect((yield* Effect.promise(() => answer)).code).toBe(Code.OK)
      expect(yield* end.channel.stats).toMatchObject({ streams: 0, deadlines: 0 })
    }).pipe(Effect.scoped)
  )

  it.live("numbers streams 1, 2, 3 in the order in which they reach the wire", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      for (let count = 0; count < 3; count++) end.client.Bidi().on("error", () => undefined)
      yield* end.sent(3, "NewStream")
      expect(end.written.map((frame) => frame.id)).toEqual([1, 2, 3])
    }).pipe(Effect.scoped)
  )
})

describe("opening fails with a typed error when the peer", () => {
  it.live.each([
    [
      "speaks no revision that is spoken here",
      { settings: { _tag: "Settings", id: -1, revisions: [7], window: 1 } },
      Code.FAILED_PRECONDITION
    ],
    [
      "speaks only with flow control, which is switched off here",
      { flowControl: false, settings: { _tag: "Settings", id: -1, revisions: [1], window: 1 } },
      Code.FAILED_PRECONDITION
    ],
    [
      "sends settings on another id",
      { settings: { _tag: "Settings", id: 0, revisions: [1], window: 1 } },
      Code.INTERNAL
    ],
    [
      "sends something else first",
      { settings: { _tag: "WindowUpdate", id: -1, increment: 1 } },
      Code.INTERNAL
    ]
  ] as const)("%s", ([_what, options, code]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(clientEnd(options))
      expect(error).toMatchObject({ _tag: "TunnelOpenError", code })
    }).pipe(Effect.scoped)
  )
})

describe("a mistake of the server costs the call it belongs to, is announced by a cancel, and the tunnel lives on:", () => {
  const mistakes: ReadonlyArray<readonly [what: string, code: number, act: (end: Client) => void]> = [
    [
      "a continuation without a message",
      Code.INTERNAL,
      (end) => end.send({ _tag: "MoreData", id: 1, data: Buffer.alloc(1) })
    ],
    [
      "a message inside a message",
      Code.INTERNAL,
      (end) => {
        end.send({ _tag: "Message", id: 1, size: 5, data: Buffer.alloc(1) })
        end.send({ _tag: "Message", id: 1, size: 5, data: Buffer.alloc(1) })
      }
    ],
    [
      "more bytes than announced",
      Code.INTERNAL,
      (end) => end.send({ _tag: "Message", id: 1, size: 1, data: Buffer.alloc(5) })
    ],
    [
      "more bytes than the window",
      Code.RESOURCE_EXHAUSTED,
      (end) => end.send({ _tag: "Message", id: 1, size: 65_537, data: Buffer.alloc(65_537) })
    ],
    [
      "a message over the limit",
      Code.RESOURCE_EXHAUSTED,
      (end) => end.send({ _tag: "Message", id: 1, size: 5 * 1024 * 1024, data: Buffer.alloc(1) })
    ],
    ["a frame of an unknown kind", Code.INTERNAL, (end) => end.send({ _tag: "Unset", id: 1 })],
    [
      "settings on a stream",
      Code.INTERNAL,
      (end) => end.send({ _tag: "Settings", id: 1, revisions: [1], window: 1 })
    ],
    ["a malformed frame", Code.INTERNAL, (end) => end.sendBytes(Buffer.from("08011aff", "hex"))],
    [
      "headers that are malformed",
      Code.INTERNAL,
      (end) => end.send({ _tag: "ResponseHeaders", id: 1, headers: Buffer.from([0x0a, 0xff]) })
    ],
    [
      "headers over the limit",
      Code.RESOURCE_EXHAUSTED,
      (end) =>
        end.send({
          _tag: "ResponseHeaders",
          id: 1,
          headers: metadataToWire(metadata({ k: "x".repeat(70_000) })) as Buffer
        })
    ]
  ]

  it.live.each(mistakes)("%s", ([_what, code, act]) =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* begin(end)
      act(end)
      expect((yield* answer).code).toBe(code)
      yield* end.sent(1, "Cancel")
      // What the server still sends for that id is ignored.
      message(end, "late")
      close(end)
      const next = unary(end.client, Buffer.from("q"))
      yield* end.sent(2, "HalfClose")
      message(end, "b", 2)
      close(end, 2)
      expect((yield* Effect.promise(() => next)).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )

  it.live("a close inside a message is INTERNAL, and needs no cancel", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* begin(end)
      end.send({ _tag: "Message", id: 1, size: 5, data: Buffer.alloc(1) })
      close(end)
      expect((yield* answer).code).toBe(Code.INTERNAL)
      expect(end.written.some((frame) => frame._tag === "Cancel")).toBe(false)
    }).pipe(Effect.scoped)
  )

  it.live("OK without the response that a unary method owes is an error", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* begin(end)
      close(end)
      expect((yield* answer).value).toBeUndefined()
    }).pipe(Effect.scoped)
  )
})

describe("an answer that comes early keeps its status and its response:", () => {
  it.live("a refusal while the request still waits for credit", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = unary(end.client, Buffer.alloc(200_000))
      yield* end.sent(1, "Message")
      end.send({ _tag: "CloseStream", id: 1, ...refusalToWire(Code.PERMISSION_DENIED, "no") })
      expect(yield* Effect.promise(() => answer)).toMatchObject({
        code: Code.PERMISSION_DENIED,
        details: "no"
      })
    }).pipe(Effect.scoped)
  )

  it.live("OK while the request stream is still open", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      let value: Buffer | undefined
      const call = end.client.ClientStream(new grpc.Metadata(), {}, (_error, answer) => {
        value = answer
      })
      const status = statusOf(call)
      yield* end.sent(1, "NewStream")
      message(end, "done")
      close(end)
      expect((yield* Effect.promise(() => status)).code).toBe(Code.OK)
      expect(value?.toString()).toBe("done")
      // Sends fail softly from here on: the callback comes, and no error event does.
      yield* Effect.promise(
        () => new Promise<void>((resolve) => call.write(Buffer.from("late"), () => resolve()))
      )
      expect(end.events.filter((event) => event._tag === "LateWrite").length).toBe(1)
    }).pipe(Effect.scoped)
  )

  it.live("an error status follows the messages that came before it", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const collected = collect(end.client.ServerStream(Buffer.from([3])))
      yield* end.sent(1, "HalfClose")
      for (const text of ["a", "b", "c"]) message(end, text)
      end.send({ _tag: "CloseStream", id: 1, ...refusalToWire(Code.ABORTED, "enough") })
      const { code, messages } = yield* Effect.promise(() => collected)
      expect(code).toBe(Code.ABORTED)
      expect(messages.map(String)).toEqual(["a", "b", "c"])
    }).pipe(Effect.scoped)
  )
})

describe("a call that ends before its first frame has left", () => {
  it.live("never reaches the wire, also while the peer does not read", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      end.flow(false)
      const first = unary(end.client, Buffer.from("first"))
      yield* end.sent(1, "NewStream")
      for (let count = 0; count < 50; count++) {
        let call: grpc.ClientUnaryCall | undefined
        const answer = unary(end.client, Buffer.from("q"), {
          onCall: (it) => {
            call = it
          }
        })
        call?.cancel()
        expect((yield* Effect.promise(() => answer)).code).toBe(Code.CANCELLED)
      }
      end.flow(true)
      const last = unary(end.client, Buffer.from("last"))
      yield* end.sent(52, "HalfClose")
      expect(new Set(end.written.map(({ id }) => id))).toEqual(new Set([1, 52]))
      for (const id of [1, 52]) {
        message(end, "a", id)
        close(end, id)
      }
      const codes = (yield* Effect.promise(() => Promise.all([first, last]))).map(({ code }) => code)
      expect(codes).toEqual([Code.OK, Code.OK])
    }).pipe(Effect.scoped)
  )
})

describe("call credentials", () => {
  const credentials = grpc.credentials.createFromMetadataGenerator((params, callback) =>
    callback(null, metadata({ authorization: `for ${params.service_url}` }))
  )

  it.live("are refused over a connection that is not encrypted", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* Effect.promise(() =>
        unary(end.client, Buffer.from("q"), { call: { credentials } })
      )
      expect(answer.code).toBe(Code.UNAUTHENTICATED)
      expect(end.written).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("add their metadata over an encrypted one, with what was sent meanwhile behind it", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd({ secure: true })
      void unary(end.client, Buffer.from("q"), { call: { credentials } })
      const { headers } = yield* end.sent(1, "NewStream")
      expect(headers?.toString("latin1")).toContain("for https://memory/curfew.test.Echo")
      yield* end.sent(1, "HalfClose")
      expect(end.written.map((frame) => frame._tag)).toEqual(["NewStream", "Message", "HalfClose"])
    }).pipe(Effect.scoped)
  )

  it.live("that fail fail their call", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd({ secure: true })
      const broken = grpc.credentials.createFromMetadataGenerator((_params, callback) =>
        callback(new Error("no token"))
      )
      const answer = yield* Effect.promise(() =>
        unary(end.client, Buffer.from("q"), { call: { credentials: broken } })
      )
      expect(answer).toMatchObject({ code: Code.UNAUTHENTICATED })
    }).pipe(Effect.scoped)
  )
})

describe("metadata that cannot be carried fails its call and sends nothing:", () => {
  it.live.each([
    ["binary values that are not UTF-8", metadata({ "k-bin": Buffer.from([0xff, 0xfe]) }), Code.INTERNAL],
    ["more than the limit", metadata({ k: "x".repeat(70_000) }), Code.RESOURCE_EXHAUSTED]
  ] as const)("%s", ([_what, sent, code]) =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* Effect.promise(() => unary(end.client, Buffer.from("q"), { metadata: sent }))
      expect(answer.code).toBe(code)
      expect(end.written).toEqual([])
    }).pipe(Effect.scoped)
  )
})

describe("a stub that misbehaves costs its own call:", () => {
  it.live("its serializer gives no bytes", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const broken = { ...definition.Unary, requestSerialize: () => undefined as unknown as Buffer }
      const Broken = grpc.makeGenericClientConstructor({ Unary: broken }, "Broken")
      const stub = end.channel.client(Broken as unknown as typeof EchoClient)
      const answer = yield* Effect.promise(() => unary(stub, Buffer.from("q")))
      expect(answer.code).toBe(Code.INTERNAL)
      const next = unary(end.client, Buffer.from("q"))
      yield* end.sent(2, "HalfClose")
      message(end, "a", 2)
      close(end, 2)
      expect((yield* Effect.promise(() => next)).code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )

  it.live("its method name is longer than metadata may be", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const long = { ...definition.Unary, path: `/${"x".repeat(70_000)}/Unary` }
      const Long = grpc.makeGenericClientConstructor({ Unary: long }, "Long")
      const stub = end.channel.client(Long as unknown as typeof EchoClient)
      const answer = yield* Effect.promise(() => unary(stub, Buffer.from("q")))
      expect(answer.code).toBe(Code.RESOURCE_EXHAUSTED)
      expect(end.written).toEqual([])
    }).pipe(Effect.scoped)
  )
})

describe("the end of the tunnel", () => {
  it.live("gives every call UNAVAILABLE, however the carrier ended", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* begin(end)
      end.end({ code: Code.UNAVAILABLE, details: "reset" })
      expect((yield* answer).code).toBe(Code.UNAVAILABLE)
      expect(yield* end.channel.closed).toMatchObject({ _tag: "Lost", error: { _tag: "TunnelLost" } })
      const after = yield* Effect.promise(() => unary(end.client, Buffer.from("q")))
      expect(after.code).toBe(Code.UNAVAILABLE)
    }).pipe(Effect.scoped)
  )

  it.live("by a frame for an id that was never used is a typed violation", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* begin(end)
      message(end, "x", 2)
      expect((yield* answer).code).toBe(Code.UNAVAILABLE)
      expect(yield* end.channel.closed).toMatchObject({
        _tag: "Violated",
        error: { rule: "stream-unknown", streamId: 2 }
      })
    }).pipe(Effect.scoped)
  )

  it.live("by close cancels what runs, on the wire too, and waits for it", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* begin(end)
      yield* end.channel.close()
      expect((yield* answer).code).toBe(Code.UNAVAILABLE)
      expect(end.written.at(-1)).toEqual({ _tag: "Cancel", id: 1 })
      expect(end.ended()).toEqual({ error: undefined })
      expect(yield* end.channel.stats).toMatchObject({ streams: 0, opened: 1, cancelled: 1 })
    }).pipe(Effect.scoped)
  )
})
