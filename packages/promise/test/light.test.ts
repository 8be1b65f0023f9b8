/** Work that has no fiber until somebody asks for it behaves as if it had one. */
import { cancelledTotal, CancelReason as Reason, describe as say } from "@curfew/reason"
import { type Cell, childrenOf, rootsUnsafe } from "@curfew/reason/CancelCell"
import { formatTree, inspect, Owner, TaskScope } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Scheduler from "effect/Scheduler"
import { describe, expect, test } from "vitest"
import {
  CancelReason,
  DeadlineExceeded,
  delayCancellation,
  failAfter,
  gather,
  moveOnAfter,
  onCancel,
  owner,
  processOwner,
  settled
} from "../src/index.ts"
import { processOwner as held } from "../src/internal/owners.ts"
import { scopeHere } from "../src/scopeHere.ts"
import { caught, gate, hangs, reasonOf, stubborn, turn, watchUnhandled } from "./support.ts"

watchUnhandled()

const alive = (): string => formatTree(Effect.runSync(inspect))
const requested = (message: string) => CancelReason.Requested({ message })

describe("work without a fiber", () => {
  test("L47: stands in the live tree from its start to its end, and so do the items of a gather", async () => {
    const one = stubborn()
    const two = stubborn()
    const all = Promise.all([
      settled(one.work, { name: "lookup" }),
      gather({ left: two.work, right: async () => "done" }, { name: "page" })
    ])
    await two.called
    await turn()
    expect(alive()).toContain('task "lookup"')
    expect(alive()).toContain('task "page"')
    expect(alive()).toContain('tasks "gather"')
    expect(alive()).toContain('task "gather[left]"')
    expect(alive()).not.toContain('task "gather[right]"')
    expect(processOwner.size).toBe(2)
    one.end.open()
    two.end.open()
    await all
    expect(alive()).not.toContain("lookup")
    expect(alive()).not.toContain("gather")
    expect(processOwner.size).toBe(0)
  })

  test("L2: a cancel takes along what it started, however deep, and waits for it", async () => {
    const client = new AbortController()
    const inner = stubborn()
    const log: Array<string> = []
    const running = reasonOf(
      settled(
        async (signal) => {
          const below = settled((own) => settled(inner.work, { signal: own, name: "inner" }), {
            signal,
            name: "middle"
          })
          below.catch(() => log.push("below"))
          await below
        },
        { signal: client.signal, name: "outer" }
      ).finally(() => log.push("above"))
    )
    const signal = await inner.called
    expect(alive()).toMatch(/task "outer".*\n.*└─ task "middle".*\n.*└─ task "inner"/)
    client.abort("closed")
    expect(signal.aborted).toBe(true)
    await turn()
    expect(log).toEqual([])
    inner.end.open()
    expect(await running).toEqual(requested("closed"))
    expect(log).toEqual(["below", "above"])
  })

  test("L2: what is started with its signal afterwards runs under the owner", async () => {
    let late: AbortSignal | undefined
    await settled((signal) => {
      late = signal
    })
    expect(await settled(async () => "late", { signal: late })).toBe("late")
    const working = stubborn()
    const running = settled(working.work, { signal: late, name: "late" })
    await working.called
    expect(alive()).toContain('task "late"')
    working.end.open()
    await running
  })

  test("L5: cancelled in the turn in which it starts, it is not called", async () => {
    const client = new AbortController()
    let called = 0
    const started = [
      settled(() => called++, { signal: client.signal }),
      gather([() => called++], { signal: client.signal }),
      failAfter(() => called++, "1 hour", { signal: client.signal })
    ]
    client.abort("closed")
    for (const running of started) expect(await reasonOf(running)).toEqual(requested("closed"))
    expect(called).toBe(0)
    expect(processOwner.size).toBe(0)
  })

  test("L9: what a shield protects keeps what it started when its caller is cancelled", async () => {
    const client = new AbortController()
    const inner = stubborn()
    const running = reasonOf(
      delayCancellation((signal) => settled(inner.work, { signal }), { signal: client.signal })
    )
    const signal = await inner.called
    client.abort("closed")
    await turn()
    expect(signal.aborted).toBe(false)
    inner.end.open()
    expect(await running).toEqual(requested("closed"))
  })

  test("L14: its clean-up runs iff it is cancelled", async () => {
    const client = new AbortController()
    const seen: Array<string> = []
    const cleanUp = (reason: CancelReason) => seen.push(say(reason))
    await onCancel(() => 1, cleanUp)
    await caught(onCancel(() => Promise.reject(new Error("no")), cleanUp))
    expect(seen).toEqual([])
    const running = reasonOf(onCancel(hangs, cleanUp, { signal: client.signal }))
    await turn()
    client.abort("closed")
    await running
    expect(seen).toEqual(["closed"])
  })

  test("L24: its owner's end waits for it, and cancels it when the drain is over", async () => {
    const patient = owner({ drain: "1 hour" })
    const slow = stubborn<string>()
    const running = settled(slow.work, { owner: patient })
    await slow.called
    let over = false
    const ending = patient[Symbol.asyncDispose]().then(() => {
      over = true
    })
    await turn()
    expect(over).toBe(false)
    slow.end.open("value")
    expect(await running).toBe("value")
    await ending

    const hasty = owner({ drain: 0 })
    const reason = reasonOf(settled(hangs, { owner: hasty }))
    const items = reasonOf(gather([hangs, hangs], { owner: hasty }))
    await turn()
    await hasty[Symbol.asyncDispose]()
    expect(await reason).toEqual(CancelReason.Shutdown({ phase: "force" }))
    expect(await items).toEqual(CancelReason.Shutdown({ phase: "force" }))
  })

  test("is counted when it is cancelled", async () => {
    const count = () => {
      const metric = Metric.withAttributes(cancelledTotal, { kind: "task", reason: "Superseded" })
      return Effect.runSync(Metric.value(metric)).count
    }
    const before = count()
    const client = new AbortController()
    const running = reasonOf(settled(hangs, { signal: client.signal }))
    await turn()
    client.abort(Reason.Superseded())
    await running
    expect(count()).toBe(before + 1)
  })

  test("has a fiber for whoever looks at each task", async () => {
    const slow = stubborn<string>()
    const running = settled(slow.work, { name: "slow" })
    const all = gather([slow.work, async () => "other"], { name: "all" })
    await slow.called
    const fibers = () => {
      const { tasks } = held()
      const root = rootsUnsafe().find((cell) => cell.name === tasks.name) as Cell
      return childrenOf(root).map((cell) => [cell.name, cell.fiber !== undefined])
    }
    expect(fibers()).toEqual([
      ["slow", false],
      ["all", false]
    ])
    TaskScope.fillPlacesUnsafe(held().tasks)
    expect(fibers()).toEqual([
      ["slow", true],
      ["all", true]
    ])
    expect(processOwner.size).toBe(2)
    slow.end.open("value")
    expect(await running).toBe("value")
    expect(await all).toEqual(["value", "other"])
    expect(processOwner.size).toBe(0)
  })

  test("has one from the start under a scheduler of the program's own", async () => {
    const program = Effect.gen(function* () {
      const scope = yield* scopeHere()
      const here = yield* Effect.withFiber((fiber) => Effect.succeed(fiber.context))
      yield* Effect.promise(async () => {
        expect(Context.get(here, Scheduler.Scheduler)).toBe(own)
        expect(await scope.run(async () => "value")).toBe("value")
        const running = reasonOf(scope.run(hangs))
        await turn()
        scope.cancel("closed")
        expect(await running).toEqual(requested("closed"))
        await scope[Symbol.asyncDispose]()
      })
    })
    const own = new Scheduler.MixedScheduler("async")
    await Effect.runPromise(
      Effect.provideService(Effect.provide(program, Owner.layer()), Scheduler.Scheduler, own)
    )
  })
})

describe("a gather without fibers", () => {
  test("L47: its items stand below it, in the order in which they began, once somebody looks", async () => {
    const [one, two, three] = [stubborn(), stubborn(), stubborn()]
    const below = () => {
      const { tasks } = held()
      const root = rootsUnsafe().find((cell) => cell.name === tasks.name) as Cell
      const whole = childrenOf(childrenOf(root)[0] as Cell)[0] as Cell
      return childrenOf(whole)
    }
    const names = () => below().map((cell) => cell.name)
    const all = gather([one.work, two.work, three.work], { concurrency: 2 })
    await two.called
    const seen = below()
    expect(names()).toEqual(["gather[0]", "gather[1]"])
    one.end.open()
    await three.called
    expect(names()).toEqual(["gather[1]", "gather[2]"])
    // Looking again makes none anew, and one that was seen is as old as it was.
    expect(below()[0]).toBe(seen[1])
    expect(seen.map((cell) => [cell.ended, cell.parent === below()[0]?.parent])).toEqual([
      [true, true],
      [false, true]
    ])
    two.end.open()
    three.end.open()
    await all
    expect(seen[1]?.ended).toBe(true)
    expect(processOwner.size).toBe(0)
  })

  test("L21, L23: a failure finds the rest: what has ended, what runs, and what has not begun", async () => {
    const log: Array<string> = []
    const failing = gate<never>()
    const hanging = (name: string) => (signal: AbortSignal) => {
      signal.addEventListener("abort", () =>
        log.push(`${name}: ${(signal.reason as { reason: CancelReason }).reason._tag}`)
      )
      return hangs(signal)
    }
    const error = new Error("no")
    const all = gather(
      {
        done: async () => 1,
        fails: () => failing.promise,
        runs: hanging("runs"),
        never: () => log.push("never")
      },
      { concurrency: 2 }
    )
    await turn()
    failing.fail(error)
    expect(await caught(all)).toBe(error)
    expect(log).toEqual(["runs: SiblingFailed"])
    expect(processOwner.size).toBe(0)
  })

  test("L20: gives the results in the places of the items, however many run at once", async () => {
    let running = 0
    let most = 0
    const item = (value: number) => async () => {
      most = Math.max(most, ++running)
      await turn()
      running--
      return value
    }
    const items = Array.from({ length: 7 }, (_, i) => item(i))
    expect(await gather([...items, null], { concurrency: 3 })).toEqual([0, 1, 2, 3, 4, 5, 6, null])
    expect(most).toBe(3)
    expect(await gather({ a: item(1), b: undefined })).toEqual({ a: 1, b: undefined })
    expect(await gather([])).toEqual([])
    expect(await gather([null])).toEqual([null])
  })

  test("an item that throws at once is told like one that rejects", async () => {
    const error = new TypeError("no")
    const thrown = () => {
      throw error
    }
    expect(await caught(gather([hangs, thrown]))).toBe(error)
    expect((await caught(gather([hangs], { concurrency: 0 }))) as Error).toMatchObject({
      _tag: "IllegalArgument"
    })
  })
})

describe("a time limit without a fiber", () => {
  test("L7, L42: passes after its duration, with the deadline as the reason, and onLate has what comes after it", async () => {
    const slow = stubborn<string>()
    const late: Array<PromiseSettledResult<string>> = []
    const error = caught(failAfter(slow.work, 5, { name: "lookup", onLate: (result) => late.push(result) }))
    const signal = await slow.called
    await new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => resolve())
    })
    expect((signal.reason as { reason: CancelReason }).reason).toMatchObject({
      _tag: "Deadline",
      scope: "lookup"
    })
    slow.end.open("late")
    expect(await error).toBeInstanceOf(DeadlineExceeded)
    expect(late).toEqual([{ status: "fulfilled", value: "late" }])
    expect(await moveOnAfter(hangs, 5)).toBe(undefined)
    expect(await moveOnAfter(hangs, 1)).toBe(undefined)
  })

  test("L42: leaves no timer behind when the work is in time", async () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length
    const before = timers()
    expect(await failAfter(async () => 1, "1 hour")).toBe(1)
    await caught(failAfter(() => Promise.reject(new Error("no")), "1 hour"))
    expect(timers()).toBe(before)
    const client = new AbortController()
    const running = reasonOf(failAfter(hangs, "1 hour", { signal: client.signal }))
    await turn()
    client.abort("closed")
    await running
    expect(timers()).toBe(before)
  })

  test("passes for work that was given a fiber before", async () => {
    const inner = stubborn()
    const error = caught(failAfter((signal) => settled(inner.work, { signal }), 20, { name: "outer" }))
    const signal = await inner.called
    await new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => resolve())
    })
    inner.end.open()
    expect(await error).toMatchObject({ scope: "outer" })
  })
})

test("what fails after its abort is reported once, with the reason", async () => {
  const seen: Array<unknown> = []
  const own = owner({ onUnhandled: ({ error, origin, reason }) => seen.push([origin, error, reason]) })
  const client = new AbortController()
  const slow = stubborn()
  const running = reasonOf(settled(slow.work, { owner: own, signal: client.signal }))
  await slow.called
  client.abort("closed")
  const error = new Error("late")
  slow.end.fail(error)
  await running
  expect(seen).toEqual([["late result", error, requested("closed")]])
  await own[Symbol.asyncDispose]()
})
