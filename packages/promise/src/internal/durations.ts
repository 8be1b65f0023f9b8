/**
 * Lengths of time that come from outside.
 *
 * Invariants
 * 1. What is no length of time is refused with `InvalidDuration` before any work starts.
 * 2. A negative length and an infinite one are lengths.
 */
import * as Duration from "effect/Duration"
import { InvalidDuration } from "../InvalidDuration.ts"

export const durationOf = (option: string, value: Duration.Input): Duration.Duration => {
  if (typeof value !== "number" || !Number.isNaN(value)) {
    try {
      const duration = Duration.fromInputUnsafe(value)
      if (!Number.isNaN(Duration.toMillis(duration))) return duration
    } catch {
      // Told below, in words of its own.
    }
  }
  throw new InvalidDuration({ option, value })
}
