import { stuck } from "@curfew/scope"
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import {
  Cancelled,
  CancelReason,
  cancelScope,
  DeadlineExceeded,
  InvalidDuration,
  isCancelled,
  processOwner,
  settled,
  siblingFailures,
  TaskScopeClosed,
  type UnhandledError,
  withCancelScope
} from "../src/index.ts"
import { caught, gate, hangs, reasonOf, stubborn, turn, watchUnhandled } from "./support.ts"

watchUnhandled()

const requested = (message: string) => CancelReason.Requested({ message })

describe("a cancel scope: the quartet", () => {
  test("L5: cancelled before, work is not called, and everything says why", async () => {
    let called = 0
    await using scope = cancelScope()
    scope.cancel("enough")
    expect(await reasonOf(scope.run(() => called++))).toEqual(requested("enough"))
    expect(() => scope.spawn(() => called++)).toThrow(Cancelled)
    expect(() => scope.defer(() => called++)).toThrow(Cancelled)
    expect(await reasonOf(scope.checkpoint())).toEqual(requested("enough"))
    await turn()
    expect(called).toBe(0)
  })

  test("L5: an aborted signal, with whatever, and a deadline in the past: nothing starts", async () => {
    for (const [options, expected] of [
      [{ signal: AbortSignal.abort("closed") }, requested("closed")],
      [{ signal: AbortSignal.abort(42) }, CancelReason.Unknown()],
      [{ signal: AbortSignal.abort(null) }, CancelReason.Unknown()],
      [{ signal: AbortSignal.abort() }, CancelReason.Unknown()],
      [{ signal: AbortSignal.abort(new Error("gone")) }, requested("gone")],
      [{ signal: AbortSignal.abort(new Cancelled(CancelReason.Superseded())) }, CancelReason.Superseded()]
    ] as const) {
      await using scope = cancelScope(options)
      expect(scope.reason).toEqual(expected)
      expect(scope.signal.reason.reason).toEqual(expected)
      expect(await reasonOf(scope.run(() => 1))).toEqual(expected)
      expect(scope.cancel()).toBe(false)
    }
    for (const deadline of [0, -5, Number.NEGATIVE_INFINITY]) {
      await using scope = cancelScope({ deadline, name: "late" })
      expect(scope.reason).toMatchObject({ _tag: "Deadline", scope: "late" })
      expect((await reasonOf(scope.run(() => 1)))._tag).toBe("Deadline")
    }
  })

  test("L2: cancelled during, every scope and task below is told in the same turn, and nothing above", async () => {
    const above = cancelScope({ name: "above" })
    const scope = cancelScope({ parent: above })
    const inner = cancelScope({ signal: scope.signal })
    const running = scope.run(hangs)
    const task = inner.spawn("deep", hangs)
    await turn()
    expect(scope.cancel(CancelReason.ClientGone({ transport: "http1" }))).toBe(true)
    for (const { cancelled, reason, signal } of [scope, inner]) {
      expect([cancelled, reason?._tag, signal.aborted]).toEqual([true, "ClientGone", true])
    }
    expect([above.cancelled, above.signal.aborted]).toEqual([false, false])
    expect((await reasonOf(running))._tag).toBe("ClientGone")
    expect((await reasonOf(task.join))._tag).toBe("ClientGone")
    await above[Symbol.asyncDispose]()
  })

  test("L2: a task that is cancelled takes along what it started, and nothing beside it", async () => {
    await using scope = cancelScope()
    const log: Array<string> = []
    const started = (name: string) => async (signal: AbortSignal) => {
      await settled(hangs, { signal }).catch(() => log.push(name))
    }
    const task = scope.spawn(started("task"))
    scope.daemon(started("beside it"))
    await turn()
    task.cancel("only this")
    await caught(task.join)
    expect([log, scope.cancelled]).toEqual([["task"], false])
  })

  test("L2: its signal hears a cancel that comes while it is being disposed", async () => {
    const scope = cancelScope()
    const { signal } = scope
    scope.spawn(hangs)
    const disposed = scope[Symbol.asyncDispose]()
    await turn()
    expect(scope.cancel("too long")).toBe(true)
    expect(signal.reason.reason).toEqual(requested("too long"))
    await disposed
  })

  test("L4: cancelled late, the value stays, and a cancel after the end is none", async () => {
    const scope = cancelScope()
    expect(await scope.run(async () => "value")).toBe("value")
    await scope[Symbol.asyncDispose]()
    expect(scope.cancel()).toBe(false)
    expect([scope.cancelled, scope.signal.aborted]).toEqual([false, false])
    const end = stubborn()
    const whole = withCancelScope(async (tasks) => {
      tasks.spawn(end.work)
      setImmediate(() => {
        tasks.cancel("late")
        end.end.open()
      })
      return "body"
    })
    expect(await whole).toBe("body")
  })

  test("L1: cancelled twice, the first reason stays", async () => {
    await using scope = cancelScope()
    const running = caught(scope.run(hangs))
    await turn()
    expect(scope.cancel("first")).toBe(true)
    expect(scope.cancel(CancelReason.Superseded())).toBe(false)
    expect(scope.reason).toEqual(requested("first"))
    expect(((await running) as Cancelled).reason).toEqual(requested("first"))
  })
})

describe("disposing", () => {
  test("L24: waits for the tasks, and for what was started with a signal of the scope and dropped", async () => {
    const log: Array<string> = []
    const end = stubborn()
    const inner = stubborn()
    {
      const scope = cancelScope()
      scope.spawn(end.work)
      scope.spawn((signal) => {
        cancelScope({ signal }).run(inner.work)
      })
      const disposed = scope[Symbol.asyncDispose]().then(() => log.push("disposed"))
      await turn()
      log.push("first")
      end.end.open()
      await turn()
      log.push("second")
      inner.end.open()
      scope.cancel("the inner scope was never disposed")
      await disposed
    }
    expect(log).toEqual(["first", "second", "disposed"])
  })

  test("L25: rethrows the first failure as it is, the siblings' beside it, each told once", async () => {
    const told: Array<UnhandledError> = []
    const first = new TypeError("first")
    const second = new Error("second")
    const scope = cancelScope({ onUnhandled: (unhandled) => told.push(unhandled) })
    const a = scope.spawn("a", () => Promise.reject(first))
    scope.spawn("b", () => {
      throw second
    })
    const c = scope.spawn("c", hangs)
    const error = await caught(scope[Symbol.asyncDispose]())
    expect(error).toBe(first)
    expect(siblingFailures(error)).toEqual([second])
    expect(told.map(({ error, name, origin }) => [origin, name, error])).toEqual([["sibling", "b", second]])
    expect((await reasonOf(c.join))._tag).toBe("SiblingFailed")
    expect(await caught(a.join)).toBe(first)
    expect(scope.reason?._tag).toBe("SiblingFailed")
    expect(await caught(scope[Symbol.asyncDispose]())).toBe(first)
  })

  test("L25: an error of `run` is its caller's, and touches nobody", async () => {
    await using scope = cancelScope()
    const task = scope.spawn(async () => "done")
    expect(await caught(scope.run(() => Promise.reject("no")))).toBe("no")
    expect(await task.join).toBe("done")
    expect(scope.cancelled).toBe(false)
  })

  test("L27: afterwards nothing starts, with a typed error", async () => {
    const scope = cancelScope({ name: "import" })
    await scope[Symbol.asyncDispose]()
    expect(() => scope.spawn(async () => 1)).toThrow(TaskScopeClosed)
    expect(() => scope.defer(() => {})).toThrow(TaskScopeClosed)
    expect(() => scope.onCancel(() => {})).toThrow(TaskScopeClosed)
    expect(await caught(scope.run(async () => 1))).toBeInstanceOf(TaskScopeClosed)
    expect(() => cancelScope({ parent: scope })).toThrow(TaskScopeClosed)
    expect(await settled(async () => "the owner's", { signal: scope.signal })).toBe("the owner's")
  })

  test("a daemon does not keep the scope open", async () => {
    const scope = cancelScope()
    const daemon = scope.daemon("listener", hangs)
    await turn()
    expect(daemon.status).toBe("running")
    await scope[Symbol.asyncDispose]()
    expect([daemon.status, scope.cancelled]).toEqual(["ended", false])
  })

  test("L24: nor does what a daemon starts, and it ends with the scope", async () => {
    const scope = cancelScope()
    const log: Array<string> = []
    scope.daemon("listener", async (signal) => {
      settled(hangs, { signal }).catch((error) => log.push(error.reason._tag))
      await using inner = cancelScope({ signal })
      await inner.run(hangs)
    })
    await turn()
    await scope[Symbol.asyncDispose]()
    expect(log).toEqual(["Requested"])
  })

  test("L28: tasks end side by side", async () => {
    const scope = cancelScope()
    const log: Array<string> = []
    const ends = [gate(), gate()]
    for (const [i, end] of ends.entries()) {
      scope.spawn((signal) =>
        hangs(signal).catch(async () => {
          log.push(`cleaning ${i}`)
          await end.promise
        })
      )
    }
    await turn()
    scope.cancel()
    await turn()
    expect(log).toEqual(["cleaning 0", "cleaning 1"])
    for (const end of ends) end.open()
    await scope[Symbol.asyncDispose]()
  })
})

describe("clean-up", () => {
  test("L19: runs last in first out, each of it, and what it throws is rethrown if nothing else failed", async () => {
    const log: Array<string> = []
    const told: Array<unknown> = []
    const scope = cancelScope({ onUnhandled: ({ error, origin }) => told.push([origin, error]) })
    scope.defer(() => log.push("first"))
    scope.defer(() => Promise.reject("broken a"))
    scope.defer(() => {
      throw "broken b"
    })
    scope.defer(async () => log.push("last"))
    expect(await caught(scope[Symbol.asyncDispose]())).toBe("broken b")
    expect(log).toEqual(["last", "first"])
    expect(told).toEqual([["cleanup", "broken a"]])
  })

  test("L16, L17: one that never ends is left behind by name, and the rest of it runs", async () => {
    const end = gate()
    const log: Array<string> = []
    {
      await using scope = cancelScope({ budget: 1 })
      scope.defer(() => log.push("the other"))
      scope.defer(() => end.promise, { name: "close the pool" })
    }
    expect(log).toEqual(["the other"])
    const names = () => Effect.runSync(stuck).map(({ name }) => name)
    expect(names()).toEqual(["close the pool"])
    expect(Effect.runSync(stuck)[0]?.source).toContain("cancelScope.test.ts")
    end.open()
    await turn()
    expect(names()).toEqual([])
  })

  test("L24: a task that never ends after a cancel is left behind by name", async () => {
    const { end, work } = stubborn()
    const scope = cancelScope({ budget: 1 })
    scope.spawn("stubborn", work)
    await turn()
    scope.cancel("enough")
    await scope[Symbol.asyncDispose]()
    const record = Effect.runSync(stuck).find(({ name }) => name === "stubborn")
    expect(record?.reason).toEqual(requested("enough"))
    end.open()
    await turn()
    expect(Effect.runSync(stuck)).toEqual([])
  })

  test("a cancel from a clean-up is none, and does not hang", async () => {
    const scope = cancelScope()
    const seen: Array<unknown> = []
    scope.defer(() => seen.push(scope.cancel("again")))
    scope.onCancel(() => seen.push(scope.cancel("again")))
    scope.cancel("first")
    await scope[Symbol.asyncDispose]()
    expect(seen).toEqual([false, false])
    const calm = cancelScope()
    calm.defer(() => seen.push(calm.cancel("late"), calm.cancelled))
    await calm[Symbol.asyncDispose]()
    expect(seen.slice(2)).toEqual([true, true])
  })

  test("L14: a guard runs iff the scope was cancelled, and not once it is disarmed", async () => {
    const log: Array<string> = []
    const use = async (end: (scope: ReturnType<typeof cancelScope>) => void) => {
      const scope = cancelScope({ onUnhandled: () => {} })
      scope.onCancel((reason) => log.push(reason._tag))
      end(scope)
      await turn()
      await scope[Symbol.asyncDispose]().catch(() => {})
    }
    await use(() => {})
    await use((scope) => scope.spawn(() => Promise.reject("no")))
    expect(log).toEqual([])
    await use((scope) => scope.cancel())
    expect(log).toEqual(["Requested"])
    await use((scope) => {
      const guard = scope.onCancel(() => log.push("disarmed"))
      expect([guard.disarm(), guard.disarm()]).toEqual([true, false])
      scope.cancel(CancelReason.Superseded())
    })
    expect(log).toEqual(["Requested", "Superseded"])
  })

  test("L15: what a guard throws is reported, and disposing does not throw", async () => {
    const told: Array<unknown> = []
    const scope = cancelScope({ onUnhandled: ({ error }) => told.push(error) })
    scope.onCancel(() => Promise.reject("no refund"))
    scope.cancel()
    await scope[Symbol.asyncDispose]()
    expect(told).toEqual(["no refund"])
  })
})

describe("reasons, in and out", () => {
  test("a signal from outside cancels, its reason is read, and its listener goes", async () => {
    const client = new AbortController()
    const scope = cancelScope({ signal: client.signal })
    const seen: Array<unknown> = []
    scope.signal.addEventListener("abort", () => seen.push(scope.signal.reason))
    client.abort(new Error("closed"))
    expect(isCancelled(seen[0])).toBe(true)
    expect(scope.reason).toEqual(requested("closed"))
    await scope[Symbol.asyncDispose]()
  })

  test("AbortSignal.timeout is a signal like any other", async () => {
    const scope = cancelScope({ signal: AbortSignal.timeout(1) })
    const reason = await reasonOf(scope.run(hangs))
    expect(reason._tag).toBe("Requested")
    await scope[Symbol.asyncDispose]()
  })

  test("L7: a deadline names its scope, and an inner scope hears an outer one", async () => {
    await using outer = cancelScope({ name: "outer", deadline: "2 millis" })
    await using inner = cancelScope({ parent: outer, name: "inner", deadline: "1 hour" })
    expect(await reasonOf(inner.run(hangs))).toMatchObject({ _tag: "Deadline", scope: "outer" })
  })

  test("a duration that is none is refused at once, with a sentence", () => {
    for (const options of [
      { deadline: Number.NaN },
      { budget: Number.NaN },
      { deadline: "soon" as "1 second" }
    ]) {
      expect(() => cancelScope(options)).toThrow(InvalidDuration)
    }
    expect(new InvalidDuration({ option: "deadline", value: Number.NaN }).message).toMatch(
      /give milliseconds/
    )
  })

  test("an infinite deadline never comes", async () => {
    await using scope = cancelScope({ deadline: Number.POSITIVE_INFINITY })
    expect(await scope.run(async () => 1)).toBe(1)
  })

  test("a cancelled task that another one joins is told apart from the other's own cancellation", async () => {
    const scope = cancelScope()
    const stopped = scope.spawn("stopped", hangs)
    scope.spawn("joiner", () => stopped.join)
    await turn()
    expect([stopped.cancel("only you"), stopped.cancel()]).toEqual([true, false])
    expect(await caught(scope[Symbol.asyncDispose]())).toMatchObject({
      _tag: "InterruptedElsewhere",
      task: "joiner"
    })
  })
})

describe("withCancelScope", () => {
  test("L25: the first failure comes out as it is, although the body was cancelled for it", async () => {
    const failure = new Error("no route")
    let seen: unknown
    const whole = withCancelScope(async (scope) => {
      scope.spawn("listener", () => Promise.reject(failure))
      await scope.run(hangs).catch((error) => {
        seen = error.reason._tag
        throw error
      })
    })
    expect(await caught(whole)).toBe(failure)
    expect(seen).toBe("SiblingFailed")
  })

  test("a body that throws cancels the tasks, and they have ended", async () => {
    const log: Array<string> = []
    const whole = withCancelScope(async (scope) => {
      scope.spawn((signal) => hangs(signal).finally(() => log.push("task ended")))
      await turn()
      throw new RangeError("body")
    })
    expect(await caught(whole)).toBeInstanceOf(RangeError)
    expect(log).toEqual(["task ended"])
  })

  test("L3: cancelled, it rejects with the reason; with an aborted signal the body is not called", async () => {
    const client = new AbortController()
    const whole = reasonOf(withCancelScope((scope) => scope.run(hangs), { signal: client.signal }))
    await turn()
    client.abort("closed")
    expect(await whole).toEqual(requested("closed"))
    let called = false
    const none = withCancelScope(() => (called = true), { signal: AbortSignal.abort("closed") })
    expect(await reasonOf(none)).toEqual(requested("closed"))
    expect(called).toBe(false)
    expect(await caught(withCancelScope(() => 1, { deadline: Number.NaN }))).toBeInstanceOf(InvalidDuration)
  })
})

describe("depth", () => {
  const depth = 10_000

  test("L45: scopes nest ten thousand deep, and a cancel at the top reaches the bottom", async () => {
    const top = cancelScope()
    const bottom = gate<AbortSignal>()
    const nest =
      (level: number) =>
      async (signal: AbortSignal): Promise<void> => {
        if (level === 0) {
          bottom.open(signal)
          return hangs(signal)
        }
        await using scope = cancelScope({ signal })
        await scope.run(nest(level - 1))
      }
    const whole = reasonOf(top.run(nest(depth)))
    const signal = await bottom.promise
    top.cancel("at the top")
    expect(signal.aborted).toBe(true)
    expect(await whole).toEqual(requested("at the top"))
    await top[Symbol.asyncDispose]()
    expect(processOwner.size).toBe(0)
  })

  test("a scope that is made deep inside other starts opens in the next turn, and says so", async () => {
    const { startUnsafe } = await import("@curfew/scope/Child")
    const { empty } = await import("effect/Context")
    let made: ReturnType<typeof cancelScope> | undefined
    const nest = (level: number): void => {
      startUnsafe(
        empty(),
        Effect.sync(() => {
          if (level > 0) nest(level - 1)
          else made = cancelScope()
        })
      )
    }
    nest(100)
    const signal = made?.signal
    expect(() => made?.spawn(async () => 1)).toThrow(/opens in the next turn/)
    await turn()
    expect(await made?.run(async () => "open")).toBe("open")
    made?.cancel("enough")
    expect(signal?.reason.reason).toEqual(requested("enough"))
    await made?.[Symbol.asyncDispose]()
  })
})

test("L17: withCancelScope leaves a body behind that overruns its budget, and is cancelled", async () => {
  const client = new AbortController()
  const whole = withCancelScope(() => new Promise(() => {}), { signal: client.signal, budget: "1 millis" })
  await turn()
  client.abort("enough")
  expect(await reasonOf(whole)).toEqual(requested("enough"))
})

test("DeadlineExceeded is exported for those who catch it", () => {
  expect(new DeadlineExceeded({ at: 0, scope: "x" }).message).toContain("x")
})
