import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { TunnelCall, type TunnelEvent } from "../src/index.ts"
import { audited } from "./support/audit.ts"
import {
  type BidiHandler,
  type ClientStreamHandler,
  collect,
  type ServerStreamHandler,
  type UnaryHandler,
  unary
} from "./support/echo.ts"
import { statusOf } from "./support/engines.ts"
import { kinds, tunnelPair } from "./support/network.ts"

const { status: Code } = grpc

const never = (): void => undefined

/** Records what happens to a call object, in order, and tells when something did. */
const recorder = () => {
  const seen: Array<string> = []
  const waiting: Array<readonly [what: string, done: Deferred.Deferred<void>]> = []
  return {
    seen,
    note: (what: string): void => {
      seen.push(what)
      for (const [wanted, done] of waiting) if (wanted === what) Deferred.doneUnsafe(done, Effect.void)
    },
    awaits: (what: string): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (seen.includes(what)) return Effect.void
        const done = Deferred.makeUnsafe<void>()
        waiting.push([what, done])
        return Deferred.await(done)
      })
  }
}

const closedOnServer = (events: ReadonlyArray<TunnelEvent>) =>
  Effect.map(
    Effect.repeat(Effect.yieldNow, {
      until: () => events.some((event) => event._tag === "StreamClosed" && event.side === "server")
    }),
    () => events.filter((event) => "side" in event && event.side === "server")
  )

describe.each(kinds)("cancelling over a %s tunnel", (kind) => {
  it.live("reaches a unary handler as `cancelled`, with the reason and the signal", () =>
    Effect.gen(function* () {
      const happened = recorder()
      const Unary: UnaryHandler = (call) => {
        const signal = TunnelCall.signal(call)
        signal?.addEventListener("abort", () => happened.note(`abort ${signal.reason._tag}`))
        call.on("cancelled", () =>
          happened.note(`cancelled ${call.cancelled} ${TunnelCall.reason(call)?._tag}`)
        )
        happened.note("started")
      }
      const { client, events } = yield* tunnelPair(kind, { handlers: { Unary } })
      let call: grpc.ClientUnaryCall | undefined
      const answer = unary(client, Buffer.from("q"), {
        onCall: (started) => {
          call = started
        }
      })
      yield* happened.awaits("started")
      call?.cancel()
      expect((yield* Effect.promise(() => answer)).code).toBe(Code.CANCELLED)
      const server = yield* closedOnServer(events)
      expect(happened.seen).toEqual(["started", "abort ClientGone", "cancelled true ClientGone"])
      expect(server.map((event) => event._tag)).toEqual([
        "TunnelOpened",
        "StreamOpened",
        "StreamCancelled",
        "FinalizerRan",
        "FinalizerRan",
        "FinalizerRan",
        "StreamClosed"
      ])
      expect(server[2]).toMatchObject({ by: "peer", phase: "running", reason: { _tag: "ClientGone" } })
    }).pipe(Effect.scoped)
  )

  it.live("says why with the event itself, and the call says that it came through a tunnel", () =>
    Effect.gen(function* () {
      const happened = recorder()
      const told = (call: grpc.ServerDuplexStream<Buffer, Buffer> | Parameters<UnaryHandler>[0]): void => {
        const transport = (call as unknown as Record<symbol, unknown>)[Symbol.for("curfew.transport")]
        call.on("cancelled", (reason: { readonly _tag: string }) =>
          happened.note(`${reason._tag} over ${transport}`)
        )
        happened.note("started")
      }
      const { client } = yield* tunnelPair(kind, { handlers: { Unary: told, Bidi: told } })
      const single = client.Unary(Buffer.from("q"), new grpc.Metadata(), {}, () => undefined)
      yield* happened.awaits("started")
      single.cancel()
      yield* happened.awaits("ClientGone over tunnel")
      const stream = client.Bidi()
      stream.on("error", () => undefined)
      stream.write(Buffer.from("q"))
      yield* Effect.repeat(Effect.yieldNow, { until: () => happened.seen.length >= 3 })
      stream.cancel()
      yield* Effect.repeat(Effect.yieldNow, { until: () => happened.seen.length >= 4 })
      const one = ["started", "ClientGone over tunnel"]
      expect(happened.seen).toEqual([...one, ...one])
    }).pipe(Effect.scoped)
  )

  it.live("is not told to a handler that answered: completion is not cancellation", () =>
    Effect.gen(function* () {
      const happened = recorder()
      const Unary: UnaryHandler = (call, callback) => {
        call.on("cancelled", () => happened.note("cancelled"))
        TunnelCall.signal(call)?.addEventListener("abort", () => happened.note("abort"))
        callback(null, call.request)
      }
      const Bidi: BidiHandler = (call) => {
        call.on("cancelled", () => happened.note("cancelled"))
        call.on("close", () => happened.note("close"))
        call.resume()
        call.on("end", () => call.end())
      }
      const { client, events } = yield* tunnelPair(kind, { handlers: { Unary, Bidi } })
      expect((yield* Effect.promise(() => unary(client, Buffer.from("q")))).code).toBe(Code.OK)
      const stream = client.Bidi()
      stream.end()
      expect((yield* Effect.promise(() => collect(stream))).code).toBe(Code.OK)
      yield* happened.awaits("close")
      expect(happened.seen).toEqual(["close"])
      expect(events.some((event) => event._tag === "StreamCancelled")).toBe(false)
    }).pipe(Effect.scoped)
  )

  it.live("never looks like the end of a request stream", () =>
    Effect.gen(function* () {
      const happened = recorder()
      const ClientStream: ClientStreamHandler = (call) => {
        call.on("data", () => happened.note("data"))
        for (const event of ["end", "cancelled", "close"]) call.on(event, () => happened.note(event))
      }
      const { client } = yield* tunnelPair(kind, { handlers: { ClientStream } })
      const call = client.ClientStream(new grpc.Metadata(), {}, never)
      call.on("error", never)
      call.write(Buffer.from("part"))
      yield* happened.awaits("data")
      call.cancel()
      yield* happened.awaits("close")
      expect(happened.seen).toEqual(["data", "cancelled", "close"])
    }).pipe(Effect.scoped)
  )

  it.live("destroys a response stream, whose pending and later writes are told so", () =>
    Effect.gen(function* () {
      const happened = recorder()
      let late: (() => void) | undefined
      const ServerStream: ServerStreamHandler = (call) => {
        const write = (name: string): void => {
          call.write(Buffer.alloc(100_000), (error: unknown) =>
            happened.note(`${name} ${(error as { _tag?: string })?._tag}`)
          )
        }
        write("pending")
        late = () => write("late")
        for (const event of ["cancelled", "close", "error"]) call.on(event, () => happened.note(event))
      }
      const { client, events } = yield* tunnelPair(kind, { handlers: { ServerStream } })
      const call = client.ServerStream(Buffer.from("q"))
      call.on("error", never)
      yield* Effect.promise(() => new Promise((resolve) => call.once("metadata", resolve)))
      call.cancel()
      yield* happened.awaits("close")
      late?.()
      yield* happened.awaits("late PeerGone")
      expect(happened.seen).toEqual(["cancelled", "pending PeerGone", "close", "late PeerGone"])
      expect(events.filter((event) => event._tag === "LateWrite")).toMatchObject([
        { what: "message", count: 1 }
      ])
    }).pipe(Effect.scoped)
  )

  it.live("before the start ends the call on this side alone, and twice is once", () =>
    Effect.gen(function* () {
      const { client, events } = yield* tunnelPair(kind)
      const answer = yield* Effect.promise(() =>
        unary(client, Buffer.from("q"), {
          onCall: (call) => {
            call.cancel()
            call.cancel()
          }
        })
      )
      expect(answer.code).toBe(Code.CANCELLED)
      expect(events.filter((event) => event._tag === "StreamCancelled").length).toBe(1)
      expect((yield* Effect.promise(() => unary(client, Buffer.from("next")))).code).toBe(Code.OK)
      yield* closedOnServer(events)
      const seen = events.filter((event) => event._tag === "StreamOpened" && event.side === "server")
      expect(seen).toMatchObject([{ stream: 2 }])
    }).pipe(Effect.scoped)
  )

  it.live("after the answer changes nothing", () =>
    Effect.gen(function* () {
      const { client, events } = yield* tunnelPair(kind)
      let call: grpc.ClientUnaryCall | undefined
      const answer = yield* Effect.promise(() =>
        unary(client, Buffer.from("q"), {
          onCall: (started) => {
            call = started
          }
        })
      )
      call?.cancel()
      expect(answer.code).toBe(Code.OK)
      expect(events.some((event) => event._tag === "StreamCancelled")).toBe(false)
    }).pipe(Effect.scoped)
  )

  it.live("waits for an async handler, whose rejection on the way out is no error", () =>
    Effect.gen(function* () {
      const [, findings] = yield* audited(
        Effect.scoped(
          Effect.gen(function* () {
            const started = Deferred.makeUnsafe<void>()
            const Unary = ((call: grpc.ServerUnaryCall<Buffer, Buffer>) =>
              new Promise((_resolve, reject) => {
                Deferred.doneUnsafe(started, Effect.void)
                call.on("cancelled", () => reject(new Error("stopped")))
              })) as unknown as UnaryHandler
            const { client, events } = yield* tunnelPair(kind, { handlers: { Unary } })
            let call: grpc.ClientUnaryCall | undefined
            const answer = unary(client, Buffer.from("q"), {
              onCall: (it) => {
                call = it
              }
            })
            yield* Deferred.await(started)
            call?.cancel()
            expect((yield* Effect.promise(() => answer)).code).toBe(Code.CANCELLED)
            yield* closedOnServer(events)
          })
        )
      )
      expect(findings.liveFibers).toBe(0)
      expect(findings.errorLogs).toEqual([])
    })
  )
})

describe.each(kinds)("a deadline over a %s tunnel", (kind) => {
  it.live("ends the call at the client and tells the handler", () =>
    Effect.gen(function* () {
      const happened = recorder()
      const Unary: UnaryHandler = (call) => {
        happened.note(
          Number(call.getDeadline()) < Number.POSITIVE_INFINITY ? "deadline known" : "no deadline"
        )
        expect(call.metadata.get("grpc-timeout")).toEqual([])
        call.on("cancelled", () => happened.note("cancelled"))
      }
      const { client } = yield* tunnelPair(kind, { handlers: { Unary } })
      const answer = yield* Effect.promise(() =>
        unary(client, Buffer.from("q"), { call: { deadline: Date.now() + 100 } })
      )
      expect(answer.code).toBe(Code.DEADLINE_EXCEEDED)
      yield* happened.awaits("cancelled")
      expect(happened.seen).toEqual(["deadline known", "cancelled"])
    }).pipe(Effect.scoped)
  )

  it.live("that has passed sends nothing", () =>
    Effect.gen(function* () {
      const { client, events } = yield* tunnelPair(kind)
      const answer = yield* Effect.promise(() => unary(client, Buffer.from("q"), { call: { deadline: 1 } }))
      expect(answer.code).toBe(Code.DEADLINE_EXCEEDED)
      expect(events.some((event) => event._tag === "StreamOpened")).toBe(false)
    }).pipe(Effect.scoped)
  )

  it.live("of a hundred days is not mistaken for one that has passed", () =>
    Effect.gen(function* () {
      const { client } = yield* tunnelPair(kind)
      const deadline = Date.now() + 100 * 24 * 3_600_000
      const answer = yield* Effect.promise(() => unary(client, Buffer.from("q"), { call: { deadline } }))
      expect(answer.code).toBe(Code.OK)
    }).pipe(Effect.scoped)
  )
})

describe.each(kinds)("the end of a %s tunnel", (kind) => {
  it.live("with its scope cancels what runs at both ends, and waits for it", () =>
    Effect.gen(function* () {
      const happened = recorder()
      const Bidi: BidiHandler = (call) => {
        happened.note("started")
        call.on("cancelled", () => happened.note(`cancelled ${TunnelCall.reason(call)?._tag}`))
      }
      const [status, findings] = yield* audited(
        Effect.gen(function* () {
          const outcome = yield* Effect.scoped(
            Effect.gen(function* () {
              const { client } = yield* tunnelPair(kind, { handlers: { Bidi } })
              const call = client.Bidi()
              call.on("error", never)
              const status = statusOf(call)
              yield* happened.awaits("started")
              return status
            }).pipe(Effect.map((status) => ({ status })))
          )
          return yield* Effect.promise(() => outcome.status)
        })
      )
      expect(status.code).toBe(Code.UNAVAILABLE)
      expect(happened.seen.length).toBe(2)
      expect(findings).toMatchObject({ liveFibers: 0, errorLogs: [] })
    })
  )

  it.live(
    "by the loss of the connection reaches the handler with ClientGone, and the caller with UNAVAILABLE",
    () =>
      Effect.gen(function* () {
        const happened = recorder()
        const Bidi: BidiHandler = (call) => {
          happened.note("started")
          call.on("cancelled", () => happened.note(`cancelled ${TunnelCall.reason(call)?._tag}`))
        }
        const { channel, client, listening } = yield* tunnelPair(kind, { handlers: { Bidi } })
        const call = client.Bidi()
        call.on("error", never)
        const status = statusOf(call)
        yield* happened.awaits("started")
        listening.server.forceShutdown()
        expect((yield* Effect.promise(() => status)).code).toBe(Code.UNAVAILABLE)
        yield* happened.awaits("cancelled ClientGone")
        expect((yield* channel.closed)._tag).not.toBe("ClosedHere")
      }).pipe(Effect.scoped)
  )
})
