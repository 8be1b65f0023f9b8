/**
 * Causes as the errors that promises reject with, and back.
 *
 * Invariants
 * 1. A failure or a defect comes out as the very value that was thrown; it is neither wrapped nor changed. What it carries
 *    besides, the failures of siblings, hangs beside it in a weak map.
 * 2. A cause of interrupts alone is one `Cancelled`, with the reason that the first interrupt carries.
 * 3. A `Cancelled` that work throws although nobody cancelled it is somebody else's: a foreign interrupt.
 */
import { CancelReason, fromCause, toCause } from "@curfew/reason"
import { siblingFailures } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { Cancelled, isCancelled } from "../Cancelled.ts"

const siblings = new WeakMap<object, ReadonlyArray<unknown>>()

export const siblingsOf = (error: unknown): ReadonlyArray<unknown> =>
  (isObject(error) ? siblings.get(error) : undefined) ?? []

const isObject = (value: unknown): value is object =>
  (typeof value === "object" && value !== null) || typeof value === "function"

/** What a promise rejects with for this cause. */
export const errorOf = (cause: Cause.Cause<unknown>): unknown => {
  const first = cause.reasons.find((reason) => reason._tag !== "Interrupt")
  if (first === undefined) return new Cancelled(Option.getOrElse(fromCause(cause), CancelReason.Unknown))
  const error = first._tag === "Fail" ? first.error : first.defect
  const others = siblingFailures(cause)
    .map(errorOf)
    .filter((other) => other !== error)
  if (others.length > 0 && isObject(error)) siblings.set(error, others)
  return error
}

/** How work ends whose promise has settled like this. */
export const exitOf = <A>(result: PromiseSettledResult<A>): Exit.Exit<A, unknown> => {
  if (result.status === "fulfilled") return Exit.succeed(result.value)
  const error: unknown = result.reason
  return isCancelled(error) ? Exit.failCause(toCause(error.reason)) : Exit.fail(error)
}

/** The other way round. */
export const resultOf = <A>(exit: Exit.Exit<A, unknown>): PromiseSettledResult<A> =>
  exit._tag === "Success"
    ? { status: "fulfilled", value: exit.value }
    : { status: "rejected", reason: errorOf(exit.cause) }

/** Whether work that was aborted with `reason` has only said so, in its own words or in those of a web API. */
export const isAbort = (error: unknown, reason: unknown): boolean => {
  // An error wraps another at most a few times; the bound is against circles.
  let inner: unknown = error
  for (let i = 0; i < 8 && isObject(inner); i++) {
    if (inner === reason || isCancelled(inner)) return true
    if ("name" in inner && inner.name === "AbortError") return true
    inner = "cause" in inner ? inner.cause : undefined
  }
  return error === reason
}

export const failCause = (error: unknown): Cause.Cause<unknown> => Cause.fail(error)
