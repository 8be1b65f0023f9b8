import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { exitOf } from "./internal/errors.ts"
import { settle } from "./internal/settle.ts"
import type { Work } from "./Options.ts"

/**
 * A promise in an Effect program that waits for it: `Effect.tryPromise` leaves an aborted promise to itself.
 *
 * **Guarantees**
 *
 * - **Waits**: when it is interrupted, its signal is aborted with the reason, and the promise has the clean-up budget to
 *   settle. What does not is left behind as stuck, by name (L16, L17).
 * - **A pure interrupt**: whatever the aborted promise rejects with. What it still produces goes to `onLate`; without one, a
 *   failure that is not the abort reaches `OnUnhandled` once.
 * - **No road in (L44)**: in a mask or a shield no cancel reaches it, nor what is started with its signal.
 *
 * **When cancelled**
 *
 * Aborts, waits, and ends interrupted. The promise function is not called when the interrupt comes first.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelReason } from "@curfew/reason"
 * import { CancelScope } from "@curfew/scope"
 * import { promiseSettled } from "@curfew/promise"
 *
 * const log: Array<string> = []
 * const write = promiseSettled(
 *   (signal) =>
 *     new Promise((resolve) => {
 *       signal.addEventListener("abort", () => setTimeout(resolve, 1, log.push("settled")))
 *     })
 * )
 * const program = CancelScope.run((scope) =>
 *   Effect.andThen(Effect.forkChild(Effect.delay(scope.cancel(CancelReason.Superseded()), "1 millis")), write)
 * )
 * await Effect.runPromise(program) // => { _tag: "Cancelled", reason: { _tag: "Superseded" } }
 * log // => ["settled"]
 * ```
 *
 * @see settled for a promise of the same.
 * @stability unstable
 * @since 0.1.0
 */
export const promiseSettled = <A, E = unknown>(
  work: Work<A>,
  options?: {
    /** Stands in a stuck record and in reports. Default: the name of the function. */
    readonly name?: string | undefined
    /** Turns what was thrown into a typed error. Default: it is the error as it is. */
    readonly catch?: ((error: unknown) => E) | undefined
    /** Receives what the promise still produces after the abort. Masked, within the clean-up budget. */
    readonly onLate?: ((exit: Exit.Exit<A, unknown>) => Effect.Effect<unknown>) | undefined
  }
): Effect.Effect<A, E> => {
  const onLate = options?.onLate
  const run = settle(work, {
    name: options?.name,
    late: onLate === undefined ? undefined : (result) => onLate(exitOf(result))
  })
  const mapped = options?.catch
  return (mapped === undefined ? run : Effect.mapError(run, mapped)) as Effect.Effect<A, E>
}
