import { CancelReason, fromAbort } from "@curfew/reason"
import { startsApartUnsafe } from "@curfew/reason/CancelCell"
import { effectiveDeadlineOf } from "@curfew/reason/Outer"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Instant } from "./Instant.ts"
import { awaitCancelled, cancelAndWait } from "./internal/cancelling.ts"
import {
  endedByOwnCancel,
  runBody,
  ScopeState,
  type Settled,
  withoutOwnInterrupt
} from "./internal/scoped.ts"

/**
 * A region of work that can be cancelled from outside, with a reason.
 *
 * **Guarantees**
 *
 * - **First wins (L1)**: cancelling is idempotent; only the first call returns true and its reason stays.
 * - **One turn (L2)**: every scope and task below is signalled before the finalizer of any of them runs; nothing
 *   above is.
 *
 * **When cancelled**
 *
 * `cancel` does not wait; `cancelAndWait` returns when the body and everything below has ended. From inside its own
 * body, from a task, from behind a mask or a shield in it, `cancelAndWait` would wait for itself: there it returns
 * without waiting, and the cancel reaches the caller like everything else, in a mask when the mask ends.
 *
 * **Gotchas**
 *
 * A fiber forked by `Effect.forkChild` keeps Effect's own order: it is interrupted after its parent's finalizers.
 * Work that has to be signalled at once is spawned in a task scope.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CancelScope {
  readonly name: string | undefined
  /** True iff this call was the first. Without a reason: `Requested`. */
  readonly cancel: (reason?: CancelReason) => Effect.Effect<boolean>
  /** Cancels, then waits until the body has ended. */
  readonly cancelAndWait: (reason?: CancelReason) => Effect.Effect<void>
  /** Waits for the cancel. Inside the body it resumes only in a mask or a shield. */
  readonly awaitCancelled: Effect.Effect<CancelReason>
  /** Made on first use. Its `reason` is the {@link CancelReason}. */
  readonly signal: AbortSignal
  /** The earliest deadline of this scope and those above it, up to the nearest mask, shield or owner. */
  readonly deadline: Effect.Effect<Option.Option<Instant>>
  /** Moves this scope's own deadline. Does nothing once cancelled or ended. */
  readonly setDeadline: (at: Instant) => Effect.Effect<void>
}

/**
 * What became of a body: its value, or the cancel of its own scope.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Outcome<A> =
  | { readonly _tag: "Done"; readonly value: A; readonly cancelCalled: boolean }
  | { readonly _tag: "Cancelled"; readonly reason: CancelReason }

const requested: CancelReason = /* @__PURE__ */ CancelReason.Requested({ message: "cancel was called" })

class CancelScopeImpl implements CancelScope {
  readonly #state: ScopeState

  constructor(state: ScopeState) {
    this.#state = state
  }

  get name(): string | undefined {
    return this.#state.name
  }

  // Functions of their own, so that they can be handed on; made when somebody asks.
  get cancel(): CancelScope["cancel"] {
    return (reason = requested) => Effect.sync(() => this.#state.cell.cancel(reason))
  }

  get cancelAndWait(): CancelScope["cancelAndWait"] {
    return (reason = requested) => cancelAndWait(this.#state.cell, reason)
  }

  get awaitCancelled(): Effect.Effect<CancelReason> {
    return awaitCancelled(this.#state.cell)
  }

  get signal(): AbortSignal {
    return this.#state.signal
  }

  get deadline(): Effect.Effect<Option.Option<Instant>> {
    return Effect.sync(() => {
      const at = effectiveDeadlineOf(this.#state.cell)
      return at === Number.POSITIVE_INFINITY ? Option.none() : Option.some(at as Instant)
    })
  }

  get setDeadline(): CancelScope["setDeadline"] {
    return (at) => Effect.sync(() => this.#state.setDeadline(at))
  }
}

/**
 * Runs a body in a cancel scope of its own and tells whether that scope was cancelled.
 *
 * **Guarantees**
 *
 * - **Own cancel only (L3)**: `Cancelled` is yielded for this scope's cancel or deadline alone. An outer cancel
 *   passes through unchanged, a foreign interrupt stays one, a defect is never absorbed.
 * - **The value wins (L4)**: a value that reached `run` before the cancel is `Done`, with `cancelCalled` false,
 *   or true when the scope was cancelled while the body was ending.
 * - **No start (L5)**: with a deadline in the past or an aborted signal the body does not start: `Cancelled`. Below
 *   a cancelled scope it does not start either: the interrupt passes through.
 * - **Nothing left (L8)**: after it returns, neither timer, nor listener, nor fiber of the scope remains.
 * - **Any depth (L45)**: scopes nest ten thousand deep and more.
 *
 * **When cancelled**
 *
 * The body is interrupted, its finalizers run, then `run` returns. It waits for them without a limit of its own;
 * {@link bounded} gives a finalizer one. Inside a mask an outer cancel is heard when the mask ends (L44).
 *
 * **Gotchas**
 *
 * A cancel that is pending when the body's last mask ends wins over the value that comes out of the mask: Effect
 * decides it there. Work whose value must not be lost uses `delayCancellation` with `onLate`.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelReason } from "@curfew/reason"
 * import { CancelScope } from "@curfew/scope"
 *
 * const program = CancelScope.run((scope) =>
 *   Effect.andThen(scope.cancel(CancelReason.Superseded()), Effect.never)
 * )
 * Effect.runSync(program) // => { _tag: "Cancelled", reason: { _tag: "Superseded" } }
 * ```
 *
 * @see failAfter and moveOnAfter when only a deadline is wanted; TaskScope for several tasks.
 * @stability unstable
 * @since 0.1.0
 */
export const run = <A, E, R>(
  body: (scope: CancelScope) => Effect.Effect<A, E, R>,
  options?: {
    /** Stands in the live tree and in a deadline's reason. */
    readonly name?: string | undefined
    /** When the scope cancels itself. Default: never. */
    readonly deadline?: Instant | undefined
    /** Cancels the scope when it aborts; its reason is read by `fromAbort`. */
    readonly signal?: AbortSignal | undefined
  }
): Effect.Effect<Outcome<A>, E, R> =>
  runBody((state) => body(new CancelScopeImpl(state)), options ?? none, told)

const none = {}

const told = <A, E>(settled: Settled<A, E>): Effect.Effect<Outcome<A>, E> => {
  if (settled._tag === "NotStarted") return Effect.succeed({ _tag: "Cancelled", reason: settled.reason })
  const { cell, exit } = settled
  if (exit._tag === "Success")
    return Effect.succeed({ _tag: "Done", value: exit.value, cancelCalled: cell?.own === true })
  return endedByOwnCancel(exit.cause, cell)
    ? Effect.succeed({ _tag: "Cancelled", reason: cell.reason as CancelReason })
    : Effect.failCause(withoutOwnInterrupt(exit.cause, cell))
}

/**
 * A cancel scope that an `AbortSignal` cancels, for as long as the surrounding `Scope` is open.
 *
 * **Guarantees**
 *
 * - **No ear left behind**: the listener on the signal is removed when the `Scope` closes.
 * - **The reason travels**: `signal.reason` becomes the {@link CancelReason}, by `fromAbort`.
 *
 * **When cancelled**
 *
 * Being below the running scope, it is cancelled with it.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelScope } from "@curfew/scope"
 *
 * const program = Effect.scoped(
 *   Effect.flatMap(CancelScope.fromSignal(AbortSignal.abort("closed")), (scope) => scope.awaitCancelled)
 * )
 * Effect.runSync(program) // => { _tag: "Requested", message: "closed" }
 * ```
 *
 * @see run with `signal` to cancel a body.
 * @stability unstable
 * @since 0.1.0
 */
export const fromSignal = (signal: AbortSignal): Effect.Effect<CancelScope, never, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    const masked = startsApartUnsafe(fiber)
    let leave = () => {}
    return Effect.acquireRelease(
      Effect.sync(() => {
        const state = new ScopeState(fiber.context, masked)
        const abort = () => state.cell.cancel(fromAbort(signal.reason))
        state.show()
        leave = () => {
          signal.removeEventListener("abort", abort)
          state.end()
        }
        if (signal.aborted) abort()
        else signal.addEventListener("abort", abort, { once: true })
        return new CancelScopeImpl(state)
      }),
      () => Effect.sync(leave)
    )
  })
