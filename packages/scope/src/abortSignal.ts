import { type CancelReason, ownCancellation } from "@curfew/reason"
import {
  type Attempt,
  Cell,
  cellUnsafe,
  type Hears,
  inlineUnsafe,
  keepUnsafe,
  startsApartUnsafe
} from "@curfew/reason/CancelCell"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"

/**
 * The current cancellation as an `AbortSignal`, for `fetch`, a driver, anything that takes one.
 *
 * **Guarantees**
 *
 * - **The reason goes out (L6)**: the signal's `reason` is the {@link CancelReason} of the nearest cancelled scope above, the
 *   first one: in a forked child, an item of `all`, a side of a race, the body of a time-out. It is aborted in the turn of
 *   the cancel.
 * - **No success aborts it**: neither a value, nor a failure, nor a foreign interrupt.
 * - **No road in (L44)**: made in a mask or a shield it is not aborted by what is outside; made in a mask whose `Scope` is
 *   cancelled later, it is aborted when that `Scope` closes.
 * - **No ear left behind (L8)**: when the `Scope` closes, nothing listens any more.
 *
 * **When cancelled**
 *
 * It is aborted. A native interrupt, of a race's loser for instance, aborts it when the `Scope` closes, with `Unknown` where
 * nobody said why.
 *
 * **Gotchas**
 *
 * A signal belongs to the `Scope` it was made in. One that was made outside a race knows nothing of the race's loser.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelReason } from "@curfew/reason"
 * import { CancelScope, currentSignal } from "@curfew/scope"
 *
 * const seen: Array<unknown> = []
 * const work = Effect.scoped(
 *   Effect.gen(function* () {
 *     const signal = yield* currentSignal
 *     signal.addEventListener("abort", () => seen.push(signal.reason))
 *     yield* Effect.never
 *   })
 * )
 * const program = CancelScope.run((scope) =>
 *   Effect.andThen(Effect.forkChild(scope.cancel(CancelReason.Superseded())), work)
 * )
 * await Effect.runPromise(program)
 * seen // => [{ _tag: "Superseded" }]
 * ```
 *
 * @see withSignal around one piece of work; `promiseSettled` in `@curfew/promise`, which also waits for the promise.
 * @stability unstable
 * @since 0.1.0
 */
export const currentSignal: Effect.Effect<AbortSignal, never, Scope.Scope> = /* @__PURE__ */ Effect.withFiber(
  (fiber) => {
    const context = fiber.context as Context.Context<Scope.Scope>
    const cell = start(fiber)
    // Within this operation: between the two an interrupt would leave the cell in the tree.
    const added = inlineUnsafe(
      fiber,
      Scope.addFinalizerExit(Context.get(context, Scope.Scope), (exit) => {
        const more = end(cell, exit)
        return more === undefined ? Effect.void : Effect.provideContext(more, context)
      })
    )
    const { signal } = cell.controller
    if (Exit.isExit(added)) return Effect.succeed(signal)
    // What is given back is the finalizer of a `Scope` that is closed already; an interrupt may come before it.
    cell.unlink()
    return Effect.as(Effect.uninterruptible(added), signal)
  }
)

/** The cell of a signal: it hears a cancel, and cancels nothing. */
class SignalCell extends Cell implements Hears {
  readonly controller = new AbortController()
  /** Somebody listens, always. */
  readonly listeners = true

  tell(reason: CancelReason, attempt: Attempt): void {
    attempt(abort, this.controller, reason)
  }
}

const abort = (controller: AbortController, reason: CancelReason): void => controller.abort(reason)

let keeps = false

const start = (fiber: Fiber.Fiber<unknown, unknown>): SignalCell => {
  if (!keeps) {
    keeps = true
    const kept = new SignalCell("scope", {})
    kept.unlink()
    keepUnsafe(kept)
  }
  const cell = cellUnsafe(fiber, "scope", "signal", startsApartUnsafe(fiber), SignalCell)
  if (cell.reason !== undefined) cell.controller.abort(cell.reason)
  return cell
}

const end = (cell: SignalCell, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined => {
  if (exit._tag === "Failure")
    return Effect.map(ownCancellation(exit), (own) => {
      cell.unlink()
      if (own._tag === "Some") cell.controller.abort(own.value)
    })
  cell.unlink()
  return undefined
}

/**
 * Runs work with an `AbortSignal` of its own, which its cancellation aborts: {@link currentSignal} without a `Scope`.
 *
 * **Guarantees**
 *
 * - **The reason goes out (L6)**, **no success aborts it**, **no road in (L44)**, **no ear left behind (L8)**: as with
 *   {@link currentSignal}.
 *
 * **When cancelled**
 *
 * The signal is aborted, at the latest before the exit of the work is passed on.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { withSignal } from "@curfew/scope"
 *
 * const program = withSignal((signal) => Effect.succeed(signal.aborted))
 * Effect.runSync(program) // => false
 * ```
 *
 * @see currentSignal for one that lives as long as a `Scope`.
 * @stability unstable
 * @since 0.1.0
 */
export const withSignal = <A, E, R>(
  use: (signal: AbortSignal) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const cell = start(fiber)
    // Its end is entered within this operation: between the two an interrupt would leave the cell in the tree.
    return inlineUnsafe(
      fiber,
      Effect.onExitPrimitive(
        Effect.suspend(() => use(cell.controller.signal)),
        (exit) => end(cell, exit)
      )
    )
  })
