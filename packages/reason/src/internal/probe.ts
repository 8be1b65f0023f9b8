/**
 * Asking a fiber whether it has been interrupted, from inside it.
 *
 * Invariants
 * 1. The answer is about the running fiber's own interrupt. A foreign interrupt, which arrives as a value, does
 *    not show here.
 * 2. It is given inside masks and finalizers too: the probe opens an interruptible region for one operation and
 *    recovers from the interrupt within the mask that it stands in.
 * 3. Outside a mask there is no answer "yes": the fiber ends at the probe, as at any other operation.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/** The cause of the fiber's own pending interrupt, or `undefined`. */
export const pendingInterrupt: Effect.Effect<Cause.Cause<never> | undefined> =
  /* @__PURE__ */ Effect.matchCause(/* @__PURE__ */ Effect.interruptible(Effect.void), {
    onFailure: (cause): Cause.Cause<never> | undefined => cause,
    onSuccess: () => undefined
  })
