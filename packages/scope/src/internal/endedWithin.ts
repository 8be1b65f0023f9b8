/**
 * Waiting for what was cancelled, within the clean-up budget.
 *
 * Invariants
 * 1. The waiter is masked: clean-up that has begun is awaited, whoever cancels.
 * 2. It goes on when the end has come or the budget is used up, whichever comes first, and once; whichever came
 *    second changes nothing.
 * 3. What overruns is dealt with before the waiter goes on.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as child from "./child.ts"
import { armUnsafe } from "./timer.ts"

export const endedWithin = <A, E>(
  budget: Duration.Duration,
  /**
   * Listens for the end, which is told once, at once when it has come already. It is called in the operation that begins
   * to wait: before it, the end might come unheard.
   */
  listen: (ended: (result: Effect.Effect<A, E>) => void) => void,
  /** Leaves behind what has not ended since then, and says so. */
  overrun: (startedAt: number) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.uninterruptible(
    Effect.withFiber((fiber) => {
      const clock = fiber.getRef(Clock.Clock)
      const startedAt = clock.currentTimeMillisUnsafe()
      return Effect.callback<A, E>((resume) => {
        let disarm: (() => void) | undefined
        let over = false
        listen((result) => {
          if (over) return
          over = true
          disarm?.()
          child.resumeWith(fiber, resume, result)
        })
        const millis = Duration.toMillis(budget)
        if (over || millis === Number.POSITIVE_INFINITY) return
        disarm = armUnsafe(fiber.context, clock, millis, () => {
          // A clock may bring the end in the turn in which the timer starts.
          if (over) return
          over = true
          resume(overrun(startedAt))
        })
        if (over) disarm()
      })
    })
  )
