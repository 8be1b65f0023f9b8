/**
 * How an interrupt reaches a fiber in two steps: made pending first, run later.
 *
 * `Fiber.interruptUnsafe` on a suspended fiber runs that fiber's finalizers before it returns. A cancel that
 * interrupts many fibers one after the other would therefore let the first one's finalizer wake the second one,
 * which then runs on as if nobody had cancelled it. So the interrupt is first made pending in all of them.
 *
 * This is the only module that looks behind Effect's public interface (`interruptible`, `_running`,
 * `_deferredInterrupt`, `evaluate` of the fiber). `test/pinned.test.ts` fails when an upgrade changes them.
 *
 * Invariants
 * 1. After `pend` the fiber cannot run an ordinary operation outside a mask before it meets the interrupt.
 * 2. `deliver` wakes a fiber only if the interrupt that `pend` left is still waiting: a fiber that has met it in
 *    the meantime may be suspended in a finalizer, which must not be resumed from here.
 * 3. A fiber is interrupted once per cancel: `deliver` uses `interruptUnsafe` only where `pend` could not.
 * 4. Where the fiber does not look as expected, both steps fall back to the public call, and the order between
 *    the fibers of one cancel is then Effect's.
 */
import type * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"

interface FiberInternals {
  readonly interruptible?: boolean
  _running?: boolean
  _deferredInterrupt?: boolean
  readonly evaluate?: (effect: unknown) => void
}

export const isMasked = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  (fiber as FiberInternals).interruptible === false

/** Returns true when `deliver` has to follow. */
export const pend = (fiber: Fiber.Fiber<unknown, unknown>, annotations: Context.Context<never>): boolean => {
  const internals = fiber as FiberInternals
  const suspended =
    internals._running === false && internals.interruptible === true && fiber.pollUnsafe() === undefined
  if (!suspended) {
    fiber.interruptUnsafe(undefined, annotations)
    return false
  }
  if (internals._deferredInterrupt !== false || typeof internals.evaluate !== "function") return true
  // A running fiber keeps the interrupt for its next operation; a suspended one that claims to run does the same.
  internals._running = true
  try {
    fiber.interruptUnsafe(undefined, annotations)
  } finally {
    internals._running = false
  }
  return true
}

export const deliver = (fiber: Fiber.Fiber<unknown, unknown>, annotations: Context.Context<never>): void => {
  const internals = fiber as FiberInternals
  if (typeof internals.evaluate !== "function") {
    fiber.interruptUnsafe(undefined, annotations)
    return
  }
  if (internals._deferredInterrupt === true && internals._running === false) internals.evaluate(Exit.void)
}
