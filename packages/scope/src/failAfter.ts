import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { DeadlineExceeded } from "./DeadlineExceeded.ts"
import { type TimeLimitOptions, timeLimited } from "./internal/timeLimit.ts"

/**
 * Fails with {@link DeadlineExceeded} when the work takes longer than the duration.
 *
 * **Guarantees**
 *
 * - **Its own deadline (L7)**: the error stands for this limit alone; an outer deadline interrupts instead. It
 *   carries the limit's name.
 * - **Late results have a receiver (L42)**: a success, failure or defect that the work still produces after the
 *   deadline, for instance out of a mask, goes to `onLate`. It gets the exit of the work as a whole: a success inside a
 *   cancelled `gather` or `Effect.all` is not part of it, so give each item a limit of its own.
 * - **Infinity is free (L42)**: an infinite duration costs no fiber and no timer.
 * - **No start (L5)**: a duration of zero or less fails without starting the work.
 *
 * **When cancelled**
 *
 * Interrupts the work and waits for its finalizers, after its own deadline as after an outer cancel. A mask inside delays
 * that; to leave at once, put `stopCancellation` around the work.
 *
 * **Gotchas**
 *
 * Without `onLate` a value that leaves a mask after the deadline is replaced by the interrupt, as in Effect. In a
 * `pipe` the type of the late exit is not inferred; the form `failAfter(self, duration, { onLate })` infers it.
 *
 * `catchTag("DeadlineExceeded")` around several nested limits catches each of them: look at `scope`, or use
 * {@link moveOnAfter} for the inner one.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { failAfter } from "@curfew/scope"
 *
 * const program = Effect.never.pipe(
 *   failAfter("5 millis", { name: "lookup" }),
 *   Effect.catchTag("DeadlineExceeded", (error) => Effect.succeed(error.scope))
 * )
 * const scope = await Effect.runPromise(program)
 * scope // => "lookup"
 * ```
 *
 * @see moveOnAfter for an `Option` instead of an error.
 * @stability unstable
 * @since 0.1.0
 */
export const failAfter: {
  <A, E, R2 = never>(
    duration: Duration.Input,
    options?: TimeLimitOptions<A, E, R2>
  ): <A2 extends A, E2 extends E, R>(
    self: Effect.Effect<A2, E2, R>
  ) => Effect.Effect<A2, E2 | DeadlineExceeded, R | R2>
  <A, E, R, R2 = never>(
    self: Effect.Effect<A, E, R>,
    duration: Duration.Input,
    options?: TimeLimitOptions<A, E, R2>
  ): Effect.Effect<A, E | DeadlineExceeded, R | R2>
} = /* @__PURE__ */ timeLimited(Effect.succeed, (reason) =>
  Effect.fail(new DeadlineExceeded({ at: reason.at, scope: reason.scope }))
)
