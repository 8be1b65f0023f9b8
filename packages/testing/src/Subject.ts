import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * What is swept or explored: a program, and the state it works on.
 *
 * `setup` makes the state and the probes and returns the program. It runs once per run, or once for all of them when
 * the state is kept; its scope is closed after that. Whatever the program starts has to be gone when that scope is
 * closed.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Subject<A = unknown, E = unknown, R = never, E2 = never, R2 = Scope.Scope> {
  /** Stands in the report, and is what `expectSwept` looks for. */
  readonly name?: string | undefined
  readonly setup: Effect.Effect<Effect.Effect<A, E, R>, E2, R2>
}

/**
 * A subject, or a plain effect, which is a program without state of its own.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Sweepable<A = unknown, E = unknown, R = never, E2 = never, R2 = Scope.Scope> =
  | Effect.Effect<A, E, R>
  | Subject<A, E, R, E2, R2>

/**
 * The subject that a plain effect stands for.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { toSubject } from "@curfew/testing"
 *
 * toSubject(Effect.void).name // => undefined
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const toSubject = <A, E, R, E2 = never, R2 = never>(
  self: Sweepable<A, E, R, E2, R2>
): Subject<A, E, R, E2, R2> => (Effect.isEffect(self) ? { setup: Effect.succeed(self) } : self)
