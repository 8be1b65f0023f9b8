/** Items have no cell in their first run until somebody looks. */
import { CancelReason } from "@curfew/reason"
import { type Cell, CurrentCell, childrenOf, rootsUnsafe } from "@curfew/reason/CancelCell"
import { CancelScope } from "@curfew/scope"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { describe, expect, test, vi } from "vitest"
import { gather } from "../src/index.ts"

const kept: Array<unknown> = []
vi.mock("@curfew/reason/CancelCell", async (original) => {
  const real = await original<typeof import("@curfew/reason/CancelCell")>()
  return {
    ...real,
    keepUnsafe: (one: unknown) => {
      kept.push(one)
      real.keepUnsafe(one)
    }
  }
})

const named = (cells: ReadonlyArray<Cell>): ReadonlyArray<Cell> =>
  cells.flatMap((cell) => [cell, ...named(childrenOf(cell))])

const alive = (): ReadonlyArray<string> =>
  named(rootsUnsafe()).flatMap(({ name }) => (name?.startsWith("gather") === true ? [name] : []))

describe("an item in its first run", () => {
  test("stands in the live tree for whoever looks, below its gather and beside those that wait", () => {
    let seen: ReadonlyArray<string> = []
    const looks = Effect.sync(() => {
      seen = alive()
      return "seen"
    })
    const fiber = Effect.runFork(gather({ ended: Effect.sync(() => 1), waits: Effect.never, looks }))
    expect(seen).toEqual(["gather", "gather[waits]", "gather[looks]"])
    expect(alive()).toEqual(["gather", "gather[waits]"])
    fiber.interruptUnsafe()
    expect(alive()).toEqual([])
  })

  test("knows its own cell, which ends with it", () => {
    const cells: Array<Cell | undefined> = []
    const item = Effect.withFiberSucceed((fiber) => cells.push(fiber.getRef(CurrentCell)))
    expect(Effect.runSync(gather([item, item]))).toEqual([1, 2])
    expect(cells.map((cell) => [cell?.name, cell?.ended])).toEqual([
      ["gather[0]", true],
      ["gather[1]", true]
    ])
  })

  test("has left the live tree when its fiber tells its end, also for whoever looks only then", () => {
    let seen: ReadonlyArray<string> = []
    const ends = Effect.withFiberSucceed((fiber) => {
      fiber.addObserver(() => {
        seen = alive()
      })
    })
    const fiber = Effect.runFork(gather({ ends, waits: Effect.never }))
    expect([seen, alive()]).toEqual([["gather"], ["gather", "gather[waits]"]])
    fiber.interruptUnsafe()
  })

  test("is cancelled with what it cancels, and nothing starts after it", () => {
    let later = 0
    const exit = Effect.runSyncExit(
      CancelScope.run((scope) =>
        gather([
          Effect.andThen(scope.cancel(CancelReason.Superseded()), Effect.yieldNow),
          Effect.sync(() => later++)
        ])
      )
    )
    expect(later).toBe(0)
    expect(exit).toEqual(Exit.succeed({ _tag: "Cancelled", reason: CancelReason.Superseded() }))
  })

  test("fails its siblings with it", () => {
    const log: Array<string> = []
    const exit = Effect.runSyncExit(
      gather([
        Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("told"))),
        Effect.fail("first")
      ])
    )
    expect([exit, log]).toEqual([Exit.fail("first"), ["told"]])
  })

  test("lets none start within another's step, even when it ends one that runs", () => {
    const log: Array<string> = []
    let end = (): void => {}
    const waits = Effect.callback<void>((resume) => {
      end = () => resume(Effect.sync(() => log.push("the first ends")))
    })
    const ends = Effect.sync(() => {
      log.push("the second begins")
      end()
      log.push("the second goes on")
    })
    const third = Effect.sync(() => log.push("the third begins"))
    Effect.runSync(gather([waits, ends, third], { concurrency: 2 }))
    expect(log).toEqual(["the second begins", "the first ends", "the second goes on", "the third begins"])
  })
})

describe("what is kept for gathers to come", () => {
  test("is one of each class, however many gathers there are", () => {
    for (let i = 0; i < 5; i++) Effect.runSync(gather([Effect.sync(() => i)]))
    const names = kept.map((one) => (one as object).constructor.name)
    expect(names).toEqual(expect.arrayContaining(["Gathering", "Running"]))
    expect(new Set(names).size).toBe(names.length)
  })
})
