import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { CancelReason } from "./CancelReason.ts"
import { inline } from "./internal/inline.ts"
import { CurrentCell, Interruption, reasonIn } from "./internal/keys.ts"
import { interruptsOfUnsafe } from "./internal/peek.ts"
import { pendingInterrupt, withPending } from "./internal/probe.ts"
import { unknown } from "./internal/unknown.ts"
import { listenOuter, outerReasonOf } from "./Outer.ts"

const none: Effect.Effect<Option.Option<CancelReason>> = /* @__PURE__ */ Effect.succeed(Option.none())

const reasonOf = (cause: Cause.Cause<unknown>): CancelReason => reasonIn(cause) ?? unknown

/**
 * The reason why the running work is being cancelled, or `None` when it is not.
 *
 * **Guarantees**
 *
 * - **Seen by every descendant**: a forked child, an item of a concurrent `all`, a side of a race and the body of
 *   a time-out read the reason of the nearest cancelled scope above them.
 * - **Stops at a shield or an owner**: work that is protected from a cancel does not see it here.
 * - **Native interrupts**: a fiber interrupted without Curfew reads `Unknown`.
 *
 * **When cancelled**
 *
 * Made to be read in finalizers and masks, where it gives the reason. Elsewhere the fiber ends first.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { currentReason } from "@curfew/reason"
 *
 * const program = Effect.map(currentReason, (reason) => reason._tag)
 * Effect.runSync(program) // => "None"
 * ```
 *
 * @see outerReason to look through a shield.
 * @stability unstable
 * @since 0.1.0
 */
export const currentReason: Effect.Effect<Option.Option<CancelReason>> = /* @__PURE__ */ Effect.withFiber(
  (fiber) => {
    const reason = fiber.getRef(CurrentCell)?.reason
    if (reason !== undefined) return Effect.succeed(Option.some(reason))
    return withPending(fiber, (cause) =>
      cause === undefined ? none : Effect.succeed(Option.some(reasonOf(cause)))
    )
  }
)

/**
 * The reason like {@link currentReason}, looking through shields and masks: the way in which protected work can
 * ask whether somebody still waits for it.
 *
 * **Guarantees**
 *
 * - **Through shields and masks**: the reason of the nearest cancelled scope above, whatever stands between.
 * - **Not through an owner**: background work has no caller to ask about.
 *
 * **When cancelled**
 *
 * Gives the reason where the fiber still runs: in a shield, a mask, a finalizer.
 *
 * @see awaitCancellation to wait for it.
 * @stability unstable
 * @since 0.1.0
 */
export const outerReason: Effect.Effect<Option.Option<CancelReason>> = /* @__PURE__ */ Effect.withFiber(
  (fiber) => {
    const cell = fiber.getRef(CurrentCell)
    const reason = cell && outerReasonOf(cell)
    return reason === undefined ? inline(fiber, currentReason) : Effect.succeed(Option.some(reason))
  }
)

/**
 * Whether the running work is being cancelled.
 *
 * **Guarantees**
 *
 * - **True in masks and finalizers**: where a cancelled fiber still runs, it knows.
 * - **False inside a shield**: what is protected is not being cancelled.
 *
 * **When cancelled**
 *
 * Outside a mask the fiber ends instead of answering.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { isCancelled } from "@curfew/reason"
 *
 * Effect.runSync(isCancelled) // => false
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const isCancelled: Effect.Effect<boolean> = /* @__PURE__ */ Effect.map(currentReason, Option.isSome)

/**
 * Waits until the running work, or anything above it, is cancelled, and gives the reason.
 *
 * **Guarantees**
 *
 * - **Resumes where it can**: inside a mask, inside a shield, and in a fiber that is not itself cancelled.
 * - **No ear left behind**: interrupting the wait removes its listener.
 *
 * **When cancelled**
 *
 * In an ordinary region the fiber ends by the very cancel it waits for; only masked or shielded work resumes.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const awaitCancellation: Effect.Effect<CancelReason> = /* @__PURE__ */ Effect.withFiber((fiber) => {
  const cell = fiber.getRef(CurrentCell)
  const wait: Effect.Effect<CancelReason> = Effect.callback((resume) => {
    const reason = cell && outerReasonOf(cell)
    if (reason !== undefined) {
      resume(Effect.succeed(reason))
      return
    }
    const remove = cell && listenOuter(cell, (heard) => resume(Effect.succeed(heard)))
    return Effect.sync(() => remove?.())
  })
  // In a mask the fiber's own interrupt, which may come without any cell, ends the wait and is recovered here.
  // Elsewhere the interrupt passes this by, as it does any handler.
  return Effect.matchCauseEffect(Effect.interruptible(wait), {
    onFailure: (cause) => Effect.succeed((cell && outerReasonOf(cell)) ?? reasonOf(cause)),
    onSuccess: (reason) => Effect.succeed(reason)
  })
})

/**
 * The own cancellation that an exit shows, with its reason: `Some` iff the exit is a failure by an interrupt that
 * was aimed at the running fiber. `None` for a success, a failure, a defect, and for an interrupt that came in
 * through a join or a child that somebody else stopped.
 *
 * For finalizers, which run masked. A finalizer may run in a fiber of its own, as several of them do in a parallel
 * `Scope`; there it knows a cancel by Curfew's reason, and a native interrupt when it is given the fiber that set it up
 * as `owner`, as long as that fiber has not ended.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Exit from "effect/Exit"
 * import { ownCancellation } from "@curfew/reason"
 *
 * const program = Effect.map(ownCancellation(Exit.interrupt(7)), (own) => own._tag)
 * Effect.runSync(program) // => "None"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const ownCancellation = (
  exit: Exit.Exit<unknown, unknown>,
  owner?: Fiber.Fiber<unknown, unknown> | undefined
): Effect.Effect<Option.Option<CancelReason>> => {
  if (exit._tag === "Success" || !Cause.hasInterrupts(exit.cause)) return none
  const { cause } = exit
  return Effect.withFiber((fiber) =>
    withPending(fiber, (interrupt) => {
      const pending = interrupt ?? interruptsOfLive(owner)
      const reason = fiber.getRef(CurrentCell)?.reason
      // In a fiber of its own, as in a parallel `Scope`, the reason tells a finalizer whose cancel it is.
      const own =
        pending?.reasons.some((reason) => cause.reasons.includes(reason)) === true ||
        (reason !== undefined && cause.reasons.some((r) => r.annotations.get(Interruption.key) === reason))
      if (!own) return none
      return Effect.succeed(Option.some(reason ?? (pending === undefined ? unknown : reasonOf(pending))))
    })
  )
}

/** A fiber that has ended is not the one that waits for its finalizers: its interrupts came to others as foreign ones. */
const interruptsOfLive = (fiber: Fiber.Fiber<unknown, unknown> | undefined) =>
  fiber === undefined || fiber.pollUnsafe() !== undefined ? undefined : interruptsOfUnsafe(fiber)

/**
 * The cause of the running fiber's own pending interrupt, or `undefined` when nobody interrupted it. For
 * finalizers and masks; elsewhere the fiber ends here instead of answering.
 *
 * @stability internal
 * @since 0.1.0
 */
export const ownInterrupt: Effect.Effect<Cause.Cause<never> | undefined> = pendingInterrupt
