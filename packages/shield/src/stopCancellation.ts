import { ownInterrupt } from "@curfew/reason"
import { CancelCell, CurrentCell, isMaskedUnsafe } from "@curfew/reason/CancelCell"
import { type Owner, ownerClosedTotal, reportUnhandled } from "@curfew/scope"
import { holdUnsafe } from "@curfew/scope/Caller"
import * as Child from "@curfew/scope/Child"
import { receive } from "@curfew/scope/LateResult"
import { ownerOfUnsafe } from "@curfew/scope/Owner"
import * as TaskScope from "@curfew/scope/TaskScope"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"

/**
 * Protects the work from its waiter's cancellation and lets the waiter go at once: the work goes on under its owner.
 *
 * **Guarantees**
 *
 * - **Identity (L9)**: when nobody cancels, value, typed error and defect are the work's own. Children that the work
 *   forks belong to the shield and end with it.
 * - **Leaves at once (L10)**: the waiter's cancel returns within one scheduling step; inside an outer mask it cannot
 *   leave and waits. The work stands in its owner from its start to its end.
 * - **One receiver (L10)**: exactly one of the waiter and `onAbandoned` gets the exit. By default a failure reaches
 *   {@link OnUnhandled} once and a success is dropped.
 * - **Not pierced (L12)**, **own interrupts pass (L13)**, **no road in (L44)**: as with {@link delayCancellation}.
 * - **A closed owner takes no work (L46)**: then it behaves as {@link delayCancellation}, and that is counted once.
 *
 * **When cancelled**
 *
 * Returns at once with the interrupt. The work ends on its own, or by its owner's end.
 *
 * **Gotchas**
 *
 * The work keeps its caller's services, and its caller's `Scope` closes when the caller has left: what was acquired in it
 * is released while the work goes on. Work that needs a resource to its end brings its own `Scope`:
 *
 * ```ts
 * import * as Deferred from "effect/Deferred"
 * import * as Effect from "effect/Effect"
 * import * as Fiber from "effect/Fiber"
 * import { Owner } from "@curfew/scope"
 * import { stopCancellation } from "@curfew/shield"
 *
 * const log: Array<string> = []
 * const note = (text: string) => Effect.sync(() => log.push(text))
 * const program = Effect.gen(function* () {
 *   const gate = yield* Deferred.make<void>()
 *   const file = Effect.acquireRelease(note("open"), () => note("close"))
 *   const upload = Effect.andThen(file, Effect.andThen(Deferred.await(gate), note("written")))
 *   const waiter = yield* Effect.forkChild(stopCancellation(Effect.scoped(upload)), { startImmediately: true })
 *   yield* Fiber.interrupt(waiter)
 *   yield* note("left")
 *   yield* Deferred.succeed(gate, undefined)
 * })
 * await Effect.runPromise(Effect.provide(program, Owner.layer()))
 * log // => ["open", "left", "written", "close"]
 * ```
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelScope, Owner } from "@curfew/scope"
 * import { stopCancellation } from "@curfew/shield"
 *
 * const log: Array<string> = []
 * const write = Effect.andThen(Effect.sleep("5 millis"), Effect.sync(() => log.push("written")))
 * const program = CancelScope.run((scope) =>
 *   Effect.andThen(Effect.forkChild(Effect.delay(scope.cancel(), "1 millis")), stopCancellation(write))
 * ).pipe(Effect.tap(() => Effect.sync(() => log.push("answered"))))
 *
 * await Effect.runPromise(Effect.provide(program, Owner.layer()))
 * log // => ["answered", "written"]
 * ```
 *
 * @see delayCancellation where the waiter shall wait.
 * @stability unstable
 * @since 0.1.0
 */
export const stopCancellation = <A, E, R, R2 = never>(
  self: Effect.Effect<A, E, R>,
  options?: {
    /** Answers for the work. Default: the surrounding {@link Owner}. */
    readonly owner?: TaskScope.TaskScope | undefined
    readonly name?: string | undefined
    /** Receives the exit when the waiter has left, under the owner. */
    readonly onAbandoned?: ((exit: Exit.Exit<A, E>) => Effect.Effect<unknown, never, R2>) | undefined
  }
): Effect.Effect<A, E, R | R2 | Owner> =>
  Effect.withFiber((fiber) => {
    const context = fiber.context as Context.Context<R | R2 | Owner>
    const owner = options?.owner ?? ownerOfUnsafe(fiber.context)
    const name = options?.name
    const masked = isMaskedUnsafe(fiber)
    const abandoned = (exit: Exit.Exit<A, E>): Effect.Effect<void, never, R2> =>
      options?.onAbandoned === undefined
        ? reportFailure(exit, name)
        : receiving(exit, options.onAbandoned, name)
    let left = false
    let settled: Exit.Exit<A, E> | undefined
    let attached = false
    const work = Effect.onExitPrimitive(self, (exit) => {
      settled = exit
      return left ? abandoned(exit) : undefined
    })
    return Child.startAndAwait<A, E, A, E, R | R2 | Owner>(
      () => {
        const outer = fiber.getRef(CurrentCell)
        const held = holdUnsafe(fiber, name ?? "stopCancellation")
        const task = TaskScope.spawnUnsafe(owner, context, held.around(work), {
          name,
          outer,
          observed: always
        })
        if (task !== undefined) {
          // The owner may end while a scheduler holds the task up before its work.
          held.follow(task.fiber)
          return task.fiber
        }
        attached = true
        ownerClosedTotal.updateUnsafe(1, fiber.context)
        return Child.forkUnsafe(context, new CancelCell("shield", { name, outer }), held.around(work))
      },
      (exit) => exit,
      (running) => {
        if (masked) return Effect.void
        return Effect.flatMap(ownInterrupt, (own) => {
          // The work ended interrupted by itself: that exit was passed on, and nobody has left.
          if (own === undefined) return Effect.void
          if (settled === undefined) {
            left = true
            return attached ? Child.awaitEnd(running) : Effect.void
          }
          // Settled, but its exit did not get through before the interrupt: the waiter sees to it that it is received.
          const received = abandoned(settled)
          const task = TaskScope.spawnUnsafe(owner, context, received, { name, observed: always })
          return task === undefined ? received : Effect.void
        })
      }
    )
  })

/** The waiter or the receiver is told a failure; the owner does not report it again. */
const always = (): boolean => true

const reportFailure = (exit: Exit.Exit<unknown, unknown>, name: string | undefined): Effect.Effect<void> =>
  exit._tag === "Success" ? Effect.void : reportUnhandled("abandoned work", name, exit.cause)

const receiving = <A, E, R>(
  exit: Exit.Exit<A, E>,
  receiver: (exit: Exit.Exit<A, E>) => Effect.Effect<unknown, never, R>,
  name: string | undefined
): Effect.Effect<void, never, R> => receive(() => receiver(exit), name)
