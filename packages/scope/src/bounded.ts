import { attributes, type CancelReason, currentReason } from "@curfew/reason"
import { CancelCell, CurrentCell } from "@curfew/reason/CancelCell"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as References from "effect/References"
import { millisOf } from "./Argument.ts"
import * as child from "./internal/child.ts"
import { takePosition } from "./internal/source.ts"
import { reportUnhandled } from "./OnUnhandled.ts"
import { enterUnsafe, logStuck } from "./Stuck.ts"

/**
 * How long clean-up may take before it is left behind as stuck. Ten seconds by default: the usual grace between
 * the two signals of a process manager is ten to thirty, and the report has to be out before the second.
 *
 * **Example**
 *
 * ```ts
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import { CleanupBudget } from "@curfew/scope"
 *
 * const program = Effect.map(CleanupBudget, Duration.toMillis)
 * Effect.runSync(program) // => 10000
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const CleanupBudget: Context.Reference<Duration.Duration> = /* @__PURE__ */ Context.Reference(
  "@curfew/scope/CleanupBudget",
  { defaultValue: () => Duration.seconds(10) }
)

/**
 * Runs clean-up under a limit: `Some` with its result, or `None` when the budget was used up first.
 *
 * **Guarantees**
 *
 * - **Returns within the budget**: for every finalizer that yields the thread, `uninterruptible(never)` included.
 * - **Named culprit**: an overrun leaves exactly one record in {@link stuck}, which goes when the finalizer ends.
 * - **Itself within the budget**: result, failure and defect are the finalizer's own.
 * - **Nothing lost**: a failure after the budget reaches {@link OnUnhandled}.
 *
 * **When cancelled**
 *
 * Runs on: clean-up is not interrupted, neither by a cancel nor by its own budget.
 *
 * **Gotchas**
 *
 * A loop that never yields the thread cannot be left behind; only the end of the process ends it.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Latch from "effect/Latch"
 * import { bounded, stuck } from "@curfew/scope"
 *
 * const pool = Latch.makeUnsafe()
 * const hangs = bounded(pool.await, { within: "10 millis", name: "close the pool" })
 * const result = await Effect.runPromise(hangs)
 * result._tag // => "None"
 * Effect.runSync(Effect.map(stuck, (records) => records.map((record) => record.name))) // => ["close the pool"]
 *
 * pool.openUnsafe() // it ends after all, and its record goes
 * Effect.runSync(stuck) // => []
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const bounded = <A, E, R>(
  finalizer: Effect.Effect<A, E, R>,
  options?: { readonly within?: Duration.Input | undefined; readonly name?: string | undefined }
): Effect.Effect<Option.Option<A>, E, R> => {
  const position = takePosition(bounded)
  // Masked from the first operation on: clean-up that has begun is awaited, whoever cancels.
  return Effect.uninterruptible(
    Effect.withFiber((fiber) =>
      Effect.flatMap(currentReason, (reason) => start(fiber, Option.getOrUndefined(reason)))
    )
  )

  function start(
    waiter: Fiber.Fiber<unknown, unknown>,
    reason: CancelReason | undefined
  ): Effect.Effect<Option.Option<A>, E> {
    const given =
      options?.within === undefined ? undefined : millisOf("the budget of bounded", options.within)
    // Clean-up runs in any case: a budget that means nothing is told after it.
    if (typeof given === "object") {
      return Effect.andThen(limited(waiter, reason, waiter.getRef(CleanupBudget)), Effect.die(given))
    }
    return limited(
      waiter,
      reason,
      given === undefined ? waiter.getRef(CleanupBudget) : Duration.millis(given)
    )
  }

  function limited(
    waiter: Fiber.Fiber<unknown, unknown>,
    reason: CancelReason | undefined,
    within: Duration.Duration
  ): Effect.Effect<Option.Option<A>, E> {
    const clock = waiter.getRef(Clock.Clock)
    const startedAt = clock.currentTimeMillisUnsafe()
    let overrun = false
    let leave: (() => void) | undefined
    const work = Effect.onExitPrimitive(finalizer, (exit) => {
      leave?.()
      return overrun && exit._tag === "Failure"
        ? reportUnhandled("cleanup", options?.name, exit.cause, reason)
        : undefined
    })
    // A cell of its own: the clean-up stands in the live tree, and it can ask for the reason although its fiber is a
    // new one, which nobody interrupts.
    const cell = new CancelCell("cleanup", { name: options?.name, outer: waiter.getRef(CurrentCell) })
    cell.reason = reason
    const context = Context.add(saying(waiter.context, reason), CurrentCell, cell) as Context.Context<R>
    const running = child.startUnsafe(
      context,
      Effect.withFiber((own) => {
        cell.fiber = own
        return work
      }),
      { uninterruptible: true }
    )
    running.addObserver(() => cell.unlink())
    const ended = running.pollUnsafe()
    if (ended !== undefined) return Effect.map(ended, Option.some)
    return Effect.callback<Option.Option<A>, E>((resume) => {
      // Before the timer, which a clock may fire at once when the budget is zero.
      let timer: Fiber.Fiber<void> | undefined
      const remove = running.addObserver((exit) => {
        timer?.interruptUnsafe()
        resume(Effect.map(exit, Option.some))
      })
      if (running.pollUnsafe() !== undefined) return
      timer = child.startUnsafe(
        context,
        Effect.andThen(
          clock.sleep(within),
          Effect.sync(() => {
            overrun = true
            remove()
            cell.abandon()
            const record = {
              kind: "finalizer",
              name: options?.name,
              reason,
              span: waiter.cache.span?._tag === "Span" ? waiter.cache.span.name : undefined,
              startedAt,
              source: position()
            } as const
            leave = enterUnsafe(record, waiter.context)
            // The waiter logs it: masked, and before anybody goes on.
            resume(Effect.as(logStuck(record), Option.none()))
          })
        )
      )
    })
  }
}

/** The context in which clean-up logs: each line says why the work was cancelled. */
const saying = <R>(context: Context.Context<R>, reason: CancelReason | undefined): Context.Context<R> =>
  reason === undefined
    ? context
    : Context.add(context, References.CurrentLogAnnotations, {
        ...Context.get(context, References.CurrentLogAnnotations),
        ...attributes(reason)
      })
