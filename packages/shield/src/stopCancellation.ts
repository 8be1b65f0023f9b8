import { ownInterrupt } from "@curfew/reason"
import {
  CancelCell,
  CurrentCell,
  inlineUnsafe,
  interruptsOfUnsafe,
  isMaskedUnsafe
} from "@curfew/reason/CancelCell"
import { type Owner, ownerClosedTotal, reportUnhandled } from "@curfew/scope"
import { holdUnsafe, nobody } from "@curfew/scope/Caller"
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
    let left = false
    let settled: Exit.Exit<A, E> | undefined
    const settle = (exit: Exit.Exit<A, E>) => {
      settled = exit
      // What the receiver needs is in the context that the work has.
      return left ? (abandoned(exit, options) as Effect.Effect<void>) : undefined
    }
    const outer = fiber.getRef(CurrentCell)
    const held = holdUnsafe(fiber, name ?? "stopCancellation")
    // A caller is held until the receiver has run; where there is none, the body's end says the same for less.
    const ended = held === nobody ? settle : undefined
    const work = ended === undefined ? held.around(Effect.onExitPrimitive(self, settle)) : self
    const task = TaskScope.spawnUnsafe(owner, context, work, { name, outer, observed: always, ended })
    let running = task?.fiber
    if (running === undefined) {
      ownerClosedTotal.updateUnsafe(1, fiber.context)
      running = Child.forkUnsafe(
        context,
        new CancelCell("shield", { name, outer }),
        work,
        ended && { settle }
      )
    } else {
      // The owner may end while a scheduler holds the task up before its work.
      held.follow(running)
    }
    const exit = running.pollUnsafe()
    // In this very operation: between the two an interrupt would take the exit from the waiter.
    if (exit !== undefined && interruptsOfUnsafe(fiber) === undefined) return inlineUnsafe(fiber, exit)
    const started = running
    const masked = isMaskedUnsafe(fiber)
    return inlineUnsafe(
      fiber,
      Child.startAndAwait<A, E, A, E, R | R2 | Owner>(
        () => started,
        (exit) => exit,
        (running) => {
          if (masked) return Effect.void
          return Effect.flatMap(ownInterrupt, (own) => {
            // The work ended interrupted by itself: that exit was passed on, and nobody has left.
            if (own === undefined) return Effect.void
            if (settled === undefined) {
              left = true
              return task === undefined ? Child.awaitEnd(running) : Effect.void
            }
            // Settled, but its exit did not get through before the interrupt: the waiter sees to it that it is received.
            const received = abandoned(settled, options)
            const told = TaskScope.spawnUnsafe(owner, context, received, { name, observed: always })
            return told === undefined ? received : Effect.void
          })
        }
      )
    )
  })

/** The waiter or the receiver is told a failure; the owner does not report it again. */
const always = (): boolean => true

/**
 * What is done with an exit that the waiter of a {@link stopCancellation} did not get, for those who write one of their own.
 *
 * @stability internal
 * @since 0.1.0
 */
export const abandoned = <A, E, R>(
  exit: Exit.Exit<A, E>,
  options:
    | {
        readonly name?: string | undefined
        readonly onAbandoned?: ((exit: Exit.Exit<A, E>) => Effect.Effect<unknown, never, R>) | undefined
      }
    | undefined
): Effect.Effect<void, never, R> => {
  const receiver = options?.onAbandoned
  if (receiver !== undefined) return receive(() => receiver(exit), options?.name)
  return exit._tag === "Success" ? Effect.void : reportUnhandled("abandoned work", options?.name, exit.cause)
}
