import { EventEmitter } from "node:events"
import { describe, it } from "@effect/vitest"
import { status as Code } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { expect } from "vitest"
import { findRange, type Stub } from "../src/grpc/calls.ts"
import { Meter } from "../src/process/Meter.ts"
import { Process } from "../src/process/Process.ts"
import { Stop } from "../src/process/Stop.ts"

/** A stub whose one call says what the test says. */
const scripted = () => {
  const call = Object.assign(new EventEmitter(), { cancel: () => undefined, pause: () => undefined })
  return { call, stub: { FindRange: () => call } as unknown as Stub }
}

const request = { word: "cat", distance: 1, max_hashes: 0, count: 0, page: 0 }

const pagesUntil = (status: { readonly code: number; readonly details: string }, reading: boolean) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { call, stub } = scripted()
      const range = yield* findRange(stub, request, {})
      const read = Effect.gen(function* () {
        const seen: Array<number> = []
        for (let page = yield* range.next; page !== undefined; page = yield* range.next) seen.push(page.tried)
        return { seen, after: yield* range.next }
      })
      const reader = reading ? yield* Effect.forkChild(read, { startImmediately: true }) : undefined
      // All in one turn, as it comes when they share a read of the socket.
      for (const tried of [1, 2, 3]) call.emit("data", { matches: [], tried })
      call.emit("end")
      call.emit("status", status)
      return yield* reader === undefined ? read : Fiber.join(reader)
    })
  ).pipe(
    Effect.provideService(Process, {
      meter: new Meter(),
      stop: new Stop(),
      supervised: false,
      say: () => undefined,
      now: () => 0,
      signal: () => undefined,
      awaitSignal: () => Effect.never,
      ready: () => Effect.void,
      stopped: () => Effect.void
    })
  )

describe("a stream that is read page by page", () => {
  for (const reading of [true, false]) {
    it.effect(`gives every page before its end to a reader that ${reading ? "waits" : "comes later"}`, () =>
      Effect.gen(function* () {
        const whole = yield* pagesUntil({ code: Code.OK, details: "" }, reading)
        expect(whole).toEqual({ seen: [1, 2, 3], after: undefined })
        const failed = yield* Effect.flip(pagesUntil({ code: Code.ABORTED, details: "no more" }, reading))
        expect(failed).toMatchObject({ _tag: "CallFailed", code: Code.ABORTED, details: "no more" })
      })
    )
  }
})
