/**
 * Clean-up under a limit: what `bounded`, guards, receivers and reports share.
 *
 * Invariants
 * 1. The work runs masked, in a fiber of its own, from the first operation of the call on: clean-up that has begun is
 *    awaited, whoever cancels.
 * 2. The waiter goes on when the work has ended or the budget is used up, whichever comes first, and once.
 * 3. An overrun stands in the stuck registry from the moment the waiter goes on until the work ends
 *    and what it failed with is told.
 * 4. What the work fails with is the waiter's, or `tell`'s once nobody waits any more.
 * 5. Depth costs no stack.
 */
import type { CancelReason } from "@curfew/reason"
import { Cell, CurrentCell, maskedReasonUnsafe } from "@curfew/reason/CancelCell"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { CleanupBudget } from "../CleanupBudget.ts"
import { enterUnsafe, loggingWhy, logStuck } from "../Stuck.ts"
import * as child from "./child.ts"
import { endedWithin } from "./timer.ts"

interface Bounds {
  /** Default: the budget of the waiter. */
  readonly budget?: Duration.Duration | undefined
  readonly name?: string | undefined
  readonly source?: (() => string | undefined) | undefined
}

type Tell = (cause: Cause.Cause<unknown>, reason: CancelReason | undefined) => Effect.Effect<void>

export const bounding = <A, E, R>(
  work: Effect.Effect<A, E, R>,
  bounds: Bounds,
  tell?: Tell
): Effect.Effect<Option.Option<A>, E, R> => {
  // What has ended already needs neither a limit nor a fiber to keep it in.
  if (Exit.isExit(work) && bounds.budget === undefined)
    return Effect.map(work as Effect.Effect<A, E, R>, Option.some)
  return Effect.uninterruptible(
    Effect.withFiber((fiber) => limited(fiber, work, bounds, maskedReasonUnsafe(fiber), tell))
  )
}

const limited = <A, E, R>(
  waiter: Fiber.Fiber<unknown, unknown>,
  finalizer: Effect.Effect<A, E, R>,
  { budget, name, source }: Bounds,
  reason: CancelReason | undefined,
  tell: Tell | undefined
): Effect.Effect<Option.Option<A>, E> => {
  const work = loggingWhy(finalizer, reason)
  // A cell of its own: the clean-up stands in the live tree, and it can ask for the reason although its fiber is a
  // new one, which nobody interrupts.
  const cell = new Cell("cleanup", { name, outer: waiter.getRef(CurrentCell) })
  cell.reason = reason
  const context = Context.add(waiter.context, CurrentCell, cell) as Context.Context<R>
  const deep = child.isDeep()
  const running = child.startUnsafe(
    context,
    Effect.withFiber<A, E, R>((own) => {
      cell.fiber = own
      return deep ? Effect.andThen(Effect.yieldNow, work) : work
    }),
    masked
  )
  const ended = running.pollUnsafe()
  if (ended !== undefined) {
    cell.unlink()
    return Exit.map(ended, Option.some)
  }
  running.addObserver(() => cell.unlink())
  return endedWithin<Option.Option<A>, E>(
    budget ?? waiter.getRef(CleanupBudget),
    (told) => running.addObserver((exit) => told(Exit.map(exit, Option.some))),
    (startedAt) => {
      cell.abandon()
      const record = {
        kind: "finalizer",
        name,
        reason,
        span: waiter.cache.span?._tag === "Span" ? waiter.cache.span.name : undefined,
        startedAt,
        source: source?.()
      } as const
      const leave = enterUnsafe(record, waiter.context)
      running.addObserver((exit) => {
        const telling = exit._tag === "Failure" ? tell?.(exit.cause, reason) : undefined
        // Under a limit of its own, as all that is told is, and in the registry until then: nobody else waits for it.
        if (telling === undefined) leave()
        else child.startUnsafe(context, telling, masked).addObserver(leave)
      })
      // The waiter logs it: masked, and before anybody goes on.
      return Effect.as(logStuck(record), Option.none())
    }
  )
}

const masked = { uninterruptible: true }
