/**
 * How an interrupt reaches a fiber in two steps: made pending first, run later.
 *
 * `Fiber.interruptUnsafe` on a suspended fiber runs that fiber's finalizers before it returns. A cancel that
 * interrupts many fibers one after the other would therefore let the first one's finalizer wake the second one,
 * which then runs on as if nobody had cancelled it. So the interrupt is first made pending in all of them.
 *
 * With `peek.ts`, which only reads, this is the only module that looks behind Effect's public interface (`interruptible`, `_running`,
 * `_deferredInterrupt`, `_interruptedCause`, `evaluate` and the constructor of the fiber, and `evaluate` of an effect).
 * `test/pinned.test.ts` fails when an upgrade changes them.
 *
 * Invariants
 * 1. After `pend` the fiber cannot run an ordinary operation outside a mask before it meets the interrupt.
 * 2. `deliver` wakes a fiber only if the interrupt that `pend` left is still waiting: a fiber that has met it in
 *    the meantime may be suspended in a finalizer, which must not be resumed from here.
 * 3. A fiber is interrupted once per cancel: `deliver` uses `interruptUnsafe` only where `pend` could not.
 * 4. The fibers of one cancel share the cause of their interrupt. One that was interrupted before, or that names its
 *    stack frames in its causes, gets one of its own.
 * 5. Where the fiber does not look as expected, both steps fall back to the public call, and the order between
 *    the fibers of one cancel is then Effect's.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { CancelReason } from "../CancelReason.ts"

interface FiberInternals {
  readonly interruptible?: boolean
  _running?: boolean
  _deferredInterrupt?: boolean
  _interruptedCause?: Cause.Cause<never> | undefined
  readonly evaluate?: (effect: unknown) => void
}

const evaluate = "~effect/Effect/evaluate"

/**
 * Work that calls back when it begins: the call and the first operation of the work are one operation, so that no
 * scheduler holds the fiber up between them. Where an effect does not look as expected they are two.
 */
export const tellingBegin = <A, E, R>(
  work: Effect.Effect<A, E, R>,
  begun: () => void
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    begun()
    const primitive = work as unknown as {
      readonly [evaluate]?: (fiber: Fiber.Fiber<unknown, unknown>) => Effect.Effect<A, E, R>
    }
    return typeof primitive[evaluate] === "function" ? primitive[evaluate](fiber) : work
  })

/** What an interrupt says, made once for all the fibers that a cancel reaches. */
export interface Notice {
  readonly annotations: Context.Context<never>
  readonly cause: Cause.Cause<never>
}

let lastReason: CancelReason | undefined
let last: Notice | undefined

/** What an interrupt for this reason says. */
export const noticeOf = <I>(reason: CancelReason, key: Context.Key<I, CancelReason>): Notice => {
  if (reason === lastReason) return last as Notice
  const annotations = Context.make(key, reason) as Context.Context<never>
  const notice = { annotations, cause: Cause.annotate(Cause.interrupt(), annotations) }
  // Whole programs cancel for one reason; but what a failure holds is not kept for that.
  if (reason._tag !== "SiblingFailed") {
    lastReason = reason
    last = notice
  }
  return notice
}

/** Returns true when `deliver` has to follow. */
export const pend = (fiber: Fiber.Fiber<unknown, unknown>, { annotations, cause }: Notice): boolean => {
  const internals = fiber as FiberInternals
  const { interruptible } = internals
  const running = internals._running
  const ended = fiber.pollUnsafe() !== undefined
  if (
    ended ||
    typeof interruptible !== "boolean" ||
    typeof running !== "boolean" ||
    typeof internals._deferredInterrupt !== "boolean" ||
    typeof internals.evaluate !== "function"
  ) {
    if (!ended && running === false && interruptible === true) return true
    fiber.interruptUnsafe(undefined, annotations)
    return false
  }
  const suspended = !running && interruptible
  if (suspended && internals._deferredInterrupt) return true
  if (internals._interruptedCause === undefined && fiber.cache.stackFrame === undefined) {
    // What the public call comes to, with a cause that is made once for all: making it costs more than the interrupt.
    internals._interruptedCause = cause
    if (interruptible) internals._deferredInterrupt = true
    return suspended
  }
  // A running fiber keeps the interrupt for its next operation; a suspended one that claims to run does the same.
  internals._running = running || suspended
  try {
    fiber.interruptUnsafe(undefined, annotations)
  } finally {
    internals._running = running
  }
  return suspended
}

export const deliver = (fiber: Fiber.Fiber<unknown, unknown>, { annotations }: Notice): void => {
  const internals = fiber as FiberInternals
  if (typeof internals.evaluate !== "function" || typeof internals._deferredInterrupt !== "boolean") {
    fiber.interruptUnsafe(undefined, annotations)
    return
  }
  if (internals._deferredInterrupt === true && internals._running === false) internals.evaluate(Exit.void)
}

type MakeFiber = new (
  context: Context.Context<never>,
  interruptible: boolean
) => Fiber.Fiber<unknown, unknown> & { readonly evaluate: (effect: unknown) => void }

let Made: MakeFiber | undefined

/**
 * Starts an effect at once in a fiber that is known to `before` before its first operation. Effect's own way to start one
 * gives the fiber away when it has run up to its first suspension; until it has done so once, or where a fiber does not
 * look as expected, `otherwise` starts the effect.
 */
export const startKnown = <A, E>(
  context: Context.Context<never>,
  work: Effect.Effect<A, E>,
  before: { fiber: Fiber.Fiber<unknown, unknown> | undefined },
  otherwise: () => Fiber.Fiber<A, E>
): Fiber.Fiber<A, E> => {
  if (Made === undefined) {
    const fiber = otherwise()
    const made = fiber.constructor as unknown as MakeFiber
    if (typeof made === "function" && typeof made.prototype.evaluate === "function") Made = made
    return fiber
  }
  const fiber = new Made(context, true)
  before.fiber = fiber
  fiber.evaluate(work)
  return fiber as Fiber.Fiber<A, E>
}
