import { CancelReason, isCancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { TunnelCall } from "../src/index.ts"
import { decodeClientFrame } from "../src/internal/decode.ts"
import { encodeFrame } from "../src/internal/encode.ts"
import { allExtensions, extensionsKey } from "../src/internal/extensions.ts"
import { MetadataProblem, metadataToWire } from "../src/internal/metadata.ts"
import { metadataFromWire } from "../src/internal/metadataFromWire.ts"
import { maxReason, reasonFromWire, reasonToWire } from "../src/internal/reasonWire.ts"
import { type EchoClient, metadata, type UnaryHandler, unary } from "./support/echo.ts"
import { clientEnd, serverEnd } from "./support/engines.ts"
import { type Kind, kinds, tunnelPair } from "./support/network.ts"

const { status: Code } = grpc
const cancelKey = Symbol.for("curfew.cancel")

const flat: ReadonlyArray<CancelReason> = [
  CancelReason.ClientGone({ transport: "http2", detail: "the socket closed" }),
  CancelReason.ClientGone({ transport: "ws" }),
  CancelReason.Deadline({ at: 1_700_000_000_000, origin: "local", scope: "checkout" }),
  CancelReason.Shutdown({ phase: "drain" }),
  CancelReason.Unobserved({ lingered: Duration.millis(250) }),
  CancelReason.LimitExceeded({ limit: "streams", detail: "at most 7 – für alle" }),
  CancelReason.Superseded(),
  CancelReason.Requested({ message: "the user closed the dialog" }),
  CancelReason.Unknown()
]

const anyReason: fc.Arbitrary<CancelReason> = fc.letrec<{ reason: CancelReason }>((tie) => ({
  reason: fc.oneof(
    { maxDepth: 6 },
    fc.constantFrom(...flat),
    fc
      .string({ unit: "grapheme", maxLength: 2000 })
      .map((message): CancelReason => CancelReason.Requested({ message })),
    fc
      .record({ limit: fc.string({ maxLength: 200 }), detail: fc.string({ maxLength: 2000 }) })
      .map(CancelReason.LimitExceeded),
    fc
      .record({ detail: fc.string({ unit: "grapheme", maxLength: 2000 }), because: tie("reason") })
      .map(({ because, detail }) => CancelReason.ClientGone({ transport: "tunnel", detail, because }))
  )
})).reason

describe("the reason of a cancel", () => {
  it.each(flat.map((reason) => [reason._tag, reason] as const))(
    "%s comes back as it went",
    (_tag, reason) => {
      expect(reasonFromWire(reasonToWire(reason))).toEqual(reason)
    }
  )

  it("keeps the cause of a failure at its end", () => {
    const sent = reasonToWire(CancelReason.SiblingFailed({ cause: Cause.fail("password 1234") }))
    expect(sent.includes("1234")).toBe(false)
    expect(reasonFromWire(sent)?._tag).toBe("SiblingFailed")
  })

  it("stays below its limit and readable, whatever it says", () => {
    fc.assert(
      fc.property(anyReason, (reason) => {
        const bytes = reasonToWire(reason)
        expect(bytes.length).toBeLessThanOrEqual(maxReason)
        expect(reasonFromWire(bytes)?._tag).toBe(reason._tag)
      })
    )
  })

  it("stays below its limit when every part of it is as long as can be", () => {
    const detail = "ü".repeat(2000)
    let reason: CancelReason = CancelReason.LimitExceeded({ limit: "x".repeat(200), detail })
    for (let depth = 0; depth < 3; depth++) {
      reason = CancelReason.ClientGone({ transport: "tunnel", detail, because: reason })
    }
    const bytes = reasonToWire(reason)
    expect(bytes.length).toBeLessThanOrEqual(maxReason)
    const read = reasonFromWire(bytes)
    expect(read).toMatchObject({ because: { because: { because: { _tag: "LimitExceeded" } } } })
    // A text is cut between two characters.
    expect(read).toMatchObject({ detail: expect.stringMatching(/^ü+$/) })
  })

  it("is nothing, and never a fault, when its bytes are anything else", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        const read = reasonFromWire(Buffer.from(bytes))
        expect(read === undefined || isCancelReason(read)).toBe(true)
      })
    )
    const said = reasonToWire(CancelReason.Requested({ message: "x" }))
    const padding = Buffer.from(`3a8110${"00".repeat(2049)}`, "hex")
    expect(reasonFromWire(Buffer.concat([said, padding.subarray(0, 20)]))).toBeUndefined()
    expect(reasonFromWire(Buffer.concat([said, padding]))).toBeUndefined()
    // A reason in a reason in a reason: `ClientGone` by `grpc`, as often as it is asked for.
    const nested = (depth: number): Buffer => {
      const own = Buffer.from("08011a0467727063", "hex")
      if (depth === 0) return own
      const because = nested(depth - 1)
      return Buffer.concat([own, Buffer.from([0x2a, because.length]), because])
    }
    expect(reasonFromWire(nested(3))?._tag).toBe("ClientGone")
    expect(reasonFromWire(nested(4))).toBeUndefined()
  })

  it("stands as field 1 in the empty message of a cancel, and others read that as empty", () => {
    const reason = reasonToWire(CancelReason.Requested({ message: "the user left" }))
    const frame = { _tag: "Cancel", id: 3, reason } as const
    const bytes = encodeFrame(frame)
    expect(bytes.toString("hex")).toBe(`080332130a110808120d${Buffer.from("the user left").toString("hex")}`)
    expect(decodeClientFrame(bytes)).toEqual(frame)
    expect(encodeFrame({ _tag: "Cancel", id: 3 }).toString("hex")).toBe("08033200")
  })

  it.live("leaves only for a peer that agreed on it", () =>
    Effect.gen(function* () {
      for (const extensions of [[], ["cancel-reason"]] as const) {
        const end = yield* clientEnd({ extensions })
        let call: grpc.ClientUnaryCall | undefined
        const answer = unary(end.client, Buffer.from("q"), {
          onCall: (it) => {
            call = it
          }
        })
        yield* end.sent(1, "HalfClose")
        call?.cancel()
        expect((yield* Effect.promise(() => answer)).code).toBe(Code.CANCELLED)
        const { reason } = yield* end.sent(1, "Cancel")
        expect(reason && reasonFromWire(reason)).toEqual(
          extensions.length === 0 ? undefined : CancelReason.Requested({ message: "Cancelled on client" })
        )
      }
    }).pipe(Effect.scoped)
  )

  it.live.each([
    ["agreed on", ["cancel-reason"], { because: CancelReason.Superseded() }],
    ["not agreed on", [], {}]
  ] as const)("arrives as the peer's word when it was %s", ([, extensions, because]) =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ extensions })
      end.open(1, "/curfew.test.Echo/Bidi")
      end.send({ _tag: "Cancel", id: 1, reason: reasonToWire(CancelReason.Superseded()) })
      yield* Effect.repeat(Effect.yieldNow, {
        until: () => end.events.some((event) => event._tag === "StreamClosed")
      })
      const cancelled = end.events.find((event) => event._tag === "StreamCancelled")
      const detail = "the caller cancelled"
      expect(cancelled?.reason).toEqual({ _tag: "ClientGone", transport: "tunnel", detail, ...because })
    }).pipe(Effect.scoped)
  )

  it.live("that is malformed or huge costs the cancel nothing", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({ extensions: ["cancel-reason"] })
      const bad = [Buffer.from([0xff]), Buffer.alloc(60_000, 0x0a), Buffer.alloc(0)]
      for (const [index, reason] of bad.entries()) {
        end.open(index + 1, "/curfew.test.Echo/Bidi")
        end.send({ _tag: "Cancel", id: index + 1, reason })
      }
      const cancels = () => end.events.filter((event) => event._tag === "StreamCancelled")
      yield* Effect.repeat(Effect.yieldNow, { until: () => cancels().length === bad.length })
      for (const { by, reason } of cancels()) {
        expect([by, reason._tag, "because" in reason]).toEqual(["peer", "ClientGone", false])
      }
    }).pipe(Effect.scoped)
  )
})

/** A handler that tells why it was cancelled. */
const waiting = () => {
  const reasons: Array<CancelReason | undefined> = []
  let started = 0
  const Unary: UnaryHandler = (call) => {
    started++
    call.on("cancelled", () => reasons.push(TunnelCall.reason(call)))
  }
  const until = (holds: () => boolean) => Effect.repeat(Effect.yieldNow, { until: holds })
  return { reasons, Unary, begun: (count: number) => until(() => started >= count), told: until }
}

const callOf = (client: EchoClient, options: grpc.CallOptions = {}): grpc.ClientUnaryCall => {
  const call = client.Unary(Buffer.from("q"), new grpc.Metadata(), options, () => undefined)
  call.on("error", () => undefined)
  return call
}

describe.each(kinds)("between two ends of this library, over a %s tunnel,", (kind: Kind) => {
  it.live("everything that this end speaks is agreed on", () =>
    Effect.gen(function* () {
      const { channel } = yield* tunnelPair(kind)
      const named = String(channel.metadata.get(extensionsKey)[0]).split(", ")
      expect(new Set(named)).toEqual(new Set(allExtensions))
    }).pipe(Effect.scoped)
  )

  it.live("the typed reason of a cancel reaches the handler as what the peer said", () =>
    Effect.gen(function* () {
      const handler = waiting()
      const { channel } = yield* tunnelPair(kind, { handlers: { Unary: handler.Unary } })
      const call = channel.grpc.createCall(
        "/curfew.test.Echo/Unary",
        Number.POSITIVE_INFINITY,
        null,
        null,
        null
      )
      call.start(new grpc.Metadata(), {
        onReceiveMetadata: () => undefined,
        onReceiveMessage: () => undefined,
        onReceiveStatus: () => undefined
      })
      call.sendMessageWithContext({}, Buffer.from("q"))
      call.halfClose()
      yield* handler.begun(1)
      const because = CancelReason.LimitExceeded({ limit: "budget" })
      ;(call as unknown as Record<symbol, (...args: ReadonlyArray<unknown>) => void>)[cancelKey]?.(
        Code.CANCELLED,
        "over budget",
        because
      )
      yield* handler.told(() => handler.reasons.length === 1)
      expect(handler.reasons[0]).toMatchObject({ _tag: "ClientGone", transport: "tunnel", because })
    }).pipe(Effect.scoped)
  )

  it.live("why the calling end closes its tunnel reaches the handlers", () =>
    Effect.gen(function* () {
      const handler = waiting()
      const { channel, client } = yield* tunnelPair(kind, { handlers: { Unary: handler.Unary } })
      callOf(client)
      yield* handler.begun(1)
      const because = CancelReason.Requested({ message: "maintenance" })
      yield* channel.close(because)
      yield* handler.told(() => handler.reasons.length === 1)
      expect(handler.reasons[0]).toMatchObject({ _tag: "ClientGone", because })
    }).pipe(Effect.scoped)
  )

  it.live("a reason goes on through a handler that calls another tunnel for its caller", () =>
    Effect.gen(function* () {
      const last = waiting()
      const inner = yield* tunnelPair(kind, { handlers: { Unary: last.Unary } })
      const Unary: UnaryHandler = (call) => void callOf(inner.client, { parent: call })
      const outer = yield* tunnelPair(kind, { handlers: { Unary } })
      const call = callOf(outer.client)
      yield* last.begun(1)
      call.cancel()
      yield* last.told(() => last.reasons.length === 1)
      const because = CancelReason.Requested({ message: "Cancelled on client" })
      expect(last.reasons[0]).toMatchObject({ _tag: "ClientGone", because: { _tag: "ClientGone", because } })
    }).pipe(Effect.scoped)
  )

  it.live("binary metadata of any bytes travels both ways", () =>
    Effect.gen(function* () {
      const value = Buffer.from([0xff, 0x00, 0xfe, 0x80, 0xc0])
      const { client } = yield* tunnelPair(kind)
      const sent = metadata({ "head-bin": value, "tail-bin": value })
      const answer = yield* Effect.promise(() => unary(client, Buffer.from("q"), { metadata: sent }))
      expect(answer.code).toBe(Code.OK)
      expect(answer.headers?.get("head-bin")).toEqual([value])
      expect(answer.trailers?.get("tail-bin")).toEqual([value])
    }).pipe(Effect.scoped)
  )
})

describe("binary metadata that is not UTF-8", () => {
  const odd = () => metadata({ "tail-bin": Buffer.from([0xff]) })
  const wire = metadataToWire(odd(), true) as Buffer

  it("is these bytes, as anybody's bytes field has them", () => {
    expect(wire.toString("hex")).toBe("0a0f0a087461696c2d62696e12030a01ff")
    expect(metadataFromWire(wire)).toEqual(odd())
    expect(metadataToWire(odd())).toBeInstanceOf(MetadataProblem)
  })

  it.live("fails its one call towards any other peer, says what to do, and never reaches the wire", () =>
    Effect.gen(function* () {
      const end = yield* clientEnd()
      const answer = yield* Effect.promise(() => unary(end.client, Buffer.from("q"), { metadata: odd() }))
      expect(answer).toMatchObject({
        code: Code.INTERNAL,
        details:
          'The value of "tail-bin" is not UTF-8, and the other end of the tunnel takes nothing else: send it as base64'
      })
      expect(end.written).toEqual([])
      expect(end.ended()).toBeUndefined()
    }).pipe(Effect.scoped)
  )

  it.live("from a handler costs that handler's call, and the tunnel lives on", () =>
    Effect.gen(function* () {
      const end = yield* serverEnd({
        handlers: { Unary: (call, callback) => callback(null, call.request, odd()) }
      })
      end.call(1, "q")
      const closed = yield* end.closeOf(1)
      expect(closed.status?.includes("send it as base64")).toBe(true)
      end.open(2, "/curfew.test.Echo/Nothing")
      yield* end.closeOf(2)
    }).pipe(Effect.scoped)
  )
})
