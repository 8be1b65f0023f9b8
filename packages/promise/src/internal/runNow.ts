/**
 * Steps of the mechanism that do not wait.
 *
 * Invariants
 * 1. The context is an owner's, or the effect needs none.
 * 2. What is run here ends before the call returns; if it did not, that is a defect, and it is said at once.
 */
import type { Owner } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"

export const runNow = <A>(context: Context.Context<never>, effect: Effect.Effect<A, unknown, Owner>): A => {
  const exit = Child.startUnsafe(context as Context.Context<Owner>, effect).pollUnsafe()
  if (exit?._tag === "Success") return exit.value
  throw new Error(
    "A step that should not have to wait did. This is a defect of @curfew/promise; please report it."
  )
}
