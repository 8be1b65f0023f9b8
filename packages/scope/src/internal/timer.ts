/**
 * The timer behind a deadline: a fiber that sleeps on the context's clock and then calls back.
 *
 * Invariants
 * 1. A timer belongs to the scope that armed it; `disarm` ends its fiber before it returns.
 * 2. No deadline, or an infinite one, costs neither fiber nor timer.
 * 3. A clock may fire within `armUnsafe`: before the disarm is in the caller's hands.
 * 4. A timer never fires early by more than the clock's own resolution, and fires once.
 */

import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { startUnsafe } from "./child.ts"

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
  const sleeper: Fiber.Fiber<void> = startUnsafe(
    context,
    Effect.andThen(clock.sleep(Duration.millis(millis)), Effect.sync(fire))
  )
  return () => sleeper.interruptUnsafe()
}
