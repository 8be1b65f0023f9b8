import { CancelReason } from "@curfew/reason"
import type { Owner, TaskScope } from "@curfew/scope"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { Retention } from "./internal/retention.ts"
import { makeSettings } from "./internal/settings.ts"
import { observe, Slot, statisticsOf, wait } from "./internal/slot.ts"
import { join, look, type Waiter } from "./Retained.ts"
import type { SharedCancelled } from "./SharedCancelled.ts"
import type { SharedOptions, SharedStatistics } from "./SharedOptions.ts"

/**
 * One piece of work that all who ask for it at the same time share.
 *
 * **Guarantees**
 *
 * - **One run (L29)**: whoever asks while a run is under way joins it, and all get the same exit.
 * - **Leaving (L30)**: an observer's cancel is immediate and touches nobody else.
 * - **A typed end (L35)**: cancelling the source gives the observers {@link SharedCancelled}, at once.
 *
 * @see make for what can be set and the rest of what is guaranteed.
 * @stability unstable
 * @since 0.1.0
 */
export interface Shared<out A, out E = never> {
  readonly name: string
  /** Waits for the exit: one that is retained, that of the run under way, or that of a run which starts now. */
  readonly get: Effect.Effect<A, E | SharedCancelled>
  /** Later observers get a new run: drops what is retained. Those who wait now keep the run they have. */
  readonly invalidate: Effect.Effect<void>
  /** Cancels what runs; true iff something did. Does not wait for the clean-up. */
  readonly cancel: (reason?: CancelReason) => Effect.Effect<boolean>
  /** How many fibers wait for an exit now. */
  readonly observers: Effect.Effect<number>
  readonly statistics: Effect.Effect<SharedStatistics>
}

/**
 * What `Shared.make` can be told.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Options<A, E> extends SharedOptions {
  /** How long an exit is held for later observers. Is not asked about interruption. Default: not at all. */
  readonly retain?: ((exit: Exit.Exit<A, E>) => Duration.Input) | undefined
  /** The runs' name in reports. Default: `shared`. */
  readonly name?: string | undefined
}

/**
 * Makes shared work: nothing runs before the first `get`.
 *
 * **Guarantees**
 *
 * - **One run (L29)**: one run per generation; all its observers get the same exit.
 * - **Leaving (L30)**: an observer's cancel is immediate and touches nobody else. In a mask it waits (L44).
 * - **Unobserved (L31)**: the run is cancelled with reason `Unobserved` when nobody has observed it for the linger, by
 *   default with the last observer; never under `keep`. The end of its owner cancels it as well.
 * - **Exclusive (L32)**: a generation starts only after the clean-up of the one before. A cancelled run that overruns the
 *   clean-up budget is entered as stuck, reported to `OnUnhandled` once, and no longer waited for.
 * - **Retention (L33)**: an interruption is never held, and a failure only as `retain` says.
 * - **Isolation (L34)**: a run has the services of where it was made and a `Scope` of its own. It sees no observer's
 *   services, scope, span, log annotations, reason or deadline.
 * - **A typed end (L35)**: cancelling the source gives the observers {@link SharedCancelled}, not an interrupt.
 * - **A closed owner takes no work (L46)**: then a run is attached to its first observer, who leaves only when it is over.
 *   That is counted in `ownerClosedTotal`.
 * - **Nothing lost**: a failure that no observer waits for reaches `OnUnhandled` once.
 *
 * **When cancelled**
 *
 * A cancelled `get` returns at once. The run goes on for the others, or is cancelled after the linger.
 *
 * **Gotchas**
 *
 * A run that waits for its own `get`, directly or by way of others, gets the defect {@link SharedSelfWait}, even where a
 * time-out around it would have ended the wait. Node's `AsyncLocalStorage` is no service: a run is in the store of the
 * observer that started it. A retained exit expires when somebody looks: no timer keeps the process alive, and none
 * frees the memory.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Owner } from "@curfew/scope"
 * import { Shared } from "@curfew/singleflight"
 *
 * let runs = 0
 * const load = Effect.andThen(Effect.sleep("5 millis"), Effect.sync(() => ++runs))
 * const program = Effect.gen(function* () {
 *   const shared = yield* Shared.make(load)
 *   return yield* Effect.all([shared.get, shared.get, shared.get], { concurrency: "unbounded" })
 * })
 * await Effect.runPromise(Effect.provide(program, Owner.layer())) // => [1, 1, 1]
 * ```
 *
 * @see SharedMap.make for work by key.
 * @stability unstable
 * @since 0.1.0
 */
export const make: {
  <A, E, R>(
    work: Effect.Effect<A, E, R>,
    options: Options<NoInfer<A>, NoInfer<E>> & { readonly owner: TaskScope.TaskScope }
  ): Effect.Effect<Shared<A, E>, never, Exclude<R, Scope.Scope>>
  <A, E, R>(
    work: Effect.Effect<A, E, R>,
    options?: Options<NoInfer<A>, NoInfer<E>>
  ): Effect.Effect<Shared<A, E>, never, Exclude<R, Scope.Scope> | Owner>
} = <A, E, R>(
  work: Effect.Effect<A, E, R>,
  options?: Options<A, E>
): Effect.Effect<Shared<A, E>, never, Exclude<R, Scope.Scope>> =>
  Effect.withFiberSucceed((fiber) => {
    const name = options?.name ?? "shared"
    const settings = makeSettings<void, A, E>(
      fiber.context as Context.Context<never>,
      () => work as Effect.Effect<A, E>,
      () => name,
      options?.retain,
      options
    )
    const retention = new Retention(Number.POSITIVE_INFINITY)
    const slot = new Slot<void, A, E>(settings, retention, undefined, name)
    const here = () => slot
    const slots = { find: here, obtain: here }
    return {
      name,
      get: observe(slots, undefined),
      [join]: (waiter: Waiter<A, E>) => wait(slots, undefined, waiter),
      [look]: () => slot.hit(),
      invalidate: Effect.sync(() => slot.invalidate()),
      cancel: (reason: CancelReason = requested) => Effect.sync(() => slot.cancel(reason)),
      observers: Effect.sync(() => slot.observers),
      statistics: Effect.sync(() => statisticsOf(settings, retention, [slot]))
    }
  })

const requested: CancelReason = /* @__PURE__ */ CancelReason.Requested({
  message: "the shared work was cancelled"
})
