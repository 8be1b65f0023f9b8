/** One call on its way through, with both legs in the hands of the test. */
import { Duplex } from "node:stream"
import { CancelReason } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import { type ChannelInterface, status as Code, Metadata, type StatusObject } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { describe, expect, test } from "vitest"
import { carried } from "../src/internal/carried.ts"
import { type Incoming, relay } from "../src/internal/relay.ts"

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

const turns = async (count: number): Promise<void> => {
  for (let left = count; left > 0; left--) await turn()
}

interface Listener {
  readonly onReceiveMetadata: (metadata: Metadata) => void
  readonly onReceiveMessage: (message: Buffer) => void
  readonly onReceiveStatus: (status: StatusObject) => void
}

/** Both legs: a caller as grpc-js shows it, and a far end that writes down what it is told. */
const legs = () => {
  const told: Array<string> = []
  const incoming = Object.assign(
    new Duplex({
      objectMode: true,
      read: () => undefined,
      write: (chunk: Buffer, _, callback) => {
        told.push(`to caller: ${chunk}`)
        callback()
      },
      final: (callback) => callback()
    }),
    {
      metadata: new Metadata(),
      cancelled: false,
      getPath: () => "/a.B/C",
      getPeer: () => "caller",
      getDeadline: () => Number.POSITIVE_INFINITY,
      sendMetadata: () => told.push("headers to caller")
    }
  )
  incoming.on("error", (error) => told.push(`status to caller: ${error.message}`))
  let listener: Listener | undefined
  let flush: (() => void) | undefined
  const call = {
    start: (_: Metadata, heard: Listener) => {
      listener = heard
    },
    startRead: () => told.push("read"),
    sendMessageWithContext: ({ callback }: { callback: () => void }, message: Buffer) => {
      told.push(`message ${message}`)
      flush = callback
    },
    halfClose: () => told.push("half-close"),
    cancelWithStatus: (code: number, details: string) => {
      told.push(`cancel: ${details}`)
      setImmediate(() => listener?.onReceiveStatus({ code, details, metadata: new Metadata() }))
    }
  }
  const relayed = {
    incoming: incoming as unknown as Incoming,
    channel: { createCall: () => call } as unknown as ChannelInterface,
    rephrase: (status: StatusObject) => status,
    bytes: { requests: 0, responses: 0 }
  }
  const answer = (code: number, details: string) =>
    listener?.onReceiveStatus({ code, details, metadata: new Metadata() })
  return { told, incoming, relayed, answer, far: () => listener, flush: () => flush?.() }
}

describe("a relay", () => {
  test("passes an end on, but not the end that grpc-js makes of a cancel", async () => {
    const ended = legs()
    const done = Effect.runPromise(relay(ended.relayed))
    ended.incoming.push(null)
    await turns(6)
    expect(ended.told).toEqual(["read", "half-close"])
    ended.answer(Code.OK, "")
    expect(await done).toMatchObject({ code: Code.OK, cancelled: undefined })

    const cut = legs()
    const cutOff = Effect.runPromise(relay(cut.relayed))
    cut.incoming.once("end", () => setImmediate(() => cut.incoming.emit("cancelled", "cancelled")))
    cut.incoming.push(null)
    expect(await cutOff).toMatchObject({ cancelled: { _tag: "ClientGone" } })
    await turns(6)
    expect(cut.told).toEqual(["read", "cancel: the client has gone (grpc)"])
  })

  test("hands over one message, and asks for the next when it has been taken", async () => {
    const { answer, flush, incoming, relayed, told } = legs()
    const done = Effect.runPromise(relay(relayed))
    for (const message of ["one", "two"]) incoming.push(Buffer.from(message))
    await turns(3)
    expect(told).toEqual(["read", "message one"])
    flush()
    await turns(3)
    expect(told).toEqual(["read", "message one", "message two"])
    answer(Code.OK, "")
    await done
    expect(relayed.bytes).toEqual({ requests: 6, responses: 0 })
  })

  test("an interrupt cancels the other leg with its reason, tells the caller, and waits for both", async () => {
    const { relayed, told } = legs()
    const work = CancelScope.run((scope) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(relay(relayed))
        yield* Effect.yieldNow
        yield* scope.cancel(CancelReason.Shutdown({ phase: "force" }))
        return yield* Fiber.join(fiber)
      })
    )
    expect((await Effect.runPromise(work))._tag).toBe("Cancelled")
    expect(told[0]).toBe("read")
    expect(told[1]).toMatch(/^cancel: the server is shutting down/)
    expect(told[2]).toMatch(/^status to caller/)
  })

  test("a deadline that the other leg hears of first counts as a deadline, and an answer does not", async () => {
    const late = legs()
    late.incoming.getDeadline = () => 1
    const timedOut = Effect.runPromise(relay(late.relayed))
    late.incoming.on("error", () => late.incoming.end())
    late.answer(Code.DEADLINE_EXCEEDED, "Deadline exceeded")
    expect(await timedOut).toMatchObject({ code: Code.DEADLINE_EXCEEDED, cancelled: { _tag: "Deadline" } })
    const answered = legs()
    const done = Effect.runPromise(relay(answered.relayed))
    answered.incoming.on("error", () => answered.incoming.end())
    answered.answer(Code.DEADLINE_EXCEEDED, "of a call of the backend's own")
    expect(await done).toMatchObject({ code: Code.DEADLINE_EXCEEDED, cancelled: undefined })
  })

  test("a status without code and text, which grpc-js gives for what it cannot decompress, is INTERNAL", async () => {
    const { far, incoming, relayed } = legs()
    const done = Effect.runPromise(relay(relayed))
    incoming.on("error", () => incoming.end())
    far()?.onReceiveStatus({} as StatusObject)
    const end = await done
    expect(end.code).toBe(Code.INTERNAL)
    expect(end.details).toMatch(/^The answer could not be read/)
  })

  test("a channel that throws costs the call and says why", async () => {
    const { incoming, relayed, told } = legs()
    incoming.on("error", () => incoming.end())
    const broken = {
      createCall: () => {
        throw new Error("The channel is closed")
      }
    }
    const end = await Effect.runPromise(relay({ ...relayed, channel: broken as unknown as ChannelInterface }))
    expect(end).toMatchObject({ code: Code.UNAVAILABLE, details: "The channel is closed" })
    expect(told).toHaveLength(1)
  })
})

describe("metadata that is carried on", () => {
  test("leaves out what belongs to one connection, and second values that Node refuses to send", () => {
    const metadata = new Metadata()
    for (const key of ["te", "connection", "content-type", "grpc-status", "grpc-timeout"])
      metadata.add(key, "x")
    for (const value of ["one", "two"]) {
      metadata.add("etag", value)
      metadata.add("x-twice", value)
    }
    expect(carried(metadata)?.toJSON()).toEqual({ etag: ["one"], "x-twice": ["one", "two"] })
  })

  test("is refused when a connection need not carry it", () => {
    const metadata = new Metadata()
    metadata.set("x-large", "x".repeat(61_000))
    expect(carried(metadata)).toBeUndefined()
  })
})
