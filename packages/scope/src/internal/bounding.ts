/**
 * Clean-up under a limit: what `bounded`, guards, receivers and reports share.
 *
 * Invariants
 * 1. The work runs masked, in a fiber of its own, from the first operation of the call on: clean-up that has begun is
 *    awaited, whoever cancels.
 * 2. The waiter goes on when the work has ended or the budget is used up, whichever comes first, and once.
 * 3. An overrun stands in the stuck registry from the moment the waiter goes on until the work ends.
 * 4. What the work fails with is the waiter's, or `tell`'s once nobody waits any more.
 * 5. Depth costs no stack.
 */
import { attributes, type CancelReason, currentReason } from "@curfew/reason"
import { type Body, CancelCell, CurrentCell, interruptsOfUnsafe } from "@curfew/reason/CancelCell"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as References from "effect/References"
import { millisOf } from "../Argument.ts"
import { CleanupBudget } from "../CleanupBudget.ts"
import { enterUnsafe, logStuck } from "../Stuck.ts"
import * as child from "./child.ts"
import { endedWithin } from "./endedWithin.ts"

interface Bounds {
  readonly within?: Duration.Input | undefined
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
  if (Exit.isExit(work) && bounds.within === undefined)
    return Effect.map(work as Effect.Effect<A, E, R>, Option.some)
  return Effect.uninterruptible(
    Effect.withFiber((fiber) => {
      const reason = fiber.getRef(CurrentCell)?.reason
      // Without a cell it takes a look at the interrupts, which only who has been interrupted needs.
      return reason !== undefined || interruptsOfUnsafe(fiber) === undefined
        ? start(fiber, work, bounds, reason, tell)
        : Effect.flatMap(currentReason, (own) => start(fiber, work, bounds, Option.getOrUndefined(own), tell))
    })
  )
}

const start = <A, E, R>(
  waiter: Fiber.Fiber<unknown, unknown>,
  finalizer: Effect.Effect<A, E, R>,
  bounds: Bounds,
  reason: CancelReason | undefined,
  tell: Tell | undefined
): Effect.Effect<Option.Option<A>, E> => {
  const given = bounds.within === undefined ? undefined : millisOf("the budget of bounded", bounds.within)
  const limited = limit(
    waiter,
    finalizer,
    bounds,
    typeof given === "number" ? given : undefined,
    reason,
    tell
  )
  // Clean-up runs in any case: a budget that means nothing is told after it.
  return given === undefined || typeof given === "number"
    ? limited
    : Effect.andThen(limited, Effect.die(given))
}

/** The end of clean-up that may have overrun its budget by then. */
class Bounded<A, E> implements Body<A, E> {
  readonly reason: CancelReason | undefined
  readonly tell: Tell | undefined
  /** Takes it out of the stuck registry; set when it overran. */
  leave: (() => void) | undefined = undefined

  constructor(reason: CancelReason | undefined, tell: Tell | undefined) {
    this.reason = reason
    this.tell = tell
  }

  settle(exit: Exit.Exit<A, E>): Effect.Effect<void> | undefined {
    if (this.leave === undefined) return undefined
    this.leave()
    return exit._tag === "Failure" ? this.tell?.(exit.cause, this.reason) : undefined
  }
}

const limit = <A, E, R>(
  waiter: Fiber.Fiber<unknown, unknown>,
  finalizer: Effect.Effect<A, E, R>,
  bounds: Bounds,
  millis: number | undefined,
  reason: CancelReason | undefined,
  tell: Tell | undefined
): Effect.Effect<Option.Option<A>, E> => {
  // A cell of its own: the clean-up stands in the live tree, and it can ask for the reason although its fiber is a
  // new one, which nobody interrupts.
  const cell = new CancelCell("cleanup", { name: bounds.name, outer: waiter.getRef(CurrentCell) })
  cell.reason = reason
  const end = new Bounded<A, E>(reason, tell)
  const context = saying(waiter.context, reason) as Context.Context<R>
  const running = child.startUnder(context, cell, finalizer, end, true)
  const ended = running.pollUnsafe()
  if (ended !== undefined) {
    cell.unlink()
    return Exit.map(ended, Option.some)
  }
  running.addObserver(() => cell.unlink())
  const budget = millis === undefined ? waiter.getRef(CleanupBudget) : Duration.millis(millis)
  return endedWithin<Option.Option<A>, E>(
    budget,
    (told) => running.addObserver((exit) => told(Exit.map(exit, Option.some))),
    (startedAt) => {
      const record = {
        kind: "finalizer",
        name: bounds.name,
        reason,
        span: waiter.cache.span?._tag === "Span" ? waiter.cache.span.name : undefined,
        startedAt,
        source: bounds.source?.()
      } as const
      cell.abandon()
      end.leave = enterUnsafe(record, waiter.context)
      // The waiter logs it: masked, and before anybody goes on.
      return Effect.as(logStuck(record), Option.none())
    }
  )
}

/** The context in which clean-up logs: each line says why the work was cancelled. */
const saying = <R>(context: Context.Context<R>, reason: CancelReason | undefined): Context.Context<R> =>
  reason === undefined
    ? context
    : Context.add(context, References.CurrentLogAnnotations, {
        ...Context.get(context, References.CurrentLogAnnotations),
        ...attributes(reason)
      })
