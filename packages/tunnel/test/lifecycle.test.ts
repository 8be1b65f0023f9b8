/** The life of a stream that has no fiber: where it stands, what closes it, and what waits for it. */
import { CancelScope, inspect, type LiveNode } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import { TunnelCall, type TunnelEvent } from "../src/index.ts"
import type { BidiHandler, UnaryHandler } from "./support/echo.ts"
import { clientEnd, serverEnd, statusFromWire, statusOf } from "./support/engines.ts"

const { status: Code } = grpc
const path = "/curfew.test.Echo/Unary"
const turns = (count: number) => Effect.repeat(Effect.yieldNow, { times: count })

const named = (nodes: ReadonlyArray<LiveNode>, name: string): ReadonlyArray<LiveNode> =>
  nodes.flatMap((node) => [...(node.name?.startsWith(name) ? [node] : []), ...named(node.children, name)])

/** How often a node whose name begins so stands in the live tree. */
const alive = (name: string) => Effect.map(inspect, ({ roots }) => named(roots, name).length)

/** Runs work and counts the fibers that start meanwhile, in it and below it. */
const counting = <A, E, R>(work: (started: () => number) => Effect.Effect<A, E, R>) => {
  let started = 0
  return Effect.provideService(
    work(() => started),
    Metric.FiberRuntimeMetrics,
    { recordFiberStart: () => void started++, recordFiberEnd: () => undefined }
  )
}

describe("a call that has nothing to wait for", () => {
  it.live("starts no fiber where it is handled", () =>
    counting((started) =>
      Effect.gen(function* () {
        const Unary: UnaryHandler = (call, callback) => callback(null, call.request)
        const end = yield* serverEnd({ handlers: { Unary } })
        end.call(1, "warm")
        yield* end.closeOf(1)
        const before = started()
        for (let id = 2; id < 50; id++) end.call(id, "q")
        yield* end.closeOf(49)
        // What the test itself waits with starts none either.
        expect(started() - before).toBe(0)
        expect((yield* end.handle.stats).streams).toBe(0)
      })
    ).pipe(Effect.scoped)
  )

  it.live("starts no fiber where it is made, with a deadline and without", () =>
    counting((started) =>
      Effect.gen(function* () {
        const end = yield* clientEnd()
        const answered = (id: number) =>
          Effect.gen(function* () {
            yield* end.sent(id, "HalfClose")
            end.send({ _tag: "ResponseHeaders", id, headers: Buffer.alloc(0) })
            end.send({ _tag: "Message", id, size: 1, data: Buffer.from("a") })
            end.send({ _tag: "CloseStream", id, trailers: undefined, status: undefined })
          })
        let before = 0
        for (let id = 1; id < 20; id++) {
          // The first deadline of a tunnel has its one sleeper woken.
          if (id === 2) before = started()
          const options = id % 2 === 0 ? {} : { deadline: Date.now() + 60_000 }
          const call = end.client.Unary(Buffer.from("q"), new grpc.Metadata(), options, () => undefined)
          const status = statusOf(call)
          yield* answered(id)
          expect((yield* Effect.promise(() => status)).code).toBe(Code.OK)
        }
        expect(started() - before).toBe(0)
        expect(yield* end.channel.stats).toMatchObject({ streams: 0, deadlines: 0 })
      })
    ).pipe(Effect.scoped)
  )
})

describe("the live tree", () => {
  it.live("L47: shows a call once at each end while it lives, and not after its last finalizer", () =>
    Effect.gen(function* () {
      let answer: (() => void) | undefined
      const Unary: UnaryHandler = (call, callback) => {
        answer = () => callback(null, call.request)
      }
      const serving = yield* serverEnd({ handlers: { Unary } })
      serving.call(1, "q")
      yield* Effect.repeat(Effect.yieldNow, { until: () => answer !== undefined })
      expect(yield* alive(`${path} 1`)).toBe(1)
      answer?.()
      yield* serving.closeOf(1)
      yield* turns(3)
      expect(yield* alive(`${path} 1`)).toBe(0)

      const calling = yield* clientEnd()
      const call = calling.client.Unary(Buffer.from("q"), new grpc.Metadata(), {}, () => undefined)
      yield* calling.sent(1, "NewStream")
      expect(yield* alive(path)).toBe(1)
      const status = statusOf(call)
      call.cancel()
      yield* Effect.promise(() => status)
      yield* turns(1)
      expect(yield* alive(path)).toBe(0)
    }).pipe(Effect.scoped)
  )
})

describe("a handler that ends its own tunnel in its first turn", () => {
  it.live("hears of it although it listens only afterwards", () =>
    Effect.gen(function* () {
      const heard: Array<unknown> = []
      let events: ReadonlyArray<TunnelEvent> = []
      let close = (): void => undefined
      const Bidi: BidiHandler = (call) => {
        close()
        call.on("cancelled", () => heard.push(TunnelCall.reason(call)?._tag))
      }
      yield* CancelScope.run((scope) =>
        Effect.scoped(
          Effect.gen(function* () {
            const end = yield* serverEnd({ handlers: { Bidi } })
            events = end.events
            close = () => void Effect.runSync(scope.cancel({ _tag: "Shutdown", phase: "force" }))
            end.open(1, "/curfew.test.Echo/Bidi")
            yield* Effect.never
          })
        )
      )
      expect(heard).toEqual(["Shutdown"])
      const order = events.flatMap((event) => {
        if (event._tag === "FinalizerRan") return [event.finalizer]
        return event._tag === "StreamCancelled" ? [event._tag] : []
      })
      expect(order).toEqual(["StreamCancelled", "wire", "handler", "registry"])
    })
  )
})

describe("a cancel of the scope around a tunnel", () => {
  it.live("closes the streams in its own turn, and waits for a handler's promise", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      let leave: (() => void) | undefined
      let cancel = (): void => undefined
      const Unary = ((call: Parameters<UnaryHandler>[0]) => {
        call.on("cancelled", () => seen.push("cancelled"))
        return new Promise<void>((resolve) => {
          leave = resolve
        })
      }) as UnaryHandler
      const finished = yield* Effect.forkChild(
        CancelScope.run((scope) =>
          Effect.scoped(
            Effect.gen(function* () {
              const end = yield* serverEnd({ handlers: { Unary } })
              end.call(1, "q")
              cancel = () => {
                Effect.runSync(scope.cancel({ _tag: "Shutdown", phase: "force" }))
                seen.push("turn over")
              }
              yield* Effect.never
            })
          )
        ).pipe(Effect.tap(() => Effect.sync(() => seen.push("scope ended"))))
      )
      yield* Effect.repeat(Effect.yieldNow, { until: () => leave !== undefined })
      cancel()
      expect(seen).toEqual(["cancelled", "turn over"])
      yield* turns(50)
      expect(seen).toEqual(["cancelled", "turn over"])
      leave?.()
      yield* Fiber.await(finished)
      expect(seen).toEqual(["cancelled", "turn over", "scope ended"])
    })
  )
})

describe("a finalizer in which somebody else's code throws", () => {
  it.live("keeps none of the others from running", () =>
    Effect.gen(function* () {
      const Unary: UnaryHandler = (call) => {
        call.on("cancelled", () => {
          throw new Error("a broken listener")
        })
      }
      const end = yield* serverEnd({ handlers: { Unary } })
      end.call(1, "q")
      yield* turns(3)
      end.send({ _tag: "Cancel", id: 1 })
      yield* turns(3)
      const ran = end.events.flatMap((event) => (event._tag === "FinalizerRan" ? [event.finalizer] : []))
      expect(ran).toEqual(["wire", "handler", "registry"])
      expect((yield* end.handle.stats).streams).toBe(0)
      end.call(2, "q")
      end.open(3, "/nobody/has/this")
      expect(statusFromWire(undefined, (yield* end.closeOf(3)).status)).toMatchObject({
        code: Code.UNIMPLEMENTED
      })
    }).pipe(Effect.scoped)
  )
})
