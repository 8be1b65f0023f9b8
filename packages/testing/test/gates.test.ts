import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import { expectSwept, LeakGate, sweep, sweptReports, unclean, unswept } from "../src/index.ts"
import { matchers } from "../src/vitest.ts"

expect.extend(matchers)

describe("a gate for fibers", () => {
  test("counts those that are left, however many times it ran", async () => {
    expect(await Effect.runPromise(LeakGate.fibers(Effect.forkDetach(Effect.never), { times: 7 }))).toBe(7)
  })
  test("lets those pass that end by themselves", async () => {
    expect(await Effect.runPromise(LeakGate.fibers(Effect.forkDetach(Effect.yieldNow), { times: 7 }))).toBe(0)
  })
})

describe("a gate for abort listeners", () => {
  test("counts those that are left on a long-lived signal", async () => {
    const leaky = (signal: AbortSignal) =>
      Effect.sync(() => signal.addEventListener("abort", () => undefined))
    expect(await Effect.runPromise(LeakGate.listeners(leaky, { times: 100 }))).toBe(100)
  })
  test("finds none after a hundred thousand calls that take theirs away", async () => {
    const clean = (signal: AbortSignal) =>
      Effect.callback<void>((resume) => {
        const heard = () => resume(Effect.void)
        signal.addEventListener("abort", heard)
        resume(Effect.sync(() => signal.removeEventListener("abort", heard)))
      })
    expect(await Effect.runPromise(LeakGate.listeners(clean, { times: 100_000 }))).toBe(0)
  })
  test("leaves the signal as it was", async () => {
    const { signal } = new AbortController()
    await Effect.runPromise(LeakGate.listeners(() => Effect.void, { signal }))
    expect(Object.keys(signal)).toEqual([])
  })
})

describe("a gate for timers", () => {
  test("counts those that are left", async () => {
    const handles: Array<ReturnType<typeof setTimeout>> = []
    const leaky = Effect.sync(() => handles.push(setTimeout(() => undefined, 1_000_000)))
    expect(await Effect.runPromise(LeakGate.timers(leaky, { times: 5 }))).toBe(5)
    for (const handle of handles) clearTimeout(handle)
  })
  test("finds none after time limits that were not needed", async () => {
    expect(
      await Effect.runPromise(LeakGate.timers(Effect.timeout(Effect.yieldNow, "1 hour"), { times: 50 }))
    ).toBe(0)
  })
})

describe("a gate for the heap", () => {
  test("tells what keeps memory from what does not", async () => {
    const kept: Array<unknown> = []
    const leaky = Effect.sync(() => kept.push(new Array(64).fill(0)))
    expect(await Effect.runPromise(LeakGate.heapSlope(leaky, { times: 500, rounds: 5 }))).toBeGreaterThan(256)
    expect(await Effect.runPromise(LeakGate.heapSlope(Effect.void, { times: 500, rounds: 5 }))).toBeLessThan(
      128
    )
  })
})

describe("the routes that are marked cancellable", () => {
  const routes = [
    { name: "GET /swept", cancellable: true },
    { name: "GET /not-swept", cancellable: true },
    { name: "POST /pay", cancellable: false }
  ]

  test("are listed until a sweep of that name has ended", async () => {
    expect(unswept(routes)).toEqual(["GET /swept", "GET /not-swept"])
    await Effect.runPromise(sweep(Effect.yieldNow, { name: "GET /swept" }))
    expect(unswept(routes)).toEqual(["GET /not-swept"])
    expect(sweptReports().get("GET /swept")?.ok).toBe(true)
  })

  test("fail the test that expects them to be swept", () => {
    expect(() => expectSwept(routes)).toThrow("covered by no sweep: GET /not-swept.")
    expect(() => expectSwept(routes.slice(2))).not.toThrow()
  })

  test("fail it for what their sweeps found, when it expects them to be clean", async () => {
    const leaky = { name: "GET /leaky", cancellable: true }
    const sound = { name: "GET /sound", cancellable: true }
    await Effect.runPromise(sweep(Effect.forkDetach(Effect.never), { name: leaky.name }))
    await Effect.runPromise(sweep(Effect.yieldNow, { name: sound.name }))
    const uncancellable = { ...leaky, cancellable: false }
    expect(unclean([leaky, sound, uncancellable])).toEqual(["GET /leaky"])
    expect(() => expectSwept([leaky, sound])).not.toThrow()
    expect(() => expectSwept([sound, uncancellable], { clean: true })).not.toThrow()
    expect(() => expectSwept([leaky, sound], { clean: true })).toThrow(
      "broken by a cancel, as their sweeps have found: GET /leaky."
    )
    expect(() => expect([leaky]).toBeSwept({ clean: true })).toThrow("broken by a cancel: GET /leaky")
    // The last sweep counts: a route that was mended is clean.
    await Effect.runPromise(sweep(Effect.yieldNow, { name: leaky.name }))
    expect(() => expectSwept([leaky], { clean: true })).not.toThrow()
  })
})

describe("the matchers", () => {
  const leaky = Effect.forkDetach(Effect.never)

  test("pass a program that survives", async () => {
    await expect(Effect.sleep("1 second")).toSurviveSweep({ name: "a nap" })
    await expect(Effect.sleep("1 second")).toSurviveSchedules({ schedules: 10 })
    expect([{ name: "a nap", cancellable: true }]).toBeSwept()
  })

  test("fail one that does not, with the report as their message", async () => {
    await expect(expect(leaky).toSurviveSweep()).rejects.toThrow("FiberLeft: without any cancel")
    await expect(expect(leaky).toSurviveSchedules()).rejects.toThrow("replay with")
    expect(() => expect([{ name: "unheard of", cancellable: true }]).toBeSwept()).toThrow("unheard of")
  })

  test("refuse what is not a program", async () => {
    await expect(expect(1).toSurviveSweep()).rejects.toThrow("expected an Effect")
  })
})
