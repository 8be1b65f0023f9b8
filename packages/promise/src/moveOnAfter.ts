import * as Scope from "@curfew/scope"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { launchTimed } from "./internal/launch.ts"
import type { OnLate, Work, WorkOptions } from "./Options.ts"

/**
 * Gives the work's value, or `undefined` when it takes longer than the duration.
 *
 * **Guarantees**
 *
 * - **Its own deadline (L7)**, **late results (L42)**, **no start (L5)**: as with {@link failAfter}.
 *
 * **When cancelled**
 *
 * As {@link failAfter}: it aborts, and waits until the promise has settled.
 *
 * **Example**
 *
 * ```ts
 * import { moveOnAfter } from "@curfew/promise"
 *
 * const hangs = (signal: AbortSignal) =>
 *   new Promise<string>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)))
 * const guess = (await moveOnAfter(hangs, "2 millis")) ?? "a guess" // => "a guess"
 * ```
 *
 * @see failAfter for an error instead.
 * @stability unstable
 * @since 0.1.0
 */
export const moveOnAfter = <A>(
  work: Work<A>,
  duration: Duration.Input,
  options?: WorkOptions & { readonly onLate?: OnLate<A> | undefined }
): Promise<A | undefined> =>
  launchTimed<A, A | undefined>(work, duration, options, (settled, left) =>
    Effect.map(Scope.moveOnAfter(settled, left, { name: options?.name }), Option.getOrUndefined)
  )
