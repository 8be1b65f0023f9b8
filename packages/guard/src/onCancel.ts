import { type CancelReason, ownCancellation } from "@curfew/reason"
import * as Effect from "effect/Effect"
import * as Fn from "effect/Function"
import { cleanUp } from "./internal/cleanUp.ts"

/**
 * Runs clean-up iff the work's own cancellation prevented its completion, with the reason.
 *
 * **Guarantees**
 *
 * - **Cancelled only (L14)**: not after a success, a failure, a defect, a foreign interrupt (a joined fiber that
 *   somebody else stopped), or a cancel that came after the completion. At most once.
 * - **Masked and bounded (L15)**: it runs masked, within the clean-up budget.
 * - **Still a pure interrupt (L15)**: a defect of the clean-up is an annotation ({@link CleanupDefect}) on the
 *   interrupt and reaches `OnUnhandled`; the exit stays one that no `catch` can swallow.
 *
 * **When cancelled**
 *
 * That is what it is for. The clean-up ends before the work's exit is passed on.
 *
 * **Gotchas**
 *
 * Clean-up that gets stuck stands in the registry under the name of its function, without the line: taking a line costs
 * several times what the rest costs, on calls that are never cancelled. `guard` takes one, where there is time.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelReason } from "@curfew/reason"
 * import { CancelScope } from "@curfew/scope"
 * import { onCancel } from "@curfew/guard"
 *
 * const seen: Array<string> = []
 * const program = CancelScope.run((scope) =>
 *   Effect.andThen(
 *     Effect.forkChild(scope.cancel(CancelReason.ClientGone({ transport: "http1" }))),
 *     onCancel(Effect.never, (reason) => Effect.sync(() => seen.push(reason._tag)))
 *   )
 * )
 * await Effect.runPromise(program)
 * seen // => ["ClientGone"]
 * ```
 *
 * @see guard for clean-up that is set up in the middle of a `Scope` and can be disarmed.
 * @stability unstable
 * @since 0.1.0
 */
export const onCancel: {
  <R2>(
    cleanup: (reason: CancelReason) => Effect.Effect<unknown, never, R2>
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R | R2>
  <A, E, R, R2>(
    self: Effect.Effect<A, E, R>,
    cleanup: (reason: CancelReason) => Effect.Effect<unknown, never, R2>
  ): Effect.Effect<A, E, R | R2>
} = /* @__PURE__ */ Fn.dual(
  2,
  <A, E, R, R2>(
    self: Effect.Effect<A, E, R>,
    cleanup: (reason: CancelReason) => Effect.Effect<unknown, never, R2>
  ): Effect.Effect<A, E, R | R2> =>
    Effect.onExitPrimitive(self, (exit): Effect.Effect<void, never, R2> | undefined =>
      exit._tag === "Success"
        ? undefined
        : Effect.flatMap(ownCancellation(exit), (own) =>
            own._tag === "None"
              ? Effect.void
              : cleanUp(cleanup, own.value, exit.cause, { name: cleanup.name || "onCancel" })
          )
    )
)
