import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import { describe, expect, test } from "vitest"
import { countSteps, JumpClock } from "../src/index.ts"

describe("the clock that jumps", () => {
  test("wakes sleepers in the order of their times, at their times", async () => {
    const log: Array<string> = []
    const sleeper = (name: string, hours: number) =>
      Effect.gen(function* () {
        yield* Effect.sleep(`${hours} hours`)
        log.push(`${name} at ${(yield* Clock.currentTimeMillis) / 3_600_000}`)
      })
    const program = Effect.all([sleeper("c", 5), sleeper("a", 1), sleeper("b", 2), sleeper("a2", 1)], {
      concurrency: "unbounded"
    })
    await Effect.runPromise(JumpClock.run(program))
    expect(log).toEqual(["a at 1", "a2 at 1", "b at 2", "c at 5"])
  })

  test("does not move while anything is runnable", async () => {
    const program = Effect.gen(function* () {
      const busy = yield* Effect.forkChild(Effect.repeat(Effect.yieldNow, Schedule.recurs(100)))
      const nap = yield* Effect.forkChild(Effect.sleep("1 second"))
      yield* Fiber.join(busy)
      const before = yield* Clock.currentTimeMillis
      yield* Fiber.join(nap)
      return [before, yield* Clock.currentTimeMillis]
    })
    expect(await Effect.runPromise(JumpClock.run(program))).toEqual([0, 1000])
  })

  test("forgets an interrupted sleeper", async () => {
    const program = Effect.andThen(
      Effect.timeoutOption(Effect.sleep("365 days"), "1 second"),
      Clock.currentTimeMillis
    )
    expect(await Effect.runPromise(JumpClock.run(program))).toBe(1000)
  })

  test("calls a standstill a deadlock, and says who waits where", async () => {
    const program = Effect.gen(function* () {
      const never = yield* Deferred.make<void>()
      yield* Deferred.await(never)
    })
    const error = await Effect.runPromise(Effect.flip(JumpClock.run(program)))
    expect(error).toBeInstanceOf(JumpClock.Deadlock)
    expect(error.message).toMatch(/#1 in Async at packages\/testing\/test\/jumpClock\.test\.ts:\d+:\d+\.$/)
  })

  test("runs nothing of a program that it has given up, whatever wakes it later", async () => {
    const log: Array<string> = []
    let wake = () => {}
    const program = Effect.callback<void>((resume) => {
      wake = () => resume(Effect.void)
    }).pipe(Effect.andThen(Effect.sync(() => log.push("ran"))))
    await Effect.runPromise(Effect.flip(JumpClock.run(program)))
    wake()
    expect(log).toEqual([])
  })

  test("calls a program that only ever sleeps endless", async () => {
    const error = await Effect.runPromise(
      Effect.flip(JumpClock.run(Effect.forever(Effect.sleep("1 second"))))
    )
    expect(error).toMatchObject({ _tag: "Deadlock", endless: true })
  })

  test("passes failures and requirements through", async () => {
    const program = Effect.andThen(Effect.sleep("1 minute"), Effect.fail("broken"))
    expect(await Effect.runPromise(Effect.flip(JumpClock.run(program)))).toBe("broken")
  })

  test("waits for the outside when it is told to", async () => {
    const program = Effect.callback<string>((resume) => {
      const { port1, port2 } = new MessageChannel()
      port2.onmessage = () => {
        port1.close()
        resume(Effect.succeed("heard"))
      }
      port1.postMessage("hello")
    }).pipe(Effect.timeout("1 hour"))
    expect(await Effect.runPromise(JumpClock.run(program, { patience: "10 seconds" }))).toBe("heard")
  })
})

describe("counting steps", () => {
  test("gives the same number each time, and counts the fibers below", async () => {
    const program = Effect.all([Effect.yieldNow, Effect.yieldNow], { concurrency: "unbounded" })
    const [one, again, alone] = await Promise.all(
      [program, program, Effect.yieldNow].map((effect) =>
        Effect.runPromise(countSteps<unknown, never, never>(effect))
      )
    )
    expect(one).toBe(again)
    expect(one).toBeGreaterThan(alone ?? 0)
  })

  test("a sleep costs the same however long it is", async () => {
    const [short, long] = await Promise.all(
      (["1 second", "365 days"] as const).map((time) => Effect.runPromise(countSteps(Effect.sleep(time))))
    )
    expect(short).toBe(long)
  })
})
