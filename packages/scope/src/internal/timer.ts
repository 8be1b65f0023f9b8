/**
 * The timer behind a deadline, which calls back: one of the process where the clock is the process's own, and otherwise
 * a fiber that sleeps on the clock that the program was given. And waiting by it for what was cancelled, within the clean-up
 * budget: in one module with the timer, since every bundle that has the one has the other.
 *
 * Invariants
 * 1. A timer belongs to the scope that armed it; after `disarm` nothing of it is left.
 * 2. No deadline, or an infinite one, costs neither fiber nor timer.
 * 3. A clock may fire within `armUnsafe`: before the disarm is in the caller's hands.
 * 4. A timer never fires early by more than the clock's own resolution, and fires once.
 * 5. What fires runs in a fiber, so what it throws stays there; one that is disarmed, as most are, never has one.
 * 6. Who waits is masked: clean-up that has begun is awaited, whoever cancels. He goes on when the end has come or the budget
 *    is used up, whichever comes first, and once; whichever came second changes nothing.
 * 7. What overruns is dealt with before the waiter goes on.
 */

import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { resumeWith, startUnsafe } from "./child.ts"

/** The clock of programs that were given none. It sleeps by timers of the process, as is done here without a fiber. */
const processClock: Clock.Clock = /* @__PURE__ */ Context.get(
  /* @__PURE__ */ Context.empty() as Context.Context<never>,
  Clock.Clock
)

/** The longest that a timer of the process waits. */
const longest = 2 ** 31 - 1

// Sub-microsecond noise of the conversion from nanoseconds must not turn 1000 ms into 1001.
const roundingSlack = 1e-3

/** Calls back after the delay (milliseconds); returns the disarm. */
export const armUnsafe = (
  context: Context.Context<never>,
  clock: Clock.Clock,
  delay: number,
  fire: () => void
): (() => void) => {
  const millis = Math.max(0, Math.ceil(delay - roundingSlack))
  if (clock === processClock && millis > 0 && millis <= longest) {
    const timer = setTimeout(() => startUnsafe(context, Effect.sync(fire)), millis)
    return () => clearTimeout(timer)
  }
  const sleeper: Fiber.Fiber<void> = startUnsafe(
    context,
    Effect.andThen(clock.sleep(Duration.millis(millis)), Effect.sync(fire))
  )
  return () => sleeper.interruptUnsafe()
}

/** Waits until what was cancelled has ended, at most for the budget. */
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
          resumeWith(fiber, resume, result)
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
