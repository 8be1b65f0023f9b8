/**
 * The timer behind a deadline, which calls back: one of the process where the clock is the process's own, and otherwise
 * a fiber that sleeps on the clock that the program was given.
 *
 * Invariants
 * 1. A timer belongs to the scope that armed it; after `disarm` nothing of it is left.
 * 2. No deadline, or an infinite one, costs neither fiber nor timer.
 * 3. A clock may fire within `armUnsafe`: before the disarm is in the caller's hands.
 * 4. A timer never fires early by more than the clock's own resolution, and fires once.
 * 5. What fires runs in a fiber, so what it throws stays there; one that is disarmed, as most are, never has one.
 */

import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { startUnsafe } from "./child.ts"

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
