/**
 * Lengths of time that come from outside.
 *
 * Invariants
 * 1. What is no length of time is refused with `InvalidDuration` before any work starts.
 * 2. A negative length and an infinite one are lengths.
 */
import { millisOf } from "@curfew/scope/Argument"
import * as Duration from "effect/Duration"
import { InvalidDuration } from "../InvalidDuration.ts"

export const durationOf = (option: string, value: Duration.Input): Duration.Duration => {
  const millis = millisOf(option, value)
  if (typeof millis !== "number") throw new InvalidDuration({ option, value })
  return Duration.millis(millis)
}
