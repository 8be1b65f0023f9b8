import type { CancelReason } from "@curfew/reason"
import { type Cell, CurrentCell, has, untaken } from "@curfew/reason/CancelCell"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { failureOf } from "./failureOf.ts"
import { bounding } from "./internal/bounding.ts"
import { countUnsafe, loggingWhy, named } from "./Stuck.ts"

/**
 * A failure that has no caller to go to: of a supervised task, of a sibling that failed second, of a clean-up, of
 * work whose waiter left.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Unhandled {
  /** What kind of work it was. */
  readonly origin: "task" | "sibling" | "cleanup" | "late result" | "abandoned work"
  readonly name: string | undefined
  /** Never empty and without interrupts: what was cancelled is not a failure. */
  readonly cause: Cause.Cause<unknown>
  /** Why the work was being cancelled at the time, if it was. */
  readonly reason: CancelReason | undefined
}

/**
 * The receiver of every failure that nobody waits for. The default logs an error with the cause.
 *
 * **Guarantees**
 *
 * - **Exactly once**: each failure reaches the receiver one time.
 * - **Never in the way**: a receiver that fails itself is logged and changes nothing. One that does not end within the
 *   {@link CleanupBudget} is left behind as stuck, by name.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { OnUnhandled, reportUnhandled } from "@curfew/scope"
 * import * as Cause from "effect/Cause"
 *
 * const seen: Array<string> = []
 * const program = reportUnhandled("task", "mailer", Cause.fail("no route")).pipe(
 *   Effect.provideService(OnUnhandled, (unhandled) => Effect.sync(() => seen.push(`${unhandled.name}`)))
 * )
 * Effect.runSync(program)
 * seen // => ["mailer"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const OnUnhandled: Context.Reference<(unhandled: Unhandled) => Effect.Effect<unknown>> =
  /* @__PURE__ */ Context.Reference("@curfew/scope/OnUnhandled", {
    defaultValue: () => (unhandled: Unhandled) =>
      loggingWhy(Effect.logError(sentence(unhandled), unhandled.cause), unhandled.reason)
  })

/**
 * How many failures nobody waited for, by the attributes `origin` and `reason`: why the work was being cancelled at the
 * time, or `none`. Counted whatever the {@link OnUnhandled} does with them.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const unhandledTotal: Metric.Counter<number> = /* @__PURE__ */ Metric.counter(
  "curfew_unhandled_total",
  {
    description: "Failures that nobody waited for.",
    incremental: true
  }
)

const sentence = ({ name, origin, reason }: Unhandled): string =>
  `Nobody waited for the failure of this ${named(origin, name)}${reason ? ` while it was being cancelled (${reason._tag})` : ""}.`

/**
 * Hands a failure to {@link OnUnhandled}. A cause of interrupts alone is not a failure and is dropped.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const reportUnhandled = (
  origin: Unhandled["origin"],
  name: string | undefined,
  cause: Cause.Cause<unknown>,
  reason?: CancelReason | undefined
): Effect.Effect<void> => {
  const failure = failureOf(cause)
  if (failure === undefined) return Effect.void
  return Effect.withFiber((fiber) => {
    const receive = fiber.getRef(OnUnhandled)
    if (origin !== "cleanup") mark(fiber.getRef(CurrentCell))
    countUnsafe(unhandledTotal, { origin }, reason, fiber.context)
    // What goes wrong in the receiver is caught inside the limit: reported, it would come back to the receiver.
    const received = Effect.catchCause(
      Effect.suspend(() => receive({ origin, name, cause: failure, reason })),
      (broken) => Effect.logError("The receiver of failures failed.", broken)
    )
    return Effect.asVoid(bounding(received, { name: `OnUnhandled for ${named(origin, name)}` }))
  })
}

const mark = (cell: Cell | undefined): void => {
  let work = cell
  // A receiver runs as clean-up of the work whose exit it is given.
  while (work?.kind === "cleanup") work = work.outer
  if (work !== undefined) work.flags |= untaken
}

/**
 * Whether a failure of the work that a cell stands for was handed to {@link OnUnhandled}: nobody has taken it.
 *
 * @stability internal
 * @since 0.1.0
 */
export const isUnhandledUnsafe = (cell: Cell): boolean => has(cell, untaken)
