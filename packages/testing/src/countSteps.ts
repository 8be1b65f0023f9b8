import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { complete } from "./internal/complete.ts"
import { defaults } from "./internal/defaults.ts"
import { Deadlock } from "./JumpClock.ts"

/**
 * Counts the primitive operations that a program takes, in all of its fibers, on a clock that jumps.
 *
 * **Guarantees**
 *
 * - **A measure, not a time**: the same program takes the same number on every machine.
 *
 * **When cancelled**
 *
 * The program is abandoned where it stands.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { countSteps } from "@curfew/testing"
 *
 * Effect.runSync(countSteps(Effect.void)) // => 1
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const countSteps = <A, E, R>(
  program: Effect.Effect<A, E, R>
): Effect.Effect<number, E | Deadlock, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.flatMap(
      complete(program, context, defaults({})),
      ({ ended, exit, steps, waiting }): Effect.Effect<number, E | Deadlock> =>
        exit === undefined
          ? Effect.fail(new Deadlock({ waiting: waiting(), endless: ended === "Endless" }))
          : Effect.as(exit, steps)
    )
  )
