/**
 * Asking a fiber whether it has been interrupted, from inside it.
 *
 * Invariants
 * 1. The answer is about the running fiber's own interrupt. A foreign interrupt, which arrives as a value, does
 *    not show here.
 * 2. It is given inside masks and finalizers too: the probe opens an interruptible region for one operation and
 *    recovers from the interrupt within the mask that it stands in.
 * 3. Outside a mask there is no answer "yes": the fiber ends at the probe, as at any other operation.
 * 4. Where the fiber itself says that nobody has interrupted it, or what has in its mask, it is not probed.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { saysInterrupts } from "./peek.ts"

/** The cause of the fiber's own pending interrupt, or `undefined`. */
const probe: Effect.Effect<Cause.Cause<never> | undefined> = /* @__PURE__ */ Effect.matchCause(
  /* @__PURE__ */ Effect.interruptible(Effect.void),
  {
    onFailure: (cause): Cause.Cause<never> | undefined => cause,
    onSuccess: () => undefined
  }
)

/** Goes on with the cause of the fiber's own pending interrupt, or `undefined`. */
export const withPending = <A, E, R>(
  fiber: Fiber.Fiber<unknown, unknown>,
  next: (pending: Cause.Cause<never> | undefined) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const said = saysInterrupts(fiber)
  return said === undefined ? Effect.flatMap(probe, next) : next(said.cause)
}

/** The cause of the fiber's own pending interrupt, or `undefined`. */
export const pendingInterrupt: Effect.Effect<Cause.Cause<never> | undefined> =
  /* @__PURE__ */ Effect.withFiber((fiber) => withPending(fiber, Effect.succeed))
