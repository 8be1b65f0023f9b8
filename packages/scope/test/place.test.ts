/** Places: what stands in a task scope without a fiber. */
import { CancelReason } from "@curfew/reason"
import { CancelCell } from "@curfew/reason/CancelCell"
import { TaskScope } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { describe, expect, test } from "vitest"

const reason = CancelReason.Requested({ message: "enough" })

const holding = (log: Array<string>) => ({
  stop: ({ _tag }: CancelReason) => void log.push(`stop ${_tag}`),
  fill: () => void log.push("fill")
})

const reserved = (scope: TaskScope.TaskScope, name: string): TaskScope.Place => {
  const place = TaskScope.reserveUnsafe(scope, name)
  if (place === undefined) throw new Error("The scope took nothing.")
  return place
}

describe("a place in a task scope", () => {
  test("is waited for until it is given back", async () => {
    const program = Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        const [one, other] = [reserved(tasks, "one"), reserved(tasks, "other")]
        yield* tasks.close
        const drained = yield* Effect.forkChild(tasks.drain(), { startImmediately: true })
        one.leave()
        one.leave()
        expect(drained.pollUnsafe()).toBeUndefined()
        other.leave()
        yield* Fiber.join(drained)
        expect(TaskScope.reserveUnsafe(tasks, "late")).toBeUndefined()
      })
    )
    await Effect.runPromise(program)
  })

  test("L46 is filled although the scope takes nothing any more, and is waited for as the task that it is then", async () => {
    const log: Array<string> = []
    const program = Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        const place = reserved(tasks, "work")
        yield* tasks.close
        let proceed: (() => void) | undefined
        const work = Effect.andThen(
          Effect.callback<void>((resume) => {
            proceed = () => resume(Effect.void)
          }),
          Effect.sync(() => log.push("worked"))
        )
        place.start(Context.empty(), work)
        const drained = yield* Effect.forkChild(tasks.drain(), { startImmediately: true })
        expect(drained.pollUnsafe()).toBeUndefined()
        proceed?.()
        yield* Fiber.join(drained)
        expect(log).toEqual(["worked"])
      })
    )
    await Effect.runPromise(program)
  })

  test("tells its holder a cancel once, and only while nothing has filled it", async () => {
    const log: Array<string> = []
    const program = Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make()
        const [held, left, filled] = [
          reserved(tasks, "held"),
          reserved(tasks, "left"),
          reserved(tasks, "filled")
        ]
        for (const place of [held, left, filled]) place.holder = holding(log)
        left.leave()
        filled.start(Context.empty(), Effect.never)
        const stopped = held.holder as ReturnType<typeof holding>
        held.holder = {
          ...stopped,
          stop: (why) => {
            stopped.stop(why)
            held.leave()
          }
        }
        yield* tasks.cancel(reason)
        yield* tasks.cancel(reason)
      })
    )
    await Effect.runPromise(program)
    expect(log.filter((line) => line.startsWith("stop"))).toEqual(["stop Requested"])
  })

  test("stands in the tree once it is shown, and is to be filled by whoever is asked to", async () => {
    const log: Array<string> = []
    const program = Effect.scoped(
      Effect.gen(function* () {
        const tasks = yield* TaskScope.make({ name: "tasks" })
        const place = reserved(tasks, "shown")
        place.holder = holding(log)
        const cell = place.show()
        expect(cell).toBeInstanceOf(CancelCell)
        expect([cell.name, cell.parent?.name, cell.ended]).toEqual(["shown", "tasks", false])
        TaskScope.fillPlacesUnsafe(tasks)
        expect(log).toEqual(["fill"])
        place.leave()
        expect(cell.ended).toBe(true)
        TaskScope.fillPlacesUnsafe(tasks)
        expect(log).toEqual(["fill"])
      })
    )
    await Effect.runPromise(program)
  })
})
