/**
 * Reading arguments by the one rule of {@link IllegalArgument}, for those who write primitives of their own. What is
 * called `…Unsafe` throws, which inside an effect is a defect of it.
 *
 * @stability internal
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import { IllegalArgument } from "./IllegalArgument.ts"

/**
 * The milliseconds of a duration. Infinities stay what they are, and so does what is negative.
 *
 * @stability internal
 * @since 0.1.0
 */
export const millisOf = (argument: string, input: Duration.Input): number | IllegalArgument => {
  if (typeof input === "string" && input === lastText) return lastMillis
  // Effect throws at what is no duration at all.
  if (!meansNothing(input)) {
    try {
      const millis = Duration.toMillis(Duration.fromInputUnsafe(input))
      if (typeof input === "string") {
        lastText = input
        lastMillis = millis
      }
      return millis
    } catch {}
  }
  return new IllegalArgument({
    argument,
    value: input,
    expected: 'a duration such as "5 seconds", or Infinity for never'
  })
}

/**
 * The same, thrown.
 *
 * @stability internal
 * @since 0.1.0
 */
export const millisUnsafe = (argument: string, input: Duration.Input): number => {
  const millis = millisOf(argument, input)
  if (typeof millis === "number") return millis
  throw millis
}

/**
 * An instant, or minus or plus infinity.
 *
 * @stability internal
 * @since 0.1.0
 */
export const instantUnsafe = <I extends number>(argument: string, at: I): I => {
  if (typeof at === "number" && !Number.isNaN(at)) return at
  throw new IllegalArgument({
    argument,
    value: at,
    expected: "an instant, as Instant.after gives it, or Instant.never"
  })
}

/**
 * A whole number from `least` on, or infinity.
 *
 * @stability internal
 * @since 0.1.0
 */
export const countUnsafe = (argument: string, count: number, least: 0 | 1): number => {
  if (count >= least && (Number.isInteger(count) || count === Number.POSITIVE_INFINITY)) return count
  throw new IllegalArgument({
    argument,
    value: count,
    expected: `a whole number from ${least} on, or Infinity for no limit`
  })
}

// Programs give the same words again and again, and reading them takes longer than what they limit often does.
let lastText: string | undefined
let lastMillis = 0

const units = ["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"]

/** What Effect would take for zero although nobody meant zero. */
const meansNothing = (input: unknown): boolean => {
  if (typeof input === "number") return Number.isNaN(input)
  if (typeof input !== "object" || input === null || Duration.isDuration(input)) return false
  if (Object.values(input).some(Number.isNaN)) return true
  return !Array.isArray(input) && !units.some((unit) => unit in input)
}
