/** Messages that come together are read together, and messages that are sent together are sent without a wait in between. */
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { test } from "vitest"
import { Client } from "../src/index.ts"
import { Writing } from "../src/internal/client/writing.ts"
import { definition } from "./support/echo.ts"
import { type MemoryCall, memoryChannel } from "./support/memoryChannel.ts"

const sizes = (batches: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<number> =>
  batches.map((batch) => batch.length)

/** A server stream, with the batches in which its reader got it. */
const reading = Effect.gen(function* () {
  const { calls, channel } = memoryChannel()
  const echo = yield* Client.make(definition, { channel })
  const batches: Array<ReadonlyArray<string>> = []
  let told: (() => void) | undefined
  const fiber = yield* Effect.forkChild(
    Stream.runForEachArray(echo.ServerStream("q"), (batch) =>
      Effect.sync(() => {
        batches.push(batch)
        told?.()
      })
    ),
    { startImmediately: true }
  )
  const call = calls[0] as MemoryCall
  const read = (count: number) =>
    Effect.callback<void>((resume) => {
      told = () => {
        if (batches.flat().length >= count) resume(Effect.void)
      }
      told()
    })
  const send = (count: number): void => {
    for (let index = 0; index < count; index++) call.message(`${index}`)
  }
  return { batches, call, fiber, read, send }
})

describe("messages of a server", () => {
  it.live("that come in one turn: the first goes on at once, the others together, in their order", () =>
    Effect.gen(function* () {
      const { batches, call, fiber, read, send } = yield* reading
      send(5)
      yield* read(5)
      expect(batches).toEqual([["0"], ["1", "2", "3", "4"]])
      // In a turn of its own.
      yield* Effect.yieldNow
      send(1)
      yield* read(6)
      expect(sizes(batches)).toEqual([1, 4, 1])
      call.end(grpc.status.OK)
      yield* Fiber.join(fiber)
    })
  )

  it.live("go on in the same turn when as many have come as are read ahead", () =>
    Effect.gen(function* () {
      const { batches, call, fiber, send } = yield* reading
      send(40)
      call.end(grpc.status.OK)
      yield* Fiber.join(fiber)
      expect(sizes(batches)).toEqual([1, 16, 16, 7])
      expect(batches.flat()).toEqual(Array.from({ length: 40 }, (_, index) => `${index}`))
    })
  )

  it.live("come before a status of the same turn, and before a failure", () =>
    Effect.gen(function* () {
      const { batches, call, fiber, send } = yield* reading
      send(3)
      call.end(grpc.status.ABORTED, "no more")
      expect(Exit.isFailure(yield* Fiber.await(fiber))).toBe(true)
      expect(batches.flat()).toEqual(["0", "1", "2"])
    })
  )

  it.live("are dropped with their reader: it is interrupted while they wait for the end of the turn", () =>
    Effect.gen(function* () {
      const { batches, call, fiber, send } = yield* reading
      send(3)
      yield* Effect.callback<void>((resume) => process.nextTick(() => resume(Effect.void)))
      fiber.interruptUnsafe()
      yield* Fiber.await(fiber)
      yield* Effect.yieldNow
      expect(batches).toEqual([["0"]])
      expect(call.cancelledWith?.code).toBe(grpc.status.CANCELLED)
    })
  )
})

describe("messages of a client", () => {
  it.live("that it has together are written one after the other, and its status stops them", () =>
    Effect.gen(function* () {
      const { calls, channel } = memoryChannel((call, event) => {
        if (event === "message" && call.sent.length === 3) call.end(grpc.status.ABORTED, "enough")
      })
      const echo = yield* Client.make(definition, { channel })
      const all = Stream.fromIterable(Array.from({ length: 100 }, (_, index) => `${index}`))
      const exit = yield* Effect.exit(echo.ClientStream(all))
      expect(Exit.isFailure(exit)).toBe(true)
      const call = calls[0] as MemoryCall
      expect(call.mostWriting).toBe(1)
      expect(call.sent.slice(0, 3)).toEqual(["0", "1", "2"])
      expect(call.sent.length).toBeLessThan(6)
      expect(call.halfClosed).toBe(false)
    })
  )

  /** What was put, with its callbacks, and how it ended. */
  const writing = (messages: ReadonlyArray<number>, put: (callback: () => void, message: number) => void) => {
    const handed: Array<number> = []
    const ends: Array<unknown> = []
    const it = new Writing(
      messages,
      ({ callback }, message) => {
        handed.push(message)
        put(callback, message)
      },
      (thrown) => ends.push(thrown?.error)
    )
    return { ends, it, put: handed }
  }

  test("go through a channel that takes each at once, however many they are", () => {
    const messages = Array.from({ length: 100_000 }, (_, index) => index)
    const { ends, it, put } = writing(messages, (callback) => callback())
    it.go()
    expect([put.length, ends]).toEqual([100_000, [undefined]])
  })

  test("are not hurried by a channel that calls back twice", () => {
    const callbacks: Array<() => void> = []
    const { ends, it, put } = writing([1, 2, 3], (callback) => callbacks.push(callback))
    it.go()
    callbacks[0]?.()
    callbacks[0]?.()
    expect(put).toEqual([1, 2])
    callbacks[1]?.()
    callbacks[2]?.()
    callbacks[2]?.()
    expect([put, ends]).toEqual([[1, 2, 3], [undefined]])
  })

  test("end with what handing one over threw, which does not go up into the channel", () => {
    const callbacks: Array<() => void> = []
    const { ends, it, put } = writing([1, 2, 3], (callback, message) => {
      if (message === 2) throw new Error("broke")
      callbacks.push(callback)
    })
    it.go()
    callbacks[0]?.()
    expect([put, ends]).toEqual([[1, 2], [new Error("broke")]])
  })

  test("are not sent any more once stopped, and nobody is told", () => {
    const callbacks: Array<() => void> = []
    const { ends, it, put } = writing([1, 2], (callback) => callbacks.push(callback))
    it.go()
    it.stop()
    callbacks[0]?.()
    expect([put, ends]).toEqual([[1], []])
  })
})
