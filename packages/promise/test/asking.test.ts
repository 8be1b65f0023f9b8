/** Who waits for shared work without a fiber behaves as if there were one. */
import { cancelledTotal, CancelReason as Reason } from "@curfew/reason"
import { formatTree, inspect } from "@curfew/scope"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { describe, expect, test } from "vitest"
import { CancelReason, owner, processOwner, shared, sharedMap } from "../src/index.ts"
import { processOwner as held } from "../src/internal/owners.ts"
import { caught, gate, hangs, reasonOf, stubborn, turn, watchUnhandled } from "./support.ts"

watchUnhandled()

const alive = (): string => formatTree(Effect.runSync(inspect))
const requested = (message: string) => CancelReason.Requested({ message })

describe("a wait for shared work without a fiber", () => {
  test("L47: stands in the live tree and counts as a task until it is told", async () => {
    const answer = gate<string>()
    const rates = shared(() => answer.promise, { name: "rates" })
    const all = [rates.get(), rates.get()]
    await turn()
    expect(alive().match(/task "rates"/g)?.length).toBe(2)
    expect(processOwner.size).toBe(3)
    answer.open("told")
    expect(await Promise.all(all)).toEqual(["told", "told"])
    expect(alive()).not.toContain("rates")
    expect(processOwner.size).toBe(0)
  })

  test("L30: leaves at once with its signal's reason, is counted, and touches nobody else", async () => {
    const count = () => {
      const metric = Metric.withAttributes(cancelledTotal, { kind: "task", reason: "Superseded" })
      return Effect.runSync(Metric.value(metric)).count
    }
    const before = count()
    const answer = gate<string>()
    const client = new AbortController()
    const rates = shared(() => answer.promise, { name: "rates" })
    const stays = rates.get()
    const leaves = reasonOf(rates.get({ signal: client.signal }))
    await turn()
    expect(rates.observers).toBe(2)
    client.abort(Reason.Superseded())
    expect([rates.observers, processOwner.size]).toEqual([1, 2])
    expect(await leaves).toEqual(Reason.Superseded())
    expect(count()).toBe(before + 1)
    answer.open("told")
    expect(await stays).toBe("told")
  })

  test("L31: the last one that leaves cancels the run", async () => {
    const client = new AbortController()
    let reason: unknown
    const rates = shared((signal) => {
      signal.addEventListener("abort", () => {
        reason = signal.reason.reason
      })
      return hangs(signal)
    })
    const leaves = [1, 2].map(() => reasonOf(rates.get({ signal: client.signal })))
    await turn()
    client.abort("closed")
    expect(await Promise.all(leaves)).toEqual([requested("closed"), requested("closed")])
    expect(reason).toMatchObject({ _tag: "Unobserved" })
    await turn()
    expect([rates.observers, processOwner.size]).toEqual([0, 0])
  })

  test("L24: is cancelled when its owner's drain is over, and its run with it", async () => {
    const hasty = owner({ drain: 0 })
    const client = new AbortController()
    const rates = shared(hangs, { owner: hasty })
    const waits = [rates.get(), rates.get({ signal: client.signal })].map(reasonOf)
    await turn()
    await hasty[Symbol.asyncDispose]()
    client.abort("too late")
    const shutdown = CancelReason.Shutdown({ phase: "force" })
    expect(await Promise.all(waits)).toEqual([shutdown, shutdown])
    expect(hasty.size).toBe(0)
  })

  test("L32: waits for its turn, and belongs to a run that its owner no longer takes", async () => {
    const patient = owner({ drain: "1 hour" })
    const first = stubborn<string>()
    let runs = 0
    const rates = shared((signal) => (++runs === 1 ? first.work(signal) : `run ${runs}`), { owner: patient })
    const one = caught(rates.get())
    await first.called
    rates.cancel()
    expect(await one).toMatchObject({ _tag: "SharedCancelled" })
    const client = new AbortController()
    const two = rates.get({ signal: client.signal })
    await turn()
    expect(runs).toBe(1)
    const ending = patient[Symbol.asyncDispose]()
    first.end.open("ignored")
    expect(await two).toBe("run 2")
    await ending
    expect([runs, rates.observers]).toEqual([2, 0])
  })

  test("L30: one that was given a fiber leaves like the others", async () => {
    const answer = gate<string>()
    const client = new AbortController()
    const users = sharedMap((_: number) => answer.promise)
    const stays = users.get(7)
    const leaves = reasonOf(users.get(7, { signal: client.signal }))
    await turn()
    TaskScope.fillPlacesUnsafe(held().tasks)
    expect(users.observers(7)).toBe(2)
    client.abort("closed")
    expect(await leaves).toEqual(requested("closed"))
    expect(users.observers(7)).toBe(1)
    answer.open("told")
    expect(await stays).toBe("told")
    expect([users.observers(7), processOwner.size]).toEqual([0, 0])
  })

  test("what names a run may throw: whoever asks is told", async () => {
    const broken = new Error("no name")
    const users = sharedMap(async (id: number) => id, {
      name: () => {
        throw broken
      }
    })
    expect(await caught(users.get(7))).toBe(broken)
    expect([users.size, processOwner.size]).toEqual([0, 0])
  })
})
