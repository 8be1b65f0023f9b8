/** What plain grpc-js does to a caller, each as a pinned fact, and what a client of this package does in its place. */

import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Client, GrpcError } from "../src/index.ts"
import {
  definition,
  type Handlers,
  insecure,
  Signal,
  serve,
  stockClient,
  turns,
  until
} from "./support/echo.ts"
import { echoing, memoryChannel } from "./support/memoryChannel.ts"

const { ClientStream, ServerStream, Unary } = definition
const day = 24 * 60 * 60 * 1000

/** A server, this package's client of it, and a stock one. */
const both = (handlers: Partial<Handlers>) =>
  Effect.gen(function* () {
    const address = yield* serve(handlers)
    const echo = yield* Client.make(definition, { address, credentials: insecure })
    return { echo, stock: yield* stockClient(address) }
  })

const ending = (call: grpc.ClientReadableStream<string>): Effect.Effect<void, never, Scope.Scope> =>
  Effect.addFinalizer(() =>
    Effect.sync(() => {
      call.on("error", () => {})
      call.cancel()
    })
  )

const sixteenKiB = "x".repeat(16 * 1024)

describe("leaving a response stream", () => {
  it.live("destroy leaves the call of a stock stream running; leaving a Stream cancels it", () =>
    Effect.gen(function* () {
      const cancelled = new Signal()
      const { echo, stock } = yield* both({
        ServerStream: (call) => {
          call.on("cancelled", () => cancelled.tell())
          call.write("first")
        }
      })
      const call = stock.makeServerStreamRequest(ServerStream.path, Buffer.from, String, "1")
      yield* ending(call)
      const first = new Signal<string>()
      call.once("data", first.tell)
      yield* first.heard
      call.destroy()
      yield* turns(20)
      expect(cancelled.pending).toBe(0)

      yield* Stream.runDrain(Stream.take(echo.ServerStream("1"), 1))
      yield* cancelled.heard
    })
  )

  it.live(
    "a stock stream that is cancelled emits an error that ends the process; a Stream has nobody to surprise",
    () =>
      Effect.gen(function* () {
        const { echo, stock } = yield* both({ ServerStream: (call) => call.write("first") })
        const call = stock.makeServerStreamRequest(ServerStream.path, Buffer.from, String, "1")
        const unheard = new Signal<boolean>()
        call.emit = (event: string | symbol) => {
          if (event === "error") unheard.tell(call.listenerCount("error") === 0)
          return true
        }
        call.cancel()
        expect(yield* unheard.heard).toBe(true)

        const fiber = yield* Effect.forkChild(Stream.runDrain(echo.ServerStream("1")), {
          startImmediately: true
        })
        yield* turns(5)
        yield* Fiber.interrupt(fiber)
        yield* turns(20)
      })
  )
})

/** A server that writes as fast as it is allowed to. */
const flood = (limit: number) => {
  const count = { written: 0, stalled: false }
  const handler: Handlers["ServerStream"] = (call) => {
    const more = (): void => {
      count.stalled = false
      while (count.written < limit && !call.cancelled) {
        count.written++
        if (!call.write(sixteenKiB)) {
          count.stalled = true
          call.once("drain", more)
          return
        }
      }
      call.end()
    }
    call.on("error", () => {})
    more()
  }
  return { count, handler }
}

/** Waits until a number no longer changes. */
const settled = (read: () => number): Effect.Effect<number> =>
  Effect.gen(function* () {
    let last = -1
    let same = 0
    while (same < 20) {
      yield* turns(5)
      same = read() === last ? same + 1 : 0
      last = read()
    }
    return last
  })

describe("a cancel in the turn of the start", () => {
  it.live("L24: leaves a stock call running at its server for ever; here none stays", () =>
    Effect.gen(function* () {
      let open = 0
      let seen = 0
      const { echo, stock } = yield* both({
        Bidi: (call) => {
          seen++
          open++
          call.on("close", () => {
            open--
          })
          call.on("error", () => {})
          call.resume()
        }
      })
      // Connected, so that the next call leaves at once.
      yield* Effect.callback<void>((resume) =>
        stock.waitForReady(Date.now() + 5000, () => resume(Effect.void))
      )
      const call = stock.makeBidiStreamRequest(definition.Bidi.path, Buffer.from, String)
      call.on("error", () => {})
      call.cancel()
      yield* until(() => seen === 1)
      yield* turns(100)
      expect(open).toBe(1)

      expect(yield* echo.Unary("hello")).toBe("hello")
      for (let round = 0; round < 50; round++) {
        const fiber = yield* Effect.forkChild(Stream.runDrain(echo.Bidi(Stream.never)), {
          startImmediately: true
        })
        yield* Fiber.interrupt(fiber)
      }
      yield* turns(100)
      expect(open).toBe(1)
    })
  )
})

describe("backpressure of responses", () => {
  it.live("a stock stream that nobody reads takes everything; a slow consumer holds its server back", () =>
    Effect.gen(function* () {
      const limit = 1000
      const plain = flood(limit)
      const address = yield* serve({ ServerStream: plain.handler })
      const stock = yield* stockClient(address)
      const call = stock.makeServerStreamRequest(ServerStream.path, Buffer.from, String, "1")
      yield* ending(call)
      yield* until(() => plain.count.written === limit)

      const ours = flood(limit)
      const other = yield* serve({ ServerStream: ours.handler })
      const echo = yield* Client.make(definition, { address: other, credentials: insecure })
      const taken = new Signal()
      const slow = Stream.runForEach(echo.ServerStream("1"), () =>
        Effect.andThen(
          Effect.sync(() => taken.tell()),
          Effect.never
        )
      )
      const fiber = yield* Effect.forkChild(slow, { startImmediately: true })
      yield* taken.heard
      expect(yield* settled(() => ours.count.written)).toBeLessThan(100)
      yield* Fiber.interrupt(fiber)
    })
  )
})

describe("backpressure of requests", () => {
  const deaf: Handlers["ClientStream"] = (call) => {
    call.pause()
    call.on("error", () => {})
  }

  it.live(
    "a stock channel says written long before it is; a channel made here says so when it has left",
    () =>
      Effect.gen(function* () {
        const { echo, stock } = yield* both({ ClientStream: deaf })
        let written = 0
        const call = stock.makeClientStreamRequest(ClientStream.path, Buffer.from, String, () => {})
        const more = (): void => {
          call.write(sixteenKiB, () => {
            written++
            more()
          })
        }
        more()
        const plain = yield* settled(() => written)
        call.cancel()

        let produced = 0
        const endless = Stream.forever(
          Stream.fromEffect(
            Effect.sync(() => {
              produced++
              return sixteenKiB
            })
          )
        )
        const fiber = yield* Effect.forkChild(echo.ClientStream(endless), { startImmediately: true })
        const ours = yield* settled(() => produced)
        yield* Fiber.interrupt(fiber)
        expect(plain).toBeGreaterThan(50)
        expect(ours).toBeLessThan(plain / 2)
      })
  )

  it.live("a status ends a request stream whose write is never taken", () =>
    Effect.gen(function* () {
      let enough = (): unknown => undefined
      let produced = 0
      const { echo } = yield* both({
        Bidi: (call) => {
          call.pause()
          call.on("error", () => {})
          enough = () => call.emit("error", { code: grpc.status.ABORTED, details: "enough" })
        }
      })
      const endless = Stream.tap(Stream.forever(Stream.make(sixteenKiB)), () => Effect.sync(() => produced++))
      const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(echo.Bidi(endless))), {
        startImmediately: true
      })
      yield* settled(() => produced)
      enough()
      expect(yield* Fiber.join(fiber)).toMatchObject({ code: grpc.status.ABORTED })
    })
  )

  it.live("a stock call keeps one of two messages that come at once; a Stream has one under way", () =>
    Effect.gen(function* () {
      const address = yield* serve()
      const stock = yield* stockClient(address)
      const answers = new Signal<string>()
      const call = stock
        .getChannel()
        .createCall(ClientStream.path, Number.POSITIVE_INFINITY, undefined, null, undefined)
      call.start(new grpc.Metadata(), {
        onReceiveMetadata: () => {},
        onReceiveMessage: (bytes: Buffer) => answers.tell(bytes.toString()),
        onReceiveStatus: () => {}
      })
      call.startRead()
      call.sendMessageWithContext({}, Buffer.from("a"))
      call.sendMessageWithContext({}, Buffer.from("b"))
      call.halfClose()
      expect(yield* answers.heard).toBe("b")

      const { calls, channel } = memoryChannel((own, event) => {
        if (event === "halfClose") {
          own.message("done")
          own.end(0)
        }
      })
      const echo = yield* Client.make(definition, { channel })
      expect(yield* echo.ClientStream(Stream.fromArray(["a", "b", "c", "d"]))).toBe("done")
      expect(calls[0]).toMatchObject({ sent: ["a", "b", "c", "d"], mostWriting: 1 })
    })
  )
})

describe("deadlines far away", () => {
  for (const [name, ahead] of [
    ["30 days", 30 * day],
    ["a minute over 2^31 ms", 2 ** 31 + 60_000]
  ] as const) {
    it.live(`a server ends a call with a deadline of ${name} at once; here it is kept and not sent`, () =>
      Effect.gen(function* () {
        const { echo, stock } = yield* both({
          Unary: (call, reply) => {
            if (call.request !== "wait") reply(null, call.request)
          }
        })
        const plain = yield* Effect.callback<grpc.ServiceError | null>((resume) => {
          stock.makeUnaryRequest(
            Unary.path,
            Buffer.from,
            String,
            "wait",
            new grpc.Metadata(),
            { deadline: Date.now() + ahead },
            (error) => resume(Effect.succeed(error))
          )
        })
        expect(plain?.code).toBe(grpc.status.DEADLINE_EXCEEDED)
        expect(yield* echo.Unary("hello", { timeout: ahead })).toBe("hello")
        expect(yield* echo.Unary("hello", { timeout: "365 days" })).toBe("hello")
      })
    )
  }

  it.live("one just below 2^31 ms is not sent either: the wire rounds it up to a second beyond", () =>
    Effect.gen(function* () {
      const { calls, channel } = memoryChannel(echoing)
      const echo = yield* Client.make(definition, { channel })
      yield* echo.Unary("hello", { timeout: 2 ** 31 - 1 })
      yield* echo.Unary("hello", { timeout: "24 days" })
      expect(calls[0]?.deadline).toBe(Number.POSITIVE_INFINITY)
      expect(Number(calls[1]?.deadline)).toBeLessThan(Number.POSITIVE_INFINITY)
    })
  )
})

describe("a server that breaks its definition", () => {
  it.live(
    "two messages to a unary call make a stock stub wait for its deadline; here the call fails at once",
    () =>
      Effect.gen(function* () {
        const server = new grpc.Server()
        server.addService(
          { Unary: { ...Unary, responseStream: true } },
          {
            Unary: (call: grpc.ServerWritableStream<string, string>) => {
              call.write("one")
              call.write("two")
              call.end()
            }
          }
        )
        const address = yield* Effect.acquireRelease(
          Effect.callback<string>((resume) =>
            server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (_, port) =>
              resume(Effect.succeed(`127.0.0.1:${port}`))
            )
          ),
          () => Effect.sync(() => server.forceShutdown())
        )
        const stock = yield* stockClient(address)
        const plain = yield* Effect.callback<number | undefined>((resume) => {
          stock.makeUnaryRequest(
            Unary.path,
            Buffer.from,
            String,
            "hello",
            new grpc.Metadata(),
            { deadline: Date.now() + 100 },
            (error) => resume(Effect.succeed(error?.code))
          )
        })
        expect(plain).toBe(grpc.status.DEADLINE_EXCEEDED)
        const echo = yield* Client.make(definition, { address, credentials: insecure })
        const error = yield* Effect.flip(echo.Unary("hello"))
        expect(error).toBeInstanceOf(GrpcError)
        expect(error).toMatchObject({ code: grpc.status.UNIMPLEMENTED })
        expect(error.details).toContain("more than one message")
      })
  )
})

describe("parents", () => {
  it.live("no call has a parent call: success of one must not cancel another", () =>
    Effect.gen(function* () {
      const parents: Array<unknown> = []
      const { channel } = memoryChannel((own, event) => {
        if (event === "halfClose") {
          own.message("done")
          own.end(0)
        }
      })
      const spied: grpc.ChannelInterface = {
        ...channel,
        createCall: (method, deadline, host, parent, flags) => {
          parents.push(parent, flags)
          return channel.createCall(method, deadline, host, parent, flags)
        }
      }
      const echo = yield* Client.make(definition, { channel: spied })
      yield* echo.Unary("hello")
      expect(parents).toEqual([null, undefined])
    })
  )
})
