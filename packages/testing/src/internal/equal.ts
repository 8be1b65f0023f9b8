/**
 * Whether two runs gave the same answer.
 *
 * Invariants
 * 1. Two exits are the same when both succeeded with equal values, or both failed for equal reasons, in any order.
 * 2. Values that cannot be compared (functions, class instances without `Equal`) count as equal when they are of the
 *    same kind: no answer is called wrong on a guess.
 */
import type * as Cause from "effect/Cause"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"

const isPlain = (value: object): boolean => {
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype || prototype === Array.prototype
}

/** Whether two values are equal as far as that can be told. */
const same = (a: unknown, b: unknown, depth = 0): boolean => {
  if (Object.is(a, b) || depth > 20) return true
  if (typeof a !== typeof b) return false
  if (typeof a === "function") return true
  if (typeof a !== "object" || a === null || typeof b !== "object" || b === null) return false
  if (Equal.isEqual(a) || Equal.isEqual(b)) return Equal.equals(a, b)
  if (!isPlain(a) || !isPlain(b)) {
    if (a instanceof Error && b instanceof Error) return a.name === b.name && a.message === b.message
    return a.constructor === b.constructor
  }
  const keys = Object.keys(a)
  return (
    keys.length === Object.keys(b).length &&
    keys.every(
      (key) =>
        key in b && same((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key], depth + 1)
    )
  )
}

const sameReason = (a: Cause.Reason<unknown>, b: Cause.Reason<unknown>): boolean =>
  a._tag === "Fail" && b._tag === "Fail"
    ? same(a.error, b.error)
    : a._tag === "Die" && b._tag === "Die"
      ? same(a.defect, b.defect)
      : a._tag === b._tag

/** Whether two exits are the same answer. */
export const sameExit = (a: Exit.Exit<unknown, unknown>, b: Exit.Exit<unknown, unknown>): boolean => {
  if (Exit.isSuccess(a) || Exit.isSuccess(b)) {
    return Exit.isSuccess(a) && Exit.isSuccess(b) && same(a.value, b.value)
  }
  const others = b.cause.reasons
  return (
    a.cause.reasons.length === others.length &&
    a.cause.reasons.every((reason) => others.some((other) => sameReason(reason, other)))
  )
}

/** An exit in a few words. */
export const describeExit = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.isSuccess(exit)
    ? `success of ${show(exit.value)}`
    : `failure by ${exit.cause.reasons
        .map((reason) =>
          reason._tag === "Fail"
            ? show(reason.error)
            : reason._tag === "Die"
              ? `defect ${show(reason.defect)}`
              : "interruption"
        )
        .join(", ")}`

const show = (value: unknown): string => {
  if (value instanceof Error) return `${value.name}: ${value.message}`
  try {
    const text = typeof value === "object" ? JSON.stringify(value) : String(value)
    return text.length > 80 ? `${text.slice(0, 79)}…` : text
  } catch {
    return "a value"
  }
}
