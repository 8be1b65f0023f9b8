/** Handlers that take messages and callbacks in place of a call object. */
import type { CancelReason } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { TunnelCall } from "../src/index.ts"
import type { PlainCall, PlainEntrance } from "../src/internal/plainCall.ts"
import { RequestMetadata } from "../src/internal/requestMetadata.ts"
import type { BidiHandler } from "./support/echo.ts"
import { clientEnd, serverEnd } from "./support/engines.ts"

const path = "/curfew.test.Echo/Bidi"

const plain = (entrance: PlainEntrance): BidiHandler =>
  Object.assign((() => expect.unreachable("a call object")) as BidiHandler, {
    [Symbol.for("curfew.plain")]: entrance
  })

/** An entrance that notes what it is told, and reads on at once: within what it is told. */
const noting = (log: Array<string>, ready: (call: PlainCall) => void = () => undefined) =>
  plain((call) => {
    ready(call)
    call.read()
    return {
      onMessage: (message) => {
        log.push(message.toString())
        call.read()
      },
      onEnd: () => log.push("end"),
      onCancelled: ({ _tag }) => log.push(`cancelled ${_tag}`)
    }
  })

describe("a plain call", () => {
  it.live(
    "is told its messages in order and the end behind them, also where it reads within what it is told",
    () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const end = yield* serverEnd({ handlers: { Bidi: noting(log) } })
        end.open(1, path)
        for (const text of ["a", "b", "c", "d"])
          end.send({ _tag: "Message", id: 1, size: 1, data: Buffer.from(text) })
        end.send({ _tag: "HalfClose", id: 1 })
        expect(log).toEqual(["a", "b", "c", "d", "end"])
      })
  )

  it.live("that begins to read when everything has come finds the end behind the last message", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      let call: PlainCall | undefined
      const Bidi = plain((given) => {
        call = given
        return {
          onMessage: (message) => {
            log.push(message.toString())
            given.read()
          },
          onEnd: () => log.push("end"),
          onCancelled: () => undefined
        }
      })
      const end = yield* serverEnd({ handlers: { Bidi } })
      end.open(1, path)
      for (const text of ["a", "b", "c"])
        end.send({ _tag: "Message", id: 1, size: 1, data: Buffer.from(text) })
      end.send({ _tag: "HalfClose", id: 1 })
      expect(log).toEqual([])
      call?.read()
      expect(log).toEqual(["a", "b", "c", "end"])
    })
  )

  it.live("hears of a cancel once, and of nothing after it", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const end = yield* serverEnd({ handlers: { Bidi: noting(log) } })
      end.open(1, path)
      end.send({ _tag: "Cancel", id: 1, reason: undefined })
      end.send({ _tag: "Cancel", id: 1, reason: undefined })
      end.send({ _tag: "Message", id: 1, size: 1, data: Buffer.from("late") })
      expect(log).toEqual(["cancelled ClientGone"])
    })
  )

  it.live("whose entrance throws is answered, and its tunnel goes on", () =>
    Effect.gen(function* () {
      const Bidi = plain(() => {
        throw new Error("no entrance")
      })
      const end = yield* serverEnd({ handlers: { Bidi } })
      end.open(1, path)
      yield* end.closeOf(1)
      end.call(2, "x")
      yield* end.closeOf(2)
    })
  )

  it.live(
    "has a call object for who asks, which knows of a cancel that was before and tells one that comes",
    () =>
      Effect.gen(function* () {
        const calls: Array<PlainCall> = []
        const end = yield* serverEnd({ handlers: { Bidi: noting([], (call) => calls.push(call)) } })
        end.open(1, path)
        end.open(2, path)
        const [first, second] = calls as [PlainCall, PlainCall]
        const told: Array<CancelReason["_tag"]> = []
        const early = first.object as grpc.ServerUnaryCall<unknown, unknown>
        expect(early).toBe(first.object)
        early.on("cancelled", (reason: CancelReason) => told.push(reason._tag))
        end.send({ _tag: "Cancel", id: 1, reason: undefined })
        end.send({ _tag: "Cancel", id: 2, reason: undefined })
        expect([early.cancelled, told]).toEqual([true, ["ClientGone"]])
        const late = second.object as grpc.ServerUnaryCall<unknown, unknown>
        expect([late.cancelled, late.getPath()]).toEqual([true, path])
        expect(TunnelCall.reason(late)?._tag).toBe("ClientGone")
      })
  )

  it.live("keeps its metadata for who asks late, the same each time and as it was changed", () =>
    Effect.gen(function* () {
      const calls: Array<PlainCall> = []
      const end = yield* serverEnd({ handlers: { Bidi: noting([], (call) => calls.push(call)) } })
      const client = yield* clientEnd()
      const metadata = new grpc.Metadata()
      metadata.set("x-text", "some")
      metadata.set("x-bytes-bin", Buffer.from("\0é"))
      const stub = client.client.makeBidiStreamRequest(path, Buffer.from, Buffer.from, metadata)
      stub.on("error", () => undefined)
      const { headers } = yield* client.sent(1, "NewStream")
      end.open(1, path, { headers })
      const [call] = calls as [PlainCall]
      expect(call.header("x-text")).toBe("some")
      expect(call.metadata.toJSON()).toEqual(metadata.toJSON())
      call.metadata.set("x-own", "mine")
      expect(call.metadata.get("x-own")).toEqual(["mine"])
      stub.cancel()
    })
  )
})

describe("request metadata", () => {
  it("is kept as it is once somebody has asked, and found again once it was packed", () => {
    const metadata = new grpc.Metadata()
    metadata.add("x-many", "one")
    metadata.add("x-many", "two")
    const asked = new RequestMetadata(metadata)
    expect(asked.whole).toBe(metadata)
    asked.pack()
    expect(asked.whole).toBe(metadata)
    const packed = new RequestMetadata(metadata)
    packed.pack()
    expect([packed.first("x-many"), packed.first("x-none")]).toEqual(["one", undefined])
    expect(packed.whole).not.toBe(metadata)
    expect(packed.whole.toJSON()).toEqual(metadata.toJSON())
    expect(packed.whole).toBe(packed.whole)
  })
})
