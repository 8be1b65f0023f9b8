import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Ref from "effect/Ref"
import * as Semaphore from "effect/Semaphore"
import { describe, expect, test } from "vitest"
import { explore, formatExplore, Probe, replay } from "../src/index.ts"

/** Each fiber notes its number some times, and waits for its turn in between. */
const notes = (fibers: number, times: number, orders?: Set<string>) => ({
  name: `${fibers} fibers of ${times} operations`,
  setup: Effect.sync(() => {
    const log: Array<number> = []
    const fiber = (number: number) =>
      Effect.forEach(
        Array.from({ length: times }, (_, index) => index),
        (index) =>
          Effect.andThen(
            Effect.sync(() => log.push(number)),
            index < times - 1 ? Effect.yieldNow : Effect.void
          ),
        { discard: true }
      )
    return Effect.gen(function* () {
      const started: Array<Fiber.Fiber<unknown>> = []
      for (let number = 1; number <= fibers; number++) started.push(yield* Effect.forkChild(fiber(number)))
      yield* Effect.callback<void>((resume) => {
        let left = fibers
        for (const one of started) {
          one.addObserver(() => {
            if (--left === 0) resume(Effect.void)
          })
        }
      })
      orders?.add(log.join(""))
    })
  })
})

const lostUpdate = {
  name: "two increments",
  setup: Effect.gen(function* () {
    const ref = yield* Ref.make(0)
    yield* Probe.invariant("two", () => Effect.map(Ref.get(ref), (n) => n === 2))
    const increment = Effect.flatMap(Ref.get(ref), (n) => Ref.set(ref, n + 1))
    return Effect.all([increment, increment], { concurrency: "unbounded" })
  })
}

describe("exploring exhaustively", () => {
  // The number of ways to shuffle k lists of n: (k·n)! / n!^k.
  test.each([
    [2, 2, 6],
    [2, 3, 20],
    [2, 4, 70],
    [3, 2, 90],
    [3, 3, 1_680],
    [3, 4, 34_650]
  ])(
    "%i fibers of %i operations have %i orders, each of them once",
    { timeout: 60_000 },
    async (fibers, times, count) => {
      const orders = new Set<string>()
      const program = notes(fibers, times, orders)
      const report = await Effect.runPromise(explore(program, { mode: "exhaustive", preempt: "yields" }))
      expect(report).toMatchObject({ ok: true, complete: true, schedules: count })
      expect(orders.size).toBe(count)
    }
  )

  test("forced yields reach every order of two fibers that never wait by themselves", async () => {
    const orders = new Set<string>()
    const fiber = (log: Array<string>, name: string) => {
      const note = Effect.sync(() => log.push(name))
      return Effect.andThen(note, Effect.andThen(note, note))
    }
    const program = {
      setup: Effect.sync(() => {
        const log: Array<string> = []
        return Effect.all([fiber(log, "a"), fiber(log, "b")], { concurrency: "unbounded" }).pipe(
          Effect.andThen(Effect.sync(() => orders.add(log.join(""))))
        )
      })
    }
    const report = await Effect.runPromise(explore(program, { mode: "exhaustive", preemptions: 9 }))
    expect(report).toMatchObject({ ok: true, complete: true, schedules: 4_545 })
    expect(orders.size).toBe(20)
  })

  test("stops at the limit and says that it is not complete", async () => {
    const report = await Effect.runPromise(
      explore(notes(3, 3), { mode: "exhaustive", preempt: "yields", schedules: 100 })
    )
    expect(report).toMatchObject({ schedules: 100, complete: false, ok: true })
  })

  test("finds a lost update, which no order without a forced yield shows", async () => {
    const cooperative = await Effect.runPromise(
      explore(lostUpdate, { mode: "exhaustive", preempt: "yields" })
    )
    expect(cooperative).toMatchObject({ ok: true, complete: true })
    const report = await Effect.runPromise(explore(lostUpdate, { mode: "exhaustive" }))
    expect(report.failure?.findings.map(({ message }) => message)).toEqual(["two does not hold"])
    expect(report.failure?.schedule.filter((choice) => choice > 0)).toHaveLength(1)
  })

  test("passes the same update under a lock", async () => {
    const locked = {
      setup: Effect.gen(function* () {
        const ref = yield* Ref.make(0)
        const lock = yield* Semaphore.make(1)
        yield* Probe.invariant("two", () => Effect.map(Ref.get(ref), (n) => n === 2))
        const increment = lock.withPermits(1)(Effect.flatMap(Ref.get(ref), (n) => Ref.set(ref, n + 1)))
        return Effect.all([increment, increment], { concurrency: "unbounded" })
      })
    }
    const report = await Effect.runPromise(explore(locked, { mode: "exhaustive", preemptions: 1 }))
    expect(report).toMatchObject({ ok: true, complete: true })
  })

  test("finds a deadlock of two locks in two orders", async () => {
    const report = await Effect.runPromise(
      explore(
        {
          setup: Effect.gen(function* () {
            const a = yield* Semaphore.make(1)
            const b = yield* Semaphore.make(1)
            const both = (first: Semaphore.Semaphore, second: Semaphore.Semaphore) =>
              first.withPermits(1)(second.withPermits(1)(Effect.void))
            return Effect.all([both(a, b), both(b, a)], { concurrency: "unbounded" })
          })
        },
        { mode: "exhaustive" }
      )
    )
    expect(report.failure?.findings[0]?.kind).toBe("NotTerminated")
  })
})

describe("exploring by seeds", () => {
  test("finds a lost update, and the same one again by the same seed", async () => {
    const report = await Effect.runPromise(explore(lostUpdate))
    const seed = report.failure?.seed
    expect(seed).toBeDefined()
    const again = await Effect.runPromise(replay(lostUpdate, { seed: seed ?? 0 }))
    expect(again.findings.map(({ message }) => message)).toEqual(["two does not hold"])
  })

  test("the same seed is the same trace, and another is not always", async () => {
    const program = notes(3, 3)
    const traces = await Promise.all(
      [5, 5, 6, 7, 8].map(async (seed) =>
        (await Effect.runPromise(replay(program, { seed }))).trace.join("\n")
      )
    )
    expect(traces[0]).toBe(traces[1])
    expect(new Set(traces).size).toBeGreaterThan(1)
  })

  test("a schedule replays what its seed did", async () => {
    const program = notes(3, 3)
    const bySeed = await Effect.runPromise(replay(program, { seed: 11 }))
    const bySchedule = await Effect.runPromise(replay(program, { schedule: bySeed.schedule }))
    expect(bySchedule.trace).toEqual(bySeed.trace)
  })

  test("a failing schedule is made as short as it can be", async () => {
    const report = await Effect.runPromise(explore(lostUpdate, { probability: 0.9 }))
    const failure = report.failure
    if (failure === undefined) throw new Error("nothing found")
    expect(failure.schedule.filter((choice) => choice > 0)).toEqual([1])
    expect(failure.schedule.length).toBeLessThan(failure.foundAt)
    const shorter = await Promise.all(
      failure.schedule.map((choice, index) =>
        choice === 0
          ? undefined
          : Effect.runPromise(
              replay(lostUpdate, { schedule: failure.schedule.map((one, i) => (i === index ? 0 : one)) })
            )
      )
    )
    for (const run of shorter) expect(run?.findings ?? []).toEqual([])
  })

  test("the text says how to replay", async () => {
    const report = await Effect.runPromise(explore(lostUpdate))
    expect(formatExplore(report)).toContain(
      `replay with { schedule: ${JSON.stringify(report.failure?.schedule)} }, or { seed: ${report.failure?.seed} }`
    )
  })
})
