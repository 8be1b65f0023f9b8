import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type TimeLimitOptions, timeLimited } from "./internal/timeLimit.ts"

/**
 * Gives the work's value, or `None` when it takes longer than the duration.
 *
 * **Guarantees**
 *
 * - **Its own deadline (L7)**: `None` stands for this limit alone; an outer deadline interrupts instead.
 * - **Late results have a receiver (L42)**: a success, failure or defect that the work still produces after the
 *   deadline goes to `onLate`. It gets the exit of the work as a whole: a success inside a
 *   cancelled `gather` or `Effect.all` is not part of it, so give each item a limit of its own.
 * - **Infinity is free (L42)**: an infinite duration costs no fiber and no timer.
 * - **No start (L5)**: a duration of zero or less gives `None` without starting the work.
 *
 * **When cancelled**
 *
 * Interrupts the work and waits for its finalizers, after its own deadline as after an outer cancel. A mask inside delays
 * that; to leave at once, put `stopCancellation` around the work.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { moveOnAfter } from "@curfew/scope"
 *
 * const slow = await Effect.runPromise(moveOnAfter("5 millis")(Effect.never))
 * slow._tag // => "None"
 * ```
 *
 * @see failAfter for an error instead of an `Option`.
 * @stability unstable
 * @since 0.1.0
 */
export const moveOnAfter: {
  <A, E, R2 = never>(
    duration: Duration.Input,
    options?: TimeLimitOptions<A, E, R2>
  ): <A2 extends A, E2 extends E, R>(
    self: Effect.Effect<A2, E2, R>
  ) => Effect.Effect<Option.Option<A2>, E2, R | R2>
  <A, E, R, R2 = never>(
    self: Effect.Effect<A, E, R>,
    duration: Duration.Input,
    options?: TimeLimitOptions<A, E, R2>
  ): Effect.Effect<Option.Option<A>, E, R | R2>
} = /* @__PURE__ */ timeLimited(
  (value) => Effect.succeed(Option.some(value)),
  () => Effect.succeed(Option.none())
)
