import { describe, expect, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { cancellable, hows, isPureInterrupt } from "../../shield/test/support/cancelling.ts"
import { checkpoint, TimeSlice } from "../src/index.ts"

/** A clock on which every look takes a millisecond: work that is measured by its checkpoints, not by real time. */
const tickingClock = () => {
  let millis = 0
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => millis,
    currentTimeMillis: Effect.sync(() => millis),
    currentTimeNanosUnsafe: () => BigInt(millis) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => BigInt(millis) * 1_000_000n),
    monotonicTimeNanosUnsafe: () => BigInt(millis++) * 1_000_000n,
    monotonicTimeNanos: Effect.sync(() => BigInt(millis) * 1_000_000n),
    sleep: () => Effect.yieldNow
  }
  return {
    looks: () => millis,
    on: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.provideService(self, Clock.Clock, clock)
  }
}

/** A loop that computes for `steps` steps and has a checkpoint in each. */
const computing = (steps: number, step: (i: number) => void = () => {}) =>
  Effect.gen(function* () {
    for (let i = 0; i < steps; i++) {
      step(i)
      yield* checkpoint
    }
  })

/** Counts the turns of the event loop while the program runs. */
const turnsOf = async (program: Effect.Effect<unknown>): Promise<number> => {
  let turns = 0
  let over = false
  const turn = () => {
    if (over) return
    turns++
    setImmediate(turn)
  }
  setImmediate(turn)
  await Effect.runPromise(program)
  over = true
  return turns
}

describe("the time slice", () => {
  it("lets the event loop have a turn each time it is used up", async () => {
    const { on } = tickingClock()
    // A look per step and two around each turn: a slice of five milliseconds is five or six steps.
    const turns = await turnsOf(on(computing(600)))
    expect(turns).toBeGreaterThanOrEqual(85)
    expect(turns).toBeLessThanOrEqual(125)
  })

  it("costs a look at the clock and no turn while it lasts", async () => {
    const { looks, on } = tickingClock()
    const turns = await turnsOf(on(Effect.provideService(computing(1000), TimeSlice, 1e6)))
    // The first one may begin the slice.
    expect(turns).toBeLessThanOrEqual(2)
    expect(looks()).toBeLessThanOrEqual(1003)
  })

  it("can be infinite, and zero, and negative", async () => {
    for (const [slice, atMost, atLeast] of [
      [Number.POSITIVE_INFINITY, 2, 0],
      [0, 102, 99],
      [-1, 102, 99]
    ] as const) {
      const { on } = tickingClock()
      const turns = await turnsOf(on(Effect.provideService(computing(100), TimeSlice, slice)))
      expect(turns).toBeLessThanOrEqual(atMost)
      expect(turns).toBeGreaterThanOrEqual(atLeast)
    }
  })

  it("is the thread's: loops side by side do not keep each other's event loop from turning", async () => {
    const { on } = tickingClock()
    const turns = await turnsOf(
      on(Effect.all([computing(200), computing(200), computing(200)], { concurrency: "unbounded" }))
    )
    // At worst every turn holds one slice of each loop.
    expect(turns).toBeGreaterThanOrEqual(Math.floor(600 / (3 * 7)))
  })

  it("begins anew on a clock that stands behind the last one", async () => {
    const ahead = tickingClock()
    await Effect.runPromise(ahead.on(computing(500)))
    const { on } = tickingClock()
    expect(await turnsOf(on(computing(60)))).toBeGreaterThanOrEqual(8)
  })

  it.effect("does not pass on a clock that stands still", () =>
    Effect.gen(function* () {
      let turned = false
      yield* checkpoint
      setImmediate(() => {
        turned = true
      })
      yield* computing(1000)
      expect(turned).toBe(false)
    })
  )
})

describe("a cancel from the event loop", () => {
  it("is noticed within one slice of a loop that never waits", async () => {
    const { on } = tickingClock()
    for (const slice of [1, 5, 20]) {
      let steps = 0
      const fiber = Effect.runFork(
        on(
          Effect.provideService(
            computing(100_000, () => {
              steps++
            }),
            TimeSlice,
            slice
          )
        )
      )
      // It came while the loop held the thread: the loop is in its first slice now.
      const before = steps
      const cancelled = new Promise<void>((resolve) =>
        setImmediate(() => {
          fiber.interruptUnsafe()
          resolve()
        })
      )
      await cancelled
      const exit = await Effect.runPromise(Fiber.await(fiber))
      expect(isPureInterrupt(exit)).toBe(true)
      expect(steps - before).toBeLessThanOrEqual(slice + 1)
    }
  })

  it("is not noticed by the same loop without a checkpoint until the loop is over", async () => {
    let steps = 0
    const loop = Effect.gen(function* () {
      for (let i = 0; i < 1000; i++) {
        steps++
        yield* Effect.void
      }
    })
    const fiber = Effect.runFork(loop)
    fiber.interruptUnsafe()
    expect(steps).toBe(1000)
    await Effect.runPromise(Fiber.await(fiber))
  })
})

describe.each(hows)("checkpoint under a %s cancel", (how) => {
  it.effect("ends the work when it was cancelled before", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      let reached = false
      const running = yield* cancellable(
        how,
        Effect.gen(function* () {
          yield* Effect.uninterruptible(Deferred.await(gate))
          yield* checkpoint
          reached = true
        })
      )
      yield* running.cancel
      yield* Deferred.succeed(gate, undefined)
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(reached).toBe(false)
    })
  )

  it.effect("ends the work when it is cancelled, once or twice, while it lets the event loop run", () =>
    Effect.gen(function* () {
      let steps = 0
      const running = yield* cancellable(
        how,
        Effect.provideService(
          computing(10, () => {
            steps++
          }),
          TimeSlice,
          0
        )
      )
      yield* running.cancel
      yield* running.cancel
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(steps).toBe(1)
    })
  )

  it.effect("changes nothing when the cancel comes after it", () =>
    Effect.gen(function* () {
      const running = yield* cancellable(how, Effect.as(checkpoint, "passed"))
      const exit = yield* running.exit
      yield* running.cancel
      expect(exit).toEqual(Exit.succeed("passed"))
    })
  )

  it.effect("in a mask it does not end the work, and lets the event loop run nevertheless", () =>
    Effect.gen(function* () {
      let steps = 0
      let turned = false
      const running = yield* cancellable(
        how,
        Effect.uninterruptible(
          Effect.provideService(
            computing(10, () => {
              steps++
            }),
            TimeSlice,
            0
          )
        )
      )
      yield* running.cancel
      setImmediate(() => {
        turned = true
      })
      expect(isPureInterrupt(yield* running.exit)).toBe(true)
      expect(steps).toBe(10)
      expect(turned).toBe(true)
    })
  )
})
