import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { complete } from "./internal/complete.ts"
import { defaults } from "./internal/defaults.ts"

/**
 * Nothing is runnable, nothing sleeps, and the program has not ended.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class Deadlock extends /* @__PURE__ */ Data.TaggedError("Deadlock")<{
  /** The fibers that wait, with the place where each does. */
  readonly waiting: ReadonlyArray<string>
  /** True when the program did not stand still but went on and on. */
  readonly endless: boolean
}> {
  /** One sentence. */
  override get message(): string {
    const what = this.endless
      ? "The program goes on for ever"
      : "Nothing is runnable, nothing sleeps, and the program has not ended"
    return `${what}; alive: ${this.waiting.join("; ")}.`
  }
}

/**
 * Runs a program on a clock that jumps: whenever nothing is runnable, time moves to the next sleeper at once.
 *
 * **Guarantees**
 *
 * - **No waiting**: a program with time limits of days ends at once, in the same order as in real time.
 * - **Deadlocks are errors**: when nothing is runnable and nothing sleeps, it fails with {@link Deadlock}.
 * - **Time starts at zero**: `Clock.currentTimeMillis` is the virtual time since the start.
 *
 * **When cancelled**
 *
 * The program is abandoned where it stands: none of its fibers runs again.
 *
 * **Gotchas**
 *
 * A program that waits for the outside (a socket, a timer of its own) needs `patience`: the real time for which a
 * standstill is not yet a deadlock, and before which time does not jump.
 *
 * **Example**
 *
 * ```ts
 * import * as Deferred from "effect/Deferred"
 * import * as Effect from "effect/Effect"
 * import { JumpClock } from "@curfew/testing"
 *
 * Effect.runSync(JumpClock.run(Effect.as(Effect.sleep("30 days"), "done"))) // => "done"
 *
 * const stuck = Effect.flatMap(Deferred.make<void>(), Deferred.await)
 * const said = Effect.flip(JumpClock.run(stuck))
 * await Effect.runPromise(Effect.map(said, (error) => error._tag)) // => "Deadlock"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const run = <A, E, R>(
  program: Effect.Effect<A, E, R>,
  options: {
    /** Default: some turns of the event loop. */
    readonly patience?: Duration.Input | undefined
  } = {}
): Effect.Effect<A, E | Deadlock, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.flatMap(
      complete(program, context, defaults(options)),
      ({ ended, exit, waiting }): Effect.Effect<A, E | Deadlock> =>
        exit ?? Effect.fail(new Deadlock({ waiting: waiting(), endless: ended === "Endless" }))
    )
  )
