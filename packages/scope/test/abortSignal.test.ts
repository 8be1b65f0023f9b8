import { getEventListeners } from "node:events"
import { CancelReason } from "@curfew/reason"
import { type CancelCell, rootsUnsafe } from "@curfew/reason/CancelCell"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import { started } from "../../../test/support/recorder.ts"
import { CancelScope, currentSignal, failAfter, withSignal } from "../src/index.ts"

const reason = CancelReason.ClientGone({ transport: "http1" })

/** Holds a signal until it is interrupted, and gives it away. */
const holding = (held: Array<AbortSignal>) =>
  withSignal((signal) => {
    held.push(signal)
    return Effect.never
  })

describe("currentSignal: the quartet", () => {
  it.effect("cancelled before: nothing starts below a cancelled scope, and a mask there is not told", () =>
    Effect.gen(function* () {
      const held: Array<AbortSignal> = []
      yield* CancelScope.run((scope) => Effect.andThen(scope.cancel(reason), holding(held)))
      expect(held).toHaveLength(0)
      yield* CancelScope.run((scope) =>
        Effect.uninterruptible(
          Effect.andThen(
            scope.cancel(reason),
            withSignal((signal) => Effect.sync(() => held.push(signal)))
          )
        )
      )
      expect(held[0]?.aborted).toBe(false)
    })
  )

  it.effect("L6: cancelled during, its reason is that of the cancel, in the same turn", () =>
    Effect.gen(function* () {
      const held: Array<AbortSignal> = []
      const seen: Array<unknown> = []
      const outcome = yield* CancelScope.run((scope) =>
        Effect.gen(function* () {
          yield* started(holding(held))
          held[0]?.addEventListener("abort", () => seen.push(held[0]?.reason))
          yield* Effect.uninterruptible(
            Effect.andThen(
              scope.cancel(reason),
              Effect.sync(() => seen.push("the turn is over"))
            )
          )
        })
      )
      expect(outcome._tag).toBe("Cancelled")
      expect(seen).toEqual([reason, "the turn is over"])
    })
  )

  it.effect("cancelled before: a fork that the interrupt has not come to yet gets one that is aborted", () =>
    Effect.gen(function* () {
      let seen: unknown
      const look = withSignal((signal) =>
        Effect.sync(() => {
          seen = signal.reason
        })
      )
      yield* CancelScope.run((scope) =>
        Effect.gen(function* () {
          yield* started(Effect.andThen(scope.awaitCancelled, look))
          yield* scope.cancel(reason)
          yield* Effect.never
        })
      )
      expect(seen).toBe(reason)
    })
  )

  it.effect("cancelled after: neither a value, nor a failure, nor a later cancel aborts it", () =>
    Effect.gen(function* () {
      const held: Array<AbortSignal> = []
      const keep = (signal: AbortSignal) => Effect.sync(() => held.push(signal))
      yield* CancelScope.run((scope) =>
        Effect.gen(function* () {
          yield* withSignal(keep)
          yield* Effect.exit(withSignal((signal) => Effect.andThen(keep(signal), Effect.fail("no"))))
          yield* scope.cancel(reason)
        })
      )
      expect(held.map((signal) => signal.aborted)).toEqual([false, false])
    })
  )

  it.effect("cancelled twice: the first reason stays", () =>
    Effect.gen(function* () {
      const held: Array<AbortSignal> = []
      yield* CancelScope.run((scope) =>
        Effect.andThen(
          Effect.forkChild(Effect.andThen(scope.cancel(reason), scope.cancel(CancelReason.Superseded()))),
          holding(held)
        )
      )
      expect(held[0]?.reason).toBe(reason)
    })
  )
})

describe("currentSignal", () => {
  it.effect("L6: in a fork, a race, an all and a time-out the reason is the scope's", () =>
    Effect.gen(function* () {
      const held: Array<AbortSignal> = []
      const one = holding(held)
      const ways: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        Effect.flatMap(Effect.forkChild(one), Fiber.join),
        Effect.race(one, one),
        Effect.all([one, one], { concurrency: "unbounded" }),
        Effect.timeout(one, "1 hour"),
        failAfter(one, "1 hour")
      ]
      for (const way of ways) {
        const running = yield* Deferred.make<CancelScope.CancelScope>()
        const fiber = yield* started(
          Effect.exit(CancelScope.run((scope) => Effect.andThen(Deferred.succeed(running, scope), way)))
        )
        yield* Effect.yieldNow
        yield* (yield* Deferred.await(running)).cancel(reason)
        yield* Fiber.await(fiber)
      }
      expect(held).toHaveLength(7)
      expect(held.map((signal) => signal.reason)).toEqual(held.map(() => reason))
    })
  )

  it.effect("the nearest cancelled ancestor's reason, where an inner scope was cancelled first", () =>
    Effect.gen(function* () {
      const held: Array<AbortSignal> = []
      yield* CancelScope.run((outer) =>
        CancelScope.run((inner) =>
          Effect.andThen(
            Effect.forkChild(Effect.andThen(inner.cancel(reason), outer.cancel(CancelReason.Superseded()))),
            holding(held)
          )
        )
      )
      expect(held[0]?.reason).toBe(reason)
    })
  )

  it.effect("a race's loser, which nobody gave a reason, is aborted with Unknown", () =>
    Effect.gen(function* () {
      const held: Array<AbortSignal> = []
      yield* Effect.race(holding(held), Effect.yieldNow)
      expect(held[0]?.reason).toEqual(CancelReason.Unknown())
    })
  )

  it.effect("a foreign interrupt that comes in through a join does not abort it", () =>
    Effect.gen(function* () {
      const stopped = yield* started(Effect.never)
      yield* Fiber.interrupt(stopped)
      const held: Array<AbortSignal> = []
      const joined = withSignal((signal) => {
        held.push(signal)
        return Fiber.join(stopped)
      })
      yield* Fiber.await(yield* started(joined))
      expect(held[0]?.aborted).toBe(false)
    })
  )

  it.effect("L44: in a mask it is not aborted", () =>
    Effect.gen(function* () {
      const latch = Latch.makeUnsafe()
      const held: Array<AbortSignal> = []
      const work = withSignal((signal) => {
        held.push(signal)
        return latch.await
      })
      const ready = yield* Deferred.make<CancelScope.CancelScope>()
      const fiber = yield* started(
        CancelScope.run((scope) =>
          Effect.andThen(Deferred.succeed(ready, scope), Effect.uninterruptible(work))
        )
      )
      yield* (yield* Deferred.await(ready)).cancel(reason)
      yield* latch.open
      expect((yield* Fiber.join(fiber))._tag).toBe("Cancelled")
      expect(held.map((signal) => signal.aborted)).toEqual([false])
    })
  )

  it.effect("made in a mask whose Scope is cancelled after it, it is aborted when the Scope closes", () =>
    Effect.gen(function* () {
      const held: Array<AbortSignal> = []
      yield* CancelScope.run((scope) =>
        Effect.scoped(
          Effect.gen(function* () {
            held.push(yield* Effect.uninterruptible(currentSignal))
            yield* Effect.forkChild(scope.cancel(reason))
            yield* Effect.never
          })
        )
      )
      expect(held[0]?.reason).toBe(reason)
    })
  )

  it.effect("L8: leaves nothing in a Scope that is closed already, wherever an interrupt comes", () =>
    Effect.gen(function* () {
      const before = rootsUnsafe().length
      // Every operation of it is the last one of a turn at some length of turns.
      for (let operations = 3; operations <= 12; operations++) {
        const closed = Scope.makeUnsafe()
        yield* Scope.close(closed, Exit.fail("closed"))
        const work = Effect.provideService(currentSignal, Scope.Scope, closed)
        const fiber = Effect.runForkWith(Context.make(Scheduler.MaxOpsBeforeYield, operations))(work)
        fiber.interruptUnsafe()
        yield* Fiber.await(fiber)
      }
      expect(rootsUnsafe().length).toBe(before)
    })
  )

  it.effect("lives as long as its Scope, and the work's own Scope is not the signal's", () =>
    Effect.gen(function* () {
      const around = yield* Scope.make()
      const signal = yield* Scope.provide(currentSignal, around)
      const closed: Array<string> = []
      const release = Effect.sync(() => closed.push("released"))
      yield* Scope.provide(
        withSignal(() => Effect.addFinalizer(() => release)),
        around
      )
      expect(closed).toEqual([])
      yield* Scope.close(around, Exit.void)
      expect(closed).toEqual(["released"])
      expect(signal.aborted).toBe(false)
    })
  )

  it.effect("L8: a hundred thousand uses leave neither a listener nor a cell in a long-lived scope", () =>
    Effect.gen(function* () {
      const { signal } = new AbortController()
      const before = rootsUnsafe().length
      yield* CancelScope.run(
        (scope) =>
          Effect.gen(function* () {
            const cells = yield* Effect.withFiber((fiber) => Effect.succeed(fiber))
            const cell = rootsUnsafe().find((root) => root.fiber === cells) as CancelCell
            for (let i = 0; i < 100_000; i++) yield* withSignal(() => Effect.void)
            expect(cell.size).toBe(0)
            expect(cell.listenerCount).toBe(0)
            expect(scope.signal.aborted).toBe(false)
          }),
        { signal }
      )
      expect(getEventListeners(signal, "abort")).toHaveLength(0)
      expect(rootsUnsafe().length).toBe(before)
    })
  )
})
