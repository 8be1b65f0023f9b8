/** Who waits for shared work without a fiber behaves as if there were one. */
import { cancelledTotal, CancelReason as Reason } from "@curfew/reason"
import { formatTree, inspect } from "@curfew/scope"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Hash from "effect/Hash"
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

  test.each([1, 2])("L30, L31: leaves at the %s. call of the name that its key is given", async (call) => {
    const client = new AbortController()
    let calls = 0
    let reason: unknown
    const users = sharedMap(
      (_: number, signal: AbortSignal) => {
        signal.addEventListener("abort", () => {
          reason = signal.reason.reason
        })
        return hangs(signal)
      },
      {
        name: () => {
          if (++calls === call) client.abort("in the name")
          return "user"
        }
      }
    )
    expect(await reasonOf(users.get(1, { signal: client.signal }))).toEqual(requested("in the name"))
    await turn()
    expect([users.observers(1), users.size, processOwner.size]).toEqual([0, 0, 0])
    // Whether or not its work was called, it has been cancelled.
    expect([undefined, "Unobserved"]).toContain((reason as { _tag?: string } | undefined)?._tag)
  })

  test("L24: its owner ends in the call of a name", async () => {
    const hasty = owner({ drain: 0 })
    let calls = 0
    let ending: unknown
    const users = sharedMap((_: number, signal: AbortSignal) => hangs(signal), {
      owner: hasty,
      name: () => {
        if (++calls === 1) ending = hasty[Symbol.asyncDispose]()
        return "user"
      }
    })
    expect(await caught(users.get(1))).toMatchObject({ _tag: "Cancelled" })
    await ending
    expect([users.observers(1), hasty.size]).toEqual([0, 0])
  })

  test("a key that cannot be hashed rejects", async () => {
    class Odd {
      [Hash.symbol](): number {
        throw new Error("no hash")
      }
      [Equal.symbol](): boolean {
        return false
      }
    }
    const users = sharedMap((_: Odd) => "told")
    expect(await caught(users.get(new Odd()))).toMatchObject({ message: "no hash" })
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
