import { ChildCancelled, gather } from "@curfew/gather"
import { Owner, TaskScope } from "@curfew/scope"
import { describe, expect, test } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as fc from "fast-check"
import { forked, isPureInterrupt } from "../../shield/test/support/cancelling.ts"
import { hearing, numRuns } from "../../shield/test/support/unhandled.ts"

type End = "value" | "fail" | "die" | "stopped elsewhere"

/** In which order the items end, and how; the gather itself is cancelled before the step `cancelAt`. */
interface Plan {
  readonly onFailure: "cancel" | "letFinish"
  readonly ends: ReadonlyArray<End>
  readonly order: ReadonlyArray<number>
  readonly cancelAt: number
}

const plans: fc.Arbitrary<Plan> = fc
  .array(fc.constantFrom<End>("value", "value", "fail", "die", "stopped elsewhere"), {
    minLength: 1,
    maxLength: 6
  })
  .chain((ends) =>
    fc.record({
      onFailure: fc.constantFrom("cancel" as const, "letFinish" as const),
      ends: fc.constant(ends),
      order: fc.shuffledSubarray(
        ends.map((_, i) => i),
        { minLength: ends.length }
      ),
      cancelAt: fc.integer({ min: 0, max: ends.length * 2 })
    })
  )

/** What the laws say, as plain as possible. */
const inModel = ({ cancelAt, ends, onFailure, order }: Plan) => {
  const said = (item: number) =>
    ends[item] === "stopped elsewhere" ? `cancelled ${item}` : `${ends[item]} ${item}`
  let result: string | undefined
  /** How many items run after each step. */
  const running: Array<number> = []
  const reported: Array<string> = []
  let live = ends.length
  for (const [step, item] of order.entries()) {
    if (step === cancelAt && result === undefined) {
      result = "interrupted"
      live = 0
    }
    if (live > 0) {
      live--
      if (ends[item] !== "value") {
        if (result !== undefined) reported.push(said(item))
        else {
          result = said(item)
          if (onFailure === "cancel") live = 0
        }
      }
    }
    running.push(live)
  }
  return { result: result ?? "values", running, reported }
}

const play = (plan: Plan) =>
  Effect.gen(function* () {
    const heard = hearing()
    const model = inModel(plan)
    let running = 0
    const gates = plan.ends.map(() => Deferred.makeUnsafe<number, string>())
    const others = yield* Effect.forEach(plan.ends, () => forked(Effect.never))
    const items = plan.ends.map((end, i) =>
      Effect.suspend(() => {
        running++
        const wait = Deferred.await(gates[i] as Deferred.Deferred<number, string>)
        const work: Effect.Effect<unknown, string> =
          end === "stopped elsewhere" ? Fiber.join(others[i] as Fiber.Fiber<never>) : wait
        return Effect.ensuring(
          work,
          Effect.sync(() => {
            running--
          })
        )
      })
    )
    const owner = yield* TaskScope.make()
    const fiber = yield* forked(
      gather(items, { onFailure: plan.onFailure }).pipe(Effect.provideService(Owner, owner), heard.by)
    )
    for (const [step, item] of plan.order.entries()) {
      if (step === plan.cancelAt && fiber.pollUnsafe() === undefined) yield* Fiber.interrupt(fiber)
      const gate = gates[item] as Deferred.Deferred<number, string>
      switch (plan.ends[item]) {
        case "value":
          yield* Deferred.succeed(gate, item)
          break
        case "fail":
          yield* Deferred.fail(gate, `fail ${item}`)
          break
        case "die":
          yield* Deferred.die(gate, `die ${item}`)
          break
        case "stopped elsewhere":
          yield* Fiber.interrupt(others[item] as Fiber.Fiber<never>)
      }
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      expect(running).toBe(model.running[step])
      // L23: it returns when nothing of its own runs, and no later.
      const ended = model.running[step] === 0 || (yield* owner.size) > 0
      expect(fiber.pollUnsafe() !== undefined).toBe(ended || model.running.slice(0, step + 1).includes(0))
    }
    const exit = yield* Fiber.await(fiber)
    const saying = (cause: Cause.Cause<unknown>): string => {
      const error = Cause.squash(cause)
      return error instanceof ChildCancelled ? `cancelled ${error.index}` : String(error)
    }
    if (model.result === "interrupted") expect(isPureInterrupt(exit)).toBe(true)
    else if (exit._tag === "Success") {
      expect(model.result).toBe("values")
      expect(exit.value).toEqual(plan.ends.map((_, i) => i))
    } else {
      expect(exit.cause.reasons).toHaveLength(1)
      expect(saying(exit.cause)).toBe(model.result)
    }
    expect(heard.all.map(({ cause }) => saying(cause))).toEqual(model.reported)
    expect(yield* owner.size).toBe(0)
  })

describe("gather against its model", () => {
  test("L20, L21, L22, L23: whichever items end how and when, and whenever it is cancelled, it goes as the model says", () =>
    fc.assert(
      fc.asyncProperty(plans, (plan) => Effect.runPromise(Effect.scoped(play(plan)))),
      { numRuns: numRuns * 5 }
    ))
})
