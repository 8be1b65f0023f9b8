import { type CancelReason, ownCancellation } from "@curfew/reason"
import { takePosition } from "@curfew/scope/Stuck"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { cleanUp } from "./internal/cleanUp.ts"
import { enterUnsafe, leaveUnsafe } from "./internal/entry.ts"

/**
 * A clean-up that waits for a cancellation, and can be disarmed.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CancelGuard {
  /** Calls the clean-up off. True: it will never run. False: it has begun already, or was called off before. */
  readonly disarm: Effect.Effect<boolean>
}

/**
 * Sets up clean-up that runs when the surrounding `Scope` closes by an own cancellation: what a destructor would do,
 * with the reason and the data at hand.
 *
 * **Guarantees**
 *
 * - **Cancelled only (L14)**: not after a success, a failure, a defect or a foreign interrupt; at most once; never
 *   after `disarm` returned true.
 * - **Masked and bounded (L15)**: as with {@link onCancel}.
 *
 * **When cancelled**
 *
 * Runs in its place among the finalizers of the `Scope`: after those that were added later.
 *
 * **Gotchas**
 *
 * The fiber that closes the `Scope` has to be the one that was cancelled, as in `Effect.scoped`. A `Scope` that
 * somebody else closes by hand says nothing about a cancellation.
 *
 * Clean-up that gets stuck stands in the registry with the line that set it up, unless the process has asked for many such
 * lines in that millisecond: taking one costs as much as the rest.
 *
 * Several finalizers of a parallel `Scope` run in fibers of their own. There a guard knows a Curfew cancel by its reason,
 * and a native interrupt by the fiber that set the guard up: one that has ended before, such as the body of a time limit
 * around `guard` alone, can no longer be asked.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelScope } from "@curfew/scope"
 * import { guard } from "@curfew/guard"
 *
 * const seen: Array<string> = []
 * const handler = Effect.scoped(
 *   Effect.gen(function* () {
 *     const order = { id: 7 }
 *     yield* guard((reason) => Effect.sync(() => seen.push(`order ${order.id}: ${reason._tag}`)))
 *     yield* Effect.never
 *   })
 * )
 * const program = CancelScope.run((scope) => Effect.andThen(Effect.forkChild(scope.cancel()), handler))
 * await Effect.runPromise(program)
 * seen // => ["order 7: Requested"]
 * ```
 *
 * @see onCancel around one piece of work.
 * @stability unstable
 * @since 0.1.0
 */
export const guard = <R>(
  cleanup: (reason: CancelReason) => Effect.Effect<unknown, never, R>
): Effect.Effect<CancelGuard, never, R | Scope.Scope> => {
  const source = takePosition(guard)
  return Effect.withFiber((fiber) => {
    const context = fiber.context as Context.Context<R | Scope.Scope>
    const scope = Context.get(context, Scope.Scope)
    const set = new Guard(scope)
    const finalizer = (exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
      exit._tag === "Success"
        ? Effect.void
        : Effect.flatMap(ownCancellation(exit, fiber), (own) =>
            own._tag === "Some" && set.take()
              ? Effect.provideContext(
                  cleanUp(cleanup, own.value, exit.cause, { name: "guard", source }),
                  context
                )
              : Effect.void
          )
    if (scope.state._tag === "Closed") return Effect.as(finalizer(scope.state.exit), set)
    enterUnsafe(scope, set, finalizer)
    return Effect.succeed(set)
  })
}

class Guard implements CancelGuard {
  readonly #scope: Scope.Scope
  #armed = true

  constructor(scope: Scope.Scope) {
    this.#scope = scope
  }

  /** True once: from then on it is not armed. */
  take(): boolean {
    const was = this.#armed
    this.#armed = false
    return was
  }

  get disarm(): Effect.Effect<boolean> {
    return Effect.sync(() => {
      const was = this.take()
      if (was) leaveUnsafe(this.#scope, this)
      return was
    })
  }
}
