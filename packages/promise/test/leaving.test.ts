/** Work that its caller may leave has no fiber until somebody asks for it, and behaves as if it had one. */

import { getEventListeners } from "node:events"
import { cancelledTotal, CancelReason as Reason } from "@curfew/reason"
import { type Cell, childrenOf, rootsUnsafe } from "@curfew/reason/CancelCell"
import { formatTree, inspect, TaskScope } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { describe, expect, test } from "vitest"
import { CancelReason, owner, processOwner, settled, stopCancellation } from "../src/index.ts"
import { processOwner as held } from "../src/internal/owners.ts"
import { caught, gate, reasonOf, stubborn, turn, watchUnhandled } from "./support.ts"

watchUnhandled()

const alive = (): string => formatTree(Effect.runSync(inspect))
const requested = (message: string) => CancelReason.Requested({ message })

const fibers = () => {
  const { tasks } = held()
  const root = rootsUnsafe().find((cell) => cell.name === tasks.name) as Cell
  return childrenOf(root).map((cell) => [cell.name, cell.fiber !== undefined])
}

describe("work that its caller may leave", () => {
  test("L10, L47: stands in its owner until it ends, without a fiber, whether or not its caller is there", async () => {
    const client = new AbortController()
    const { called, end, work } = stubborn<string>()
    const left = reasonOf(stopCancellation(work, { name: "upload", signal: client.signal }))
    const signal = await called
    expect(fibers()).toEqual([["upload", false]])
    client.abort("closed")
    expect(await left).toEqual(requested("closed"))
    expect([signal.aborted, processOwner.size, fibers()]).toEqual([false, 1, [["upload", false]]])
    expect(alive()).toContain('task "upload"')
    end.open("uploaded")
    await turn()
    expect([processOwner.size, alive().includes("upload")]).toEqual([0, false])
  })

  test("L10: its caller leaves before it was called, and it is called", async () => {
    const client = new AbortController()
    const { called, end, work } = stubborn()
    const left = reasonOf(stopCancellation(work, { signal: client.signal }))
    client.abort("closed")
    expect(await left).toEqual(requested("closed"))
    expect((await called).aborted).toBe(false)
    end.open()
    await turn()
    expect(processOwner.size).toBe(0)
  })

  test("L10: the caller has what became of it, when he is cancelled after that", async () => {
    for (const filled of [false, true]) {
      const log: Array<unknown> = []
      const client = new AbortController()
      const { called, end, work } = stubborn<string>()
      const onAbandoned = (result: unknown) => log.push(result)
      const value = stopCancellation(work, { signal: client.signal, onAbandoned })
      await called
      if (filled) TaskScope.fillPlacesUnsafe(held().tasks)
      end.open("value")
      await turn()
      client.abort()
      expect([await value, log]).toEqual(["value", []])
    }
  })

  test("L10, L24: its owner's end waits for the receiver", async () => {
    const patient = owner({ drain: "1 hour" })
    const client = new AbortController()
    const { called, end, work } = stubborn<string>()
    const received = gate()
    const log: Array<unknown> = []
    const left = caught(
      stopCancellation(work, {
        signal: client.signal,
        owner: patient,
        onAbandoned: async (result) => {
          log.push(result)
          await received.promise
          log.push("received")
        }
      })
    )
    await called
    const ending = patient[Symbol.asyncDispose]().then(() => log.push("ended"))
    // An owner that drains takes nothing new, and what it has can still be left.
    client.abort()
    await left
    end.fail("torn")
    await turn()
    expect(log).toEqual([{ status: "rejected", reason: "torn" }])
    received.open()
    await ending
    expect(log.slice(1)).toEqual(["received", "ended"])
  })

  test("L10: its caller leaves at once when it was given a fiber, and the receiver has the result", async () => {
    const log: Array<unknown> = []
    const client = new AbortController()
    const { called, end, work } = stubborn<string>()
    const onAbandoned = (result: unknown) => log.push(result)
    const left = reasonOf(stopCancellation(work, { name: "upload", signal: client.signal, onAbandoned }))
    const signal = await called
    TaskScope.fillPlacesUnsafe(held().tasks)
    expect(fibers()).toEqual([["upload", true]])
    client.abort("closed")
    expect(await left).toEqual(requested("closed"))
    expect([signal.aborted, log]).toEqual([false, []])
    end.open("uploaded")
    await turn()
    expect([log, processOwner.size]).toEqual([[{ status: "fulfilled", value: "uploaded" }], 0])
  })

  test("L8, L10, L44: its owner's cancel reaches it, and its caller leaves without waiting for its clean-up", async () => {
    const log: Array<unknown> = []
    const hasty = owner({ drain: 0, onUnhandled: ({ error, origin }) => log.push([origin, error]) })
    const client = new AbortController()
    const { called, end, work } = stubborn()
    const left = reasonOf(
      stopCancellation(work, {
        signal: client.signal,
        owner: hasty,
        onAbandoned: ({ status }) => log.push(status)
      })
    )
    const signal = await called
    const ending = hasty[Symbol.asyncDispose]()
    const force = CancelReason.Shutdown({ phase: "force" })
    expect(await left).toEqual(force)
    expect(getEventListeners(client.signal, "abort")).toHaveLength(0)
    expect([signal.reason.reason, hasty.size, log]).toEqual([force, 1, []])
    end.fail("torn")
    await ending
    expect(log).toEqual([["late result", "torn"], "rejected"])
  })

  test("L44: what it started with its signal does not hear its caller", async () => {
    const client = new AbortController()
    const inner = stubborn<string>()
    const log: Array<unknown> = []
    const left = caught(
      stopCancellation((signal) => settled(inner.work, { signal, name: "inner" }), {
        name: "outer",
        signal: client.signal,
        onAbandoned: (result) => log.push(result)
      })
    )
    const signal = await inner.called
    expect(alive()).toMatch(/task "outer".*\n.*└─ task "inner"/)
    client.abort()
    await left
    expect(signal.aborted).toBe(false)
    inner.end.open("value")
    await turn()
    expect([log, processOwner.size]).toEqual([[{ status: "fulfilled", value: "value" }], 0])
  })

  test("is counted when its caller is cancelled", async () => {
    const count = () => {
      const metric = Metric.withAttributes(cancelledTotal, { kind: "task", reason: "Superseded" })
      return Effect.runSync(Metric.value(metric)).count
    }
    const before = count()
    const client = new AbortController()
    const { called, end, work } = stubborn()
    const left = reasonOf(stopCancellation(work, { signal: client.signal }))
    await called
    client.abort(Reason.Superseded())
    expect([await left, count()]).toEqual([Reason.Superseded(), before + 1])
    end.open()
  })

  test("a receiver that throws is reported once", async () => {
    const log: Array<unknown> = []
    const mine = owner({ onUnhandled: ({ error, origin }) => log.push([origin, error]) })
    const client = new AbortController()
    const { called, end, work } = stubborn()
    const onAbandoned = () => Promise.reject("no")
    const left = caught(stopCancellation(work, { signal: client.signal, owner: mine, onAbandoned }))
    await called
    client.abort()
    await left
    end.open()
    await mine[Symbol.asyncDispose]()
    expect(log).toEqual([["late result", "no"]])
  })
})
