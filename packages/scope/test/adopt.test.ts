/** Work that already runs is taken over by a task scope, with its cell. */
import { CancelReason } from "@curfew/reason"
import { CancelCell } from "@curfew/reason/CancelCell"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { held, started } from "../../../test/support/recorder.ts"
import { TaskScope } from "../src/index.ts"

/** A task scope with its cell, and what it tells of its tasks. */
const scope = Effect.gen(function* () {
  const cell = new CancelCell("owner", {})
  const told: Array<readonly [CancelCell, unknown]> = []
  const tasks = yield* TaskScope.makeIn(() => cell, { onTask: (...task) => told.push(task) })
  return { cell, tasks, told }
})

const running = Effect.gen(function* () {
  const { gate, work } = held()
  const cell = new CancelCell("shared", { name: "report" })
  const fiber = yield* started(work)
  cell.fiber = fiber
  fiber.addObserver(() => cell.unlink())
  return { cell, fiber, gate }
})

describe("adopting", () => {
  it.effect(
    "makes it a task of the scope: it is told, counted, waited for and cancelled with the others",
    () =>
      Effect.gen(function* () {
        const { cell, tasks, told } = yield* scope
        const work = yield* running
        expect(TaskScope.adoptUnsafe(tasks, work.cell, work.fiber)).toBe(true)
        expect(told).toEqual([[work.cell, work.fiber]])
        expect([yield* tasks.size, work.cell.parent]).toEqual([1, cell])
        const draining = yield* started(tasks.drain())
        const cancelling = yield* started(tasks.cancel(CancelReason.Superseded()))
        expect(work.cell.reason).toEqual(CancelReason.Superseded())
        expect([draining, cancelling].map((fiber) => fiber.pollUnsafe())).toEqual([undefined, undefined])
        yield* Deferred.succeed(work.gate, undefined)
        expect(yield* Fiber.join(draining)).toBe(true)
        yield* Fiber.join(cancelling)
        expect(yield* tasks.size).toBe(0)
      })
  )

  it.effect("is refused by a scope that takes no work", () =>
    Effect.gen(function* () {
      const { tasks, told } = yield* scope
      const work = yield* running
      yield* tasks.close
      expect(TaskScope.adoptUnsafe(tasks, work.cell, work.fiber)).toBe(false)
      expect([told, yield* tasks.size, work.cell.parent]).toEqual([[], 0, undefined])
      yield* Deferred.succeed(work.gate, undefined)
    })
  )

  it.effect("a task that the scope starts itself is told as well", () =>
    Effect.gen(function* () {
      const { tasks, told } = yield* scope
      yield* tasks.spawn(Effect.never, { name: "mailer" })
      expect(told.map(([cell]) => cell.name)).toEqual(["mailer"])
    })
  )
})
