/** What starts on behalf of a caller holds it until it has ended, however it ends, and once. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { started } from "../../../test/support/recorder.ts"
import { type Caller, CurrentCaller, holdUnsafe } from "../src/Caller.ts"

const caller = () => {
  const seen: Array<string> = []
  const service: Caller = {
    hold: (name) => {
      seen.push(`held by ${name}`)
      return Effect.sync(() => seen.push("let go"))
    },
    strip: (context) => context
  }
  return { seen, around: Effect.provideService(CurrentCaller, service) }
}

const hold = Effect.withFiber((fiber) => Effect.sync(() => holdUnsafe(fiber, "job")))

describe("holding a caller", () => {
  it.effect("lasts until the work has run to its end, and whoever hears of the end finds it over", () => {
    const { around, seen } = caller()
    return Effect.gen(function* () {
      const held = yield* hold
      const child = yield* started(held.around(Effect.andThen(Effect.yieldNow, Effect.fail("end"))))
      child.addObserver(() => seen.push("ended"))
      held.follow(child)
      expect(seen).toEqual(["held by job"])
      yield* Fiber.await(child)
      expect(seen).toEqual(["held by job", "let go", "ended"])
    }).pipe(around)
  })

  it.effect("ends, too, when the work is interrupted before its first operation", () => {
    const { around, seen } = caller()
    return Effect.gen(function* () {
      const held = yield* hold
      let ran = false
      const work = Effect.sync(() => {
        ran = true
      })
      const child = yield* Effect.forkChild(held.around(work))
      held.follow(child)
      child.interruptUnsafe()
      expect([ran, seen]).toEqual([false, ["held by job", "let go"]])
    }).pipe(around)
  })

  it.effect("costs nothing where nobody called", () =>
    Effect.gen(function* () {
      const held = yield* hold
      const work = Effect.succeed(1)
      expect(held.around(work)).toBe(work)
    })
  )
})
