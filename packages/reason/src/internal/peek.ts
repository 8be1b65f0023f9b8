/**
 * Looking at a fiber without asking it: two names behind Effect's public interface, pinned with those of `delivery.ts`.
 *
 * Invariants
 * 1. Nothing is changed here.
 */
import type * as Cause from "effect/Cause"
import type * as Fiber from "effect/Fiber"
import type { CancelReason } from "../CancelReason.ts"
import { CurrentCell, reasonIn } from "./keys.ts"
import { unknown } from "./unknown.ts"

interface FiberInternals {
  readonly interruptible?: boolean
  readonly _interruptedCause?: Cause.Cause<never> | undefined
}

/**
 * Tells whether the fiber is inside an uninterruptible region at this moment: a mask or a finalizer.
 *
 * @stability internal
 * @since 0.1.0
 */
export const isMaskedUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  (fiber as FiberInternals).interruptible === false

/**
 * The interrupts that were aimed at the fiber so far, or `undefined`.
 *
 * @stability internal
 * @since 0.1.0
 */
export const interruptsOfUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): Cause.Cause<never> | undefined =>
  (fiber as FiberInternals)._interruptedCause

const nothing = { cause: undefined }

/**
 * What would come out of an interruptible region here and now, or `undefined` where only such a region can tell: outside of a
 * mask the fiber would end by its interrupt.
 */
export const saysInterrupts = (
  fiber: Fiber.Fiber<unknown, unknown>
): { readonly cause: Cause.Cause<never> | undefined } | undefined => {
  const { interruptible, _interruptedCause: cause } = fiber as FiberInternals
  if (typeof interruptible !== "boolean" || !("_interruptedCause" in fiber)) return undefined
  if (cause === undefined) return nothing
  return interruptible ? undefined : { cause }
}

/**
 * The reason why the fiber, which stands in a mask, is being cancelled: there asking takes no operation.
 *
 * @stability internal
 * @since 0.1.0
 */
export const maskedReasonUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): CancelReason | undefined => {
  const pending = interruptsOfUnsafe(fiber)
  return fiber.getRef(CurrentCell)?.reason ?? (pending && (reasonIn(pending) ?? unknown))
}
