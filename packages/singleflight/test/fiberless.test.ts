/** Who waits for a run without a fiber, and what is told of a run that nobody waits for. */
import { CancelReason } from "@curfew/reason"
import { Shared, type SharedCancelled } from "@curfew/singleflight"
import { joinUnsafe, type Waits } from "@curfew/singleflight/Retained"
import { describe, expect, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { hearing } from "../../shield/test/support/unhandled.ts"
import { Lab, observing, owner, sharedIn } from "./support/lab.ts"

/** Joins without a fiber; `told` may do anything with the wait. */
const joining = (
  shared: Shared.Shared<string, string>,
  told: (exit: Exit.Exit<string, string | SharedCancelled>, waits: Waits<string, string>) => void
): Waits<string, string> => {
  let own!: Waits<string, string>
  joinUnsafe(shared, {
    joins: (waits) => {
      own = waits
    },
    told: (exit) => told(exit, own),
    fill: () => {
      throw new Error("no fiber was asked for")
    }
  })
  return own
}

describe("who waits without a fiber", () => {
  it.effect("L30: may leave when he is told, or twice, and takes nobody with him", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const log: Array<string> = []
      const leaves = (name: string) => (_: unknown, waits: Waits<string, string>) => {
        log.push(name)
        waits.leave()
      }
      const gone = joining(shared, leaves("gone"))
      joining(shared, leaves("first"))
      joining(shared, leaves("second"))
      const fiber = yield* observing(shared.get)
      gone.leave()
      gone.leave()
      expect(yield* shared.observers).toBe(3)
      lab.run(0).end(Effect.succeed("value"))
      expect(log).toEqual(["first", "second"])
      expect(yield* Fiber.join(fiber)).toBe("value")
      expect(yield* shared.observers).toBe(0)
    })
  )

  it.effect("L31: is the last one to leave like any other: the run is cancelled at once", () =>
    Effect.gen(function* () {
      const lab = new Lab()
      const { shared } = yield* sharedIn(lab)
      const waits = joining(shared, () => {})
      expect(lab.run(0).ended).toBe(false)
      waits.leave()
      expect(lab.run(0)).toMatchObject({
        ended: true,
        reason: CancelReason.Unobserved({ lingered: Duration.zero })
      })
    })
  )
})

describe("a run that nobody waits for", () => {
  it.effect("is told once when its work succeeds and its clean-up fails", () => {
    const heard = hearing()
    return heard.by(
      Effect.gen(function* () {
        const lab = new Lab()
        const work = Effect.andThen(
          Effect.addFinalizer(() => Effect.die("not closed")),
          lab.work
        )
        const shared = yield* Shared.make(work, { owner: yield* owner, whenUnobserved: "keep" })
        yield* Fiber.interrupt(yield* observing(shared.get))
        lab.run(0).end(Effect.succeed("value"))
        yield* Effect.yieldNow
        expect(heard.causes()).toEqual(["not closed"])
      })
    )
  })
})
