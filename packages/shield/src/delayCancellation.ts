import { CancelReason, currentReason, ownInterrupt } from "@curfew/reason"
import { CancelCell, CurrentCell, isMaskedUnsafe } from "@curfew/reason/CancelCell"
import { reportUnhandled } from "@curfew/scope"
import { millisUnsafe } from "@curfew/scope/Argument"
import { holdUnsafe } from "@curfew/scope/Caller"
import * as Child from "@curfew/scope/Child"
import { receive } from "@curfew/scope/LateResult"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"

/**
 * Protects the work from its waiter's cancellation and keeps the waiter until the work has settled.
 *
 * **Guarantees**
 *
 * - **Identity (L9)**: when nobody cancels, value, typed error and defect are the work's own. Children that the
 *   work forks belong to the shield and end with it.
 * - **Waits (L11)**: a cancelled waiter returns only after the work has settled, with a pure interrupt; `onLate`
 *   then got the work's real exit, exactly once. A second cancel changes nothing.
 * - **Grace (L11)**: with `grace`, the work itself is cancelled that long after its waiter, with the same reason.
 * - **Masks (L11b)**: inside an outer mask the real exit is returned and `onLate` is not called.
 * - **Not pierced (L12)**: an inner `Effect.interruptible` does not let the cancel in.
 * - **Own interrupts pass (L13)**: work that ends interrupted by itself, while nobody cancelled the waiter, passes
 *   through as it is.
 * - **No road in (L44)**: nor do inner scopes, signals and deadlines; what is inside can ask with `outerReason`.
 *
 * **When cancelled**
 *
 * Goes on until the work has settled, or the grace is over and the work's clean-up has run.
 *
 * **Gotchas**
 *
 * A fiber that the work forks and returns is over when it is returned: it was the shield's child.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelScope } from "@curfew/scope"
 * import { delayCancellation } from "@curfew/shield"
 *
 * const late: Array<string> = []
 * const write = Effect.as(Effect.sleep("5 millis"), "written")
 * const program = CancelScope.run((scope) =>
 *   Effect.andThen(
 *     Effect.forkChild(Effect.delay(scope.cancel(), "1 millis")),
 *     delayCancellation(write, { onLate: (exit) => Effect.sync(() => late.push(exit._tag)) })
 *   )
 * )
 * const outcome = await Effect.runPromise(program)
 * outcome._tag // => "Cancelled"
 * late // => ["Success"]
 * ```
 *
 * @see stopCancellation where the waiter shall not wait.
 * @stability unstable
 * @since 0.1.0
 */
export const delayCancellation = <A, E, R, R2 = never>(
  self: Effect.Effect<A, E, R>,
  options?: {
    /** Stands in the live tree. */
    readonly name?: string | undefined
    /** How long after its waiter's cancel the work is cancelled too. Default: never. */
    readonly grace?: Duration.Input | undefined
    /**
     * Receives the exit that the cancelled waiter could not. Masked, within the clean-up budget. Default: a failure
     * reaches {@link OnUnhandled} once and a success is dropped.
     */
    readonly onLate?: ((exit: Exit.Exit<A, E>) => Effect.Effect<unknown, never, R2>) | undefined
  }
): Effect.Effect<A, E, R | R2> =>
  Effect.withFiber((fiber) => {
    const masked = isMaskedUnsafe(fiber)
    const grace =
      options?.grace === undefined
        ? Number.POSITIVE_INFINITY
        : millisUnsafe("the grace of delayCancellation", options.grace)
    let cell!: CancelCell
    return Child.startAndAwait<A, E, A, E, R | R2>(
      () => {
        const held = holdUnsafe(fiber, options?.name ?? "delayCancellation")
        cell = new CancelCell("shield", { name: options?.name, outer: fiber.getRef(CurrentCell) })
        const running = Child.forkUnsafe(fiber.context as Context.Context<R>, cell, held.around(self))
        held.follow(running)
        return running
      },
      (exit) => exit,
      (running) => {
        if (masked) return Effect.void
        return Effect.flatMap(ownInterrupt, (own) => {
          // The work ended interrupted by itself: that exit was passed on, and nothing is late.
          if (own === undefined && running.pollUnsafe() !== undefined) return Effect.void
          const settled = awaitWithGrace(running, cell, grace)
          const late = (): Exit.Exit<A, E> => running.pollUnsafe() as Exit.Exit<A, E>
          const onLate = options?.onLate
          return Effect.andThen(
            settled,
            onLate === undefined
              ? Effect.suspend(() => reportFailure(late()))
              : receive(() => onLate(late()), "delayCancellation")
          )
        })
      }
    )
  })

const reportFailure = (exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
  exit._tag === "Success" ? Effect.void : reportUnhandled("late result", "delayCancellation", exit.cause)

const awaitWithGrace = (
  running: Fiber.Fiber<unknown, unknown>,
  cell: CancelCell,
  millis: number
): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    if (running.pollUnsafe() !== undefined || millis === Number.POSITIVE_INFINITY)
      return Child.awaitEnd(running)
    return Effect.flatMap(currentReason, (reason) => {
      const disarm = Child.armUnsafe(fiber.context, fiber.getRef(Clock.Clock), millis, () =>
        cell.cancel(Option.getOrElse(reason, CancelReason.Unknown))
      )
      return Effect.andThen(Child.awaitEnd(running), Effect.sync(disarm))
    })
  })
