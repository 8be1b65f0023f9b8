import { getEventListeners } from "node:events"
import { CancelScope, OnUnhandled, stuck, type Unhandled } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { describe, expect, test } from "vitest"
import {
  CancelReason,
  cancelScope,
  checkpoint,
  delayCancellation,
  failAfter,
  gather,
  InvalidDuration,
  isCancelled,
  moveOnAfter,
  onCancel,
  owner,
  processOwner,
  promiseSettled,
  settled,
  shared,
  sharedMap,
  siblingFailures,
  stopCancellation,
  TaskScopeClosed,
  type Work,
  type WorkOptions
} from "../src/index.ts"
import { caught, gate, hangs, reasonOf, stubborn, turn, watchUnhandled } from "./support.ts"

watchUnhandled()

const requested = (message: string) => CancelReason.Requested({ message })

type Runner = <A>(work: Work<A>, options?: WorkOptions) => Promise<A>

const runners: ReadonlyArray<readonly [string, Runner]> = [
  ["settled", settled],
  ["failAfter", (work, options) => failAfter(work, "1 hour", options)],
  ["failAfter without a limit", (work, options) => failAfter(work, Number.POSITIVE_INFINITY, options)],
  ["moveOnAfter", (work, options) => moveOnAfter(work, "1 hour", options) as never],
  ["onCancel", (work, options) => onCancel(work, () => {}, options)],
  ["gather", async (work, options) => (await gather([work], options))[0] as never],
  ["shared", (work, options) => shared(work).get(options)],
  ["sharedMap", (work, options) => sharedMap((_: number, signal) => work(signal)).get(1, options)],
  ["stopCancellation", stopCancellation],
  ["delayCancellation", (work, options) => delayCancellation(work, { grace: 0, ...options })]
]

describe.each(runners)("%s: the quartet", (name, run) => {
  test("L9: not cancelled, it is the work: value, error and synchronous throw", async () => {
    expect(await run(async () => "value")).toBe("value")
    expect(await run(() => "at once")).toBe("at once")
    const error = new Error("no")
    expect(await caught(run(() => Promise.reject(error)))).toBe(error)
    expect(
      await caught(
        run(() => {
          throw error
        })
      )
    ).toBe(error)
    expect(processOwner.size).toBe(0)
  })

  test("L5: cancelled before, the work is not called", async () => {
    let called = 0
    const work = () => ++called
    expect(await reasonOf(run(work, { signal: AbortSignal.abort("closed") }))).toEqual(requested("closed"))
    const scope = cancelScope()
    const { signal } = scope
    scope.cancel(CancelReason.Superseded())
    expect(await reasonOf(run(work, { signal }))).toEqual(CancelReason.Superseded())
    await turn()
    expect(called).toBe(0)
  })

  test("L8: cancelled during, it rejects with the reason, and its listener goes", async () => {
    const client = new AbortController()
    const end = gate<never>()
    const work = (signal: AbortSignal) => Promise.race([hangs(signal), end.promise])
    const running = reasonOf(run(work, { signal: client.signal }))
    await turn()
    expect(getEventListeners(client.signal, "abort")).toHaveLength(1)
    client.abort("closed")
    expect(await running).toEqual(requested("closed"))
    expect(getEventListeners(client.signal, "abort")).toHaveLength(0)
    // What was stopped only for its waiter goes on; nobody else's does.
    expect(processOwner.size).toBe(name === "stopCancellation" ? 1 : 0)
    end.open(undefined as never)
    await turn()
    expect(processOwner.size).toBe(0)
  })

  test("L8: cancelled after, nothing hears it", async () => {
    const client = new AbortController()
    expect(await run(async () => "value", { signal: client.signal })).toBe("value")
    expect(getEventListeners(client.signal, "abort")).toHaveLength(0)
    client.abort()
  })

  test("L1: cancelled twice, the first reason stays", async () => {
    const scope = cancelScope()
    const client = new AbortController()
    const inner = cancelScope({ signal: client.signal, parent: undefined })
    const end = gate<never>()
    const running = reasonOf(
      run((signal) => Promise.race([hangs(signal), end.promise]), { signal: inner.signal })
    )
    await turn()
    client.abort("first")
    inner.cancel("second")
    scope.cancel("other")
    expect(await running).toEqual(requested("first"))
    end.open(undefined as never)
    await turn()
    await inner[Symbol.asyncDispose]()
  })
})

describe("waiting for a promise", () => {
  test("L11: after an abort it waits until the promise has settled; a late value goes to its receiver", async () => {
    const client = new AbortController()
    const { called, end, work } = stubborn<string>()
    const log: Array<unknown> = []
    const running = caught(
      settled(work, { signal: client.signal, onLate: (result) => log.push(result) })
    ).then(() => log.push("left"))
    const signal = await called
    client.abort("closed")
    expect(isCancelled(signal.reason)).toBe(true)
    await turn()
    expect(log).toEqual([])
    end.open("late")
    await running
    expect(log).toEqual([{ status: "fulfilled", value: "late" }, "left"])
  })

  test("L42: a late failure reaches its receiver, or is reported once; an abort that says so is neither", async () => {
    const told: Array<unknown> = []
    await using mine = owner({ onUnhandled: ({ error, origin }) => told.push([origin, error]) })
    const late: Array<unknown> = []
    const broken = (error: unknown, onLate?: (result: unknown) => unknown) =>
      caught(
        settled((signal) => hangs(signal).catch(() => Promise.reject(error)), {
          signal: client.signal,
          owner: mine,
          onLate
        })
      )
    const client = new AbortController()
    const all = Promise.all([
      broken("broken", (result) => late.push(result)),
      broken("unheard"),
      broken(new DOMException("aborted", "AbortError")),
      broken(new Error("wrapped", { cause: new DOMException("aborted", "AbortError") }))
    ])
    await turn()
    client.abort("closed")
    expect((await all).every(isCancelled)).toBe(true)
    expect(late).toEqual([{ status: "rejected", reason: "broken" }])
    expect(told).toEqual([["late result", "unheard"]])
  })

  test("L16, L17: a promise that never settles is left behind by its name, and heard when it does after all", async () => {
    await using mine = owner({ budget: 1 })
    const client = new AbortController()
    const { called, end, work } = stubborn<string>()
    const late: Array<unknown> = []
    const running = reasonOf(
      settled(work, {
        signal: client.signal,
        owner: mine,
        name: "deaf",
        onLate: (result) => late.push(result)
      })
    )
    await called
    client.abort("closed")
    expect(await running).toEqual(requested("closed"))
    const record = Effect.runSync(stuck).find(({ name }) => name === "deaf")
    expect(record?.reason).toEqual(requested("closed"))
    end.open("after all")
    await turn()
    expect(Effect.runSync(stuck)).toEqual([])
    expect(late).toEqual([{ status: "fulfilled", value: "after all" }])
  })

  test("L44: in an Effect program, a mask and its promise hear no cancel, nor does what is started inside", async () => {
    const seen: Array<boolean> = []
    const work = promiseSettled(async (signal) => {
      const inside = settled(
        async (inner) => {
          await turn()
          await turn()
          seen.push(inner.aborted)
          return "inside"
        },
        { signal }
      )
      seen.push((await inside) === "inside", signal.aborted)
      return "whole"
    })
    const program = CancelScope.run((scope) =>
      Effect.andThen(Effect.forkChild(scope.cancel()), Effect.uninterruptible(work))
    )
    expect((await Effect.runPromise(program))._tag).toBe("Cancelled")
    expect(seen).toEqual([false, true, false])
  })

  test("in an Effect program the error is typed, a native interrupt waits, and the late exit is handed over", async () => {
    const failing = promiseSettled(() => Promise.reject("no"), { catch: (error) => ({ error }) })
    expect(await Effect.runPromise(Effect.flip(failing))).toEqual({ error: "no" })
    const { called, end, work } = stubborn<string>()
    const late: Array<unknown> = []
    const fiber = Effect.runFork(
      promiseSettled(work, { onLate: (exit) => Effect.sync(() => late.push(exit)) })
    )
    const signal = await called
    const stopped = Effect.runPromise(Fiber.interrupt(fiber))
    expect(signal.reason.reason).toEqual(CancelReason.Unknown())
    end.open("late")
    await stopped
    expect(late).toEqual([Exit.succeed("late")])
  })
})

describe("time limits", () => {
  test("L7: the error is this limit's own, with its name; no start at zero or less; NaN is refused", async () => {
    let called = 0
    const error = await caught(failAfter(hangs, 1, { name: "lookup" }))
    expect(error).toMatchObject({ _tag: "DeadlineExceeded", scope: "lookup" })
    for (const past of [0, -1, Number.NEGATIVE_INFINITY]) {
      expect(await caught(failAfter(() => called++, past))).toMatchObject({ _tag: "DeadlineExceeded" })
      expect(await moveOnAfter(() => called++, past)).toBe(undefined)
    }
    for (const none of [failAfter(hangs, Number.NaN), moveOnAfter(hangs, Number.NaN)]) {
      expect(await caught(none)).toBeInstanceOf(InvalidDuration)
    }
    expect(await caught(delayCancellation(hangs, { grace: Number.NaN }))).toBeInstanceOf(InvalidDuration)
    expect(called).toBe(0)
  })

  test("L42: what comes too late goes to onLate", async () => {
    const { called, end, work } = stubborn<string>()
    const late: Array<unknown> = []
    const limited = moveOnAfter(work, 1, { onLate: (result) => late.push(result) })
    const signal = await called
    signal.addEventListener("abort", () => end.open("late"))
    expect(await limited).toBe(undefined)
    expect(late).toEqual([{ status: "fulfilled", value: "late" }])
    expect(signal.reason.reason._tag).toBe("Deadline")
  })
})

describe("shields", () => {
  test("L10: stop leaves at once, the work stands in its owner, and onAbandoned gets the result", async () => {
    const log: Array<unknown> = []
    {
      await using mine = owner({ name: "uploads" })
      const client = new AbortController()
      const { called, end, work } = stubborn<string>()
      const left = reasonOf(
        stopCancellation(work, {
          signal: client.signal,
          owner: mine,
          onAbandoned: (result) => log.push(result)
        })
      )
      const signal = await called
      client.abort("closed")
      log.push(await left)
      expect([signal.aborted, mine.size]).toEqual([false, 1])
      end.open("uploaded")
    }
    expect(log).toEqual([requested("closed"), { status: "fulfilled", value: "uploaded" }])
  })

  test("L10: without a receiver a failure is reported once, as abandoned work", async () => {
    const told: Array<unknown> = []
    {
      await using mine = owner({ onUnhandled: ({ error, origin }) => told.push([origin, error]) })
      const client = new AbortController()
      const { called, end, work } = stubborn()
      const left = caught(stopCancellation(work, { signal: client.signal, owner: mine }))
      await called
      client.abort()
      await left
      end.fail("torn")
    }
    expect(told).toEqual([["abandoned work", "torn"]])
  })

  test("L46: under an owner that has ended, stop waits as delay does", async () => {
    const mine = owner()
    await mine[Symbol.asyncDispose]()
    expect(() => mine.spawn(async () => 1)).toThrow(TaskScopeClosed)
    const client = new AbortController()
    const { called, end, work } = stubborn<string>()
    const log: Array<unknown> = []
    const left = caught(
      stopCancellation(work, { signal: client.signal, owner: mine, onAbandoned: () => log.push("result") })
    ).then(() => log.push("left"))
    await called
    client.abort()
    await turn()
    expect(log).toEqual([])
    end.open("done")
    await left
    expect(log).toEqual(["result", "left"])
  })

  test("L11: delay keeps its caller until the work has settled, and its signal is not touched", async () => {
    await using scope = cancelScope()
    const { called, end, work } = stubborn<string>()
    const log: Array<unknown> = []
    const left = reasonOf(
      delayCancellation(work, { signal: scope.signal, onLate: (result) => log.push(result) })
    ).then((reason) => log.push(reason))
    const signal = await called
    scope.cancel("closed")
    scope.cancel("again")
    await turn()
    expect([signal.aborted, log.length]).toEqual([false, 0])
    const inside = settled(async () => "inside", { signal })
    expect(await inside).toBe("inside")
    end.open("written")
    await left
    expect(log).toEqual([{ status: "fulfilled", value: "written" }, requested("closed")])
  })

  test("L11: after the grace the work is cancelled too, and onLate is told once", async () => {
    const client = new AbortController()
    const late: Array<PromiseSettledResult<never>> = []
    const left = reasonOf(
      delayCancellation(hangs, { signal: client.signal, grace: 1, onLate: (result) => late.push(result) })
    )
    await turn()
    client.abort("closed")
    expect(await left).toEqual(requested("closed"))
    expect(late).toMatchObject([{ status: "rejected", reason: { reason: requested("closed") } }])
  })
})

describe("onCancel", () => {
  test("L14: runs iff the own cancellation prevented completion, with the reason", async () => {
    const log: Array<unknown> = []
    const note = (reason: CancelReason) => log.push(reason)
    await onCancel(async () => 1, note)
    await caught(onCancel(() => Promise.reject("no"), note))
    const stopped = processOwner.spawn(hangs)
    await turn()
    stopped.cancel("another")
    expect(await reasonOf(onCancel(() => stopped.join, note))).toEqual(requested("another"))
    expect(log).toEqual([])
    const client = new AbortController()
    const own = caught(onCancel(hangs, note, { signal: client.signal }))
    await turn()
    client.abort("own")
    await own
    expect(log).toEqual([requested("own")])
  })
})

describe("gather", () => {
  test("L20: order, shape and holes of tuples, records and iterables", async () => {
    const one = async () => 1
    const tuple: [number, undefined, null, string] = await gather([one, undefined, null, () => "two"])
    expect(tuple).toEqual([1, undefined, null, "two"])
    expect(await gather({ a: one, b: undefined })).toEqual({ a: 1, b: undefined })
    expect(await gather(new Set([one]))).toEqual([1])
    expect(await gather([])).toEqual([])
    const given = gather([Promise.resolve(1) as never])
    expect(await caught(given)).toBeInstanceOf(TypeError)
  })

  test("L21: the first error comes out as it is, the others beside it, each reported once", async () => {
    const told: Array<unknown> = []
    await using mine = owner({ onUnhandled: ({ error }) => told.push(error) })
    const first = new Error("first")
    const items = [() => Promise.reject(first), () => Promise.reject("second"), hangs]
    const error = await caught(gather(items, { owner: mine }))
    expect(error).toBe(first)
    expect(siblingFailures(error)).toEqual(["second"])
    expect(told).toEqual(["second"])
  })

  test("L22: an item that somebody else cancelled is typed", async () => {
    const stopped = processOwner.spawn(hangs)
    await turn()
    stopped.cancel("another")
    const error = await caught(gather({ fine: hangs, joined: () => stopped.join }))
    expect(error).toMatchObject({ _tag: "ChildCancelled", index: "joined", reason: requested("another") })
  })

  test("L23: it settles only when no item runs; with letFinish the rest is the owner's", async () => {
    const { end, work } = stubborn()
    let over = false
    const waiting = caught(gather([work, () => Promise.reject("no")])).then(() => (over = true))
    await turn()
    expect(over).toBe(false)
    end.open()
    await waiting
    await using mine = owner()
    const rest = stubborn()
    const left = gather([rest.work, () => Promise.reject("no")], { owner: mine, onFailure: "letFinish" })
    expect(await caught(left)).toBe("no")
    expect(mine.size).toBe(1)
    rest.end.open()
  })
})

describe("shared work", () => {
  test("L29, L30: ten thousand wait for one run; one that leaves touches nobody else", async () => {
    let runs = 0
    const { called, end, work } = stubborn<string>()
    const one = shared((signal) => {
      runs++
      return work(signal)
    })
    const client = new AbortController()
    const leaver = reasonOf(one.get({ signal: client.signal }))
    const all = Array.from({ length: 10_000 }, () => one.get())
    const signal = await called
    expect(one.observers).toBe(10_001)
    client.abort("closed")
    expect(await leaver).toEqual(requested("closed"))
    expect([one.observers, signal.aborted]).toEqual([10_000, false])
    end.open("value")
    expect(new Set(await Promise.all(all))).toEqual(new Set(["value"]))
    expect(runs).toBe(1)
  })

  test("L31: the last one that leaves cancels the run, with Unobserved; with a linger a new one keeps it", async () => {
    for (const [whenUnobserved, aborted] of [
      ["cancel", true],
      [{ linger: "1 hour" }, false],
      ["keep", false]
    ] as const) {
      const { called, end, work } = stubborn<string>()
      const one = shared(work, { whenUnobserved })
      const client = new AbortController()
      const left = caught(one.get({ signal: client.signal }))
      const signal = await called
      client.abort()
      await left
      expect([signal.aborted, signal.reason?.reason._tag]).toEqual([
        aborted,
        aborted ? "Unobserved" : undefined
      ])
      const next = one.get()
      end.open("value")
      expect(await next).toBe("value")
    }
    expect(() => shared(hangs, { whenUnobserved: { linger: Number.NaN } })).toThrow(InvalidDuration)
  })

  test("L33: retention is as told, and a cancellation is never kept", async () => {
    let runs = 0
    const users = sharedMap(async (id: number) => `${id}: ${++runs}`, {
      retain: (result) => (result.status === "fulfilled" ? "1 hour" : 0),
      capacity: 1
    })
    expect([await users.get(1), await users.get(1), await users.get(2), await users.get(1)]).toEqual([
      "1: 1",
      "1: 1",
      "2: 2",
      "1: 3"
    ])
    users.invalidate(1)
    expect(await users.get(1)).toBe("1: 4")
    expect(users.size).toBe(1)
    users.invalidateAll()
    expect(users.size).toBe(0)
  })

  test("L35: cancelling the source is a typed error for those who wait", async () => {
    const tokens = sharedMap((_: string, signal) => hangs(signal), { name: "token" })
    const waiting = caught(tokens.get("a"))
    await turn()
    expect([tokens.observers("a"), tokens.cancel("a", "revoked"), tokens.cancelAll()]).toEqual([1, true, 0])
    expect(await waiting).toMatchObject({
      _tag: "SharedCancelled",
      name: "token(a)",
      reason: requested("revoked")
    })
    const one = shared(hangs)
    const got = caught(one.get())
    await turn()
    expect(one.cancel()).toBe(true)
    expect(await got).toMatchObject({ _tag: "SharedCancelled" })
    expect(one.statistics.started).toBe(1)
  })
})

describe("owners", () => {
  test("L26: a failure that nobody joined reaches the receiver once, and is no unhandled rejection", async () => {
    const told: Array<unknown> = []
    {
      await using mine = owner({
        name: "mail",
        onUnhandled: ({ error, name, origin }) => told.push([origin, name, error])
      })
      mine.spawn("welcome", () => {
        throw "no route"
      })
      const joined = mine.spawn(() => Promise.reject("joined"))
      expect(await caught(joined.join)).toBe("joined")
      expect(joined.status).toBe("ended")
    }
    expect(told.map((entry) => (entry as Array<unknown>)[2])).toEqual(["no route", "joined"])
    expect(told[0]).toEqual(["task", "welcome", "no route"])
  })

  test("L24: its end waits, then cancels what is left with Shutdown, also a scope that nobody disposed", async () => {
    const mine = owner({ drain: 1 })
    const scope = cancelScope({ owner: mine })
    const reason = reasonOf(scope.run(hangs))
    await mine[Symbol.asyncDispose]()
    expect(await reason).toEqual(CancelReason.Shutdown({ phase: "force" }))
    expect([scope.cancelled, mine.size]).toEqual([true, 0])
    await mine[Symbol.asyncDispose]()
    expect(() => owner({ drain: Number.NaN })).toThrow(InvalidDuration)
  })

  test("a receiver that throws itself is logged and changes nothing; the default is Effect's own", async () => {
    const told: Array<Unhandled> = []
    const program = promiseSettled((signal) => {
      processOwner.name
      return settled(hangs, { signal }).catch(() => Promise.reject("late"))
    })
    const receive = (unhandled: Unhandled) => Effect.sync(() => told.push(unhandled))
    const run = CancelScope.run((scope) =>
      Effect.andThen(Effect.forkChild(Effect.delay(scope.cancel(), 1)), program)
    )
    await Effect.runPromise(Effect.provideService(run, OnUnhandled, receive))
    expect(told.map(({ origin }) => origin)).toEqual(["late result"])
  })
})

describe("checkpoint", () => {
  test("lets the event loop run, and ends the work after it", async () => {
    const client = new AbortController()
    setImmediate(() => client.abort("closed"))
    const loop = async () => {
      for (;;) await checkpoint(client.signal)
    }
    expect(await reasonOf(loop())).toEqual(requested("closed"))
    await checkpoint()
  })
})

test("L8: a hundred thousand operations on one long-lived signal leave nothing behind", async () => {
  const client = new AbortController()
  const { signal } = client
  await using scope = cancelScope({ signal })
  const kept = shared(async () => 1, { whenUnobserved: "keep" })
  const value = async () => 1
  const ways: ReadonlyArray<(signal: AbortSignal) => Promise<unknown>> = [
    (signal) => settled(value, { signal }),
    (signal) => settled(() => Promise.reject("no"), { signal }),
    (signal) => failAfter(value, "1 hour", { signal }),
    (signal) => moveOnAfter(hangs, 0, { signal }),
    (signal) => delayCancellation(value, { signal }),
    (signal) => stopCancellation(value, { signal }),
    (signal) => gather([value, value], { signal }),
    (signal) => kept.get({ signal }),
    (signal) => onCancel(value, () => {}, { signal }),
    async (signal) => {
      await using inner = cancelScope({ signal })
      await inner.run(value)
    }
  ]
  const each = 5_000
  for (const way of ways) {
    for (const used of [signal, scope.signal]) {
      for (let i = 0; i < each; i += 100) {
        await Promise.all(Array.from({ length: 100 }, () => way(used).catch(() => {})))
      }
    }
  }
  expect(getEventListeners(signal, "abort")).toHaveLength(1)
  expect(getEventListeners(scope.signal, "abort")).toHaveLength(0)
  expect(processOwner.size).toBe(1)
  await scope[Symbol.asyncDispose]()
  expect(getEventListeners(signal, "abort")).toHaveLength(0)
  await turn()
  expect(processOwner.size).toBe(0)
})
