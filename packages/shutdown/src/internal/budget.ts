/**
 * The clean-up budget of a program that is being shut down.
 *
 * Invariants
 * 1. The duration says how much there is at the moment it is read, which is when a piece of clean-up begins: it shrinks
 *    as the shutdown goes on, and at once when a signal moves on.
 * 2. It is never longer than the surrounding budget.
 * 3. While the shutdown forces, it is half of what is left. Whatever hangs one after the other is therefore named before
 *    the time is up, the second with a quarter of it, the third with an eighth.
 */
import * as Duration from "effect/Duration"

export const shrinking = (surrounding: Duration.Duration, left: () => number): Duration.Duration =>
  Object.create(Object.getPrototypeOf(Duration.zero), {
    value: {
      enumerable: true,
      get: (): Duration.Duration["value"] =>
        Duration.millis(Math.min(Duration.toMillis(surrounding), Math.max(0, left()))).value
    }
  })
