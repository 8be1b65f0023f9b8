/**
 * How an interrupt reaches a fiber in two steps: made pending first, run later.
 *
 * `Fiber.interruptUnsafe` on a suspended fiber runs that fiber's finalizers before it returns. A cancel that
 * interrupts many fibers one after the other would therefore let the first one's finalizer wake the second one,
 * which then runs on as if nobody had cancelled it. So the interrupt is first made pending in all of them.
 *
 * With `peek.ts` and `inline.ts`, this is the only module that looks behind Effect's public interface (`interruptible`,
 * `_running`, `_deferredInterrupt`, `_interruptedCause`, `evaluate`, `runLoop` and the constructor of the fiber, where
 * it keeps its `context`, and `evaluate` of an effect). `test/pinned.test.ts` fails when an upgrade changes them.
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
 * 6. Each body that `startKnown` or `startEntering` starts is told to its `Body` once, before its children are cleaned up;
 *    also one that was interrupted before its first operation.
 * 7. What reads the context of a fiber that `startEntering` starts reads what `enter` gives, whoever it is and whenever.
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

/** Who is told how a body ended. */
export interface Body<in A = never, in E = never> {
  /** Called masked; what it gives runs masked, before the fiber ends. */
  readonly settle: (exit: Exit.Exit<A, E>) => Effect.Effect<void> | undefined
}

/** A body that is told its fiber before the first operation, and makes its context when somebody first reads it. */
export interface Entering<in A = never, in E = never> extends Body<A, E> {
  fiber: Fiber.Fiber<unknown, unknown>
  readonly enter: (given: Context.Context<never>) => Context.Context<never>
}

interface MadeFiber extends Fiber.Fiber<unknown, unknown> {
  evaluate(effect: unknown): void
  /** Runs on until the fiber waits, which a symbol says, or has run all it has; its children are cleaned up after that. */
  runLoop(effect: unknown): Exit.Exit<unknown, unknown> | symbol
  /** Of those that are told: the context, and who makes the one that is read, until somebody does. */
  given?: Context.Context<never>
  entering?: Entering | undefined
}

type MakeFiber = new (context: Context.Context<never>, interruptible: boolean) => MadeFiber
type MakeTelling = new (
  context: Context.Context<never>,
  interruptible: boolean,
  body: Body<unknown, unknown>
) => MadeFiber

let Made: MakeFiber | undefined
let Telling: MakeTelling | undefined
let entersLate = false
const kept: Array<unknown> = []

/** Keeps one of a class for good: while none is alive a collection forgets what they look like, and the code made for them. */
export const keep = (one: unknown): void => {
  kept.push(one)
}

/** What is left to run for the end of a body, with its exit. */
const settled = (
  body: Body<unknown, unknown>,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<unknown, unknown> | undefined => {
  try {
    const more = body.settle(exit)
    return more && Effect.onExitPrimitive(exit, () => more)
  } catch (defect) {
    return Effect.onExitPrimitive(exit, () => Effect.die(defect))
  }
}

/** Learns from any fiber how fibers are made. */
export const learn = (fiber: Fiber.Fiber<unknown, unknown>): void => {
  const Found = fiber.constructor as unknown as MakeFiber
  if (typeof Found !== "function") return
  const { evaluate, runLoop } = Found.prototype as Partial<MadeFiber>
  if (typeof evaluate !== "function" || typeof runLoop !== "function") return
  Made = Found
  // A finalizer around the body would do the same, at the price of a function, a frame and a stack for it in each fiber.
  Telling = class extends Found {
    declare body: Body<unknown, unknown> | undefined

    constructor(context: Context.Context<never>, interruptible: boolean, body: Body<unknown, unknown>) {
      super(context, interruptible)
      this.body = body
    }

    override runLoop(effect: unknown): Exit.Exit<unknown, unknown> | symbol {
      const exit = runLoop.call(this, effect)
      const { body } = this
      if (body === undefined || typeof exit === "symbol") return exit
      this.body = undefined
      const internals = this as { interruptible?: boolean | undefined }
      const { interruptible } = internals
      internals.interruptible = false
      const more = settled(body, exit)
      if (more === undefined) {
        internals.interruptible = interruptible
        return exit
      }
      // Masked from its first operation on: what is to be run for the end of a body is run.
      return runLoop.call(
        this,
        Effect.onExitPrimitive(more, () => {
          internals.interruptible = interruptible
          return undefined
        })
      )
    }
  }
  // Work that ends at once mostly reads no context. What is given when the fiber is made or is set later is read as it is.
  Object.defineProperty(Telling.prototype, "context", {
    get(this: MadeFiber & { context: Context.Context<never> }) {
      const { entering, given } = this
      if (entering === undefined) return given
      const context = entering.enter(given as Context.Context<never>)
      this.context = context
      return context
    },
    set(this: MadeFiber, context: Context.Context<never>) {
      this.given = context
      this.entering = undefined
    }
  })
  const empty = Context.empty()
  const one = new Telling(empty, true, { settle: () => undefined })
  // Where fibers keep their context otherwise it is made before they are.
  entersLate = one.given === empty && !Object.hasOwn(one, "context")
  keepEffects(one)
}

/** Keeps what Effect makes for work that runs and waits: a fiber for good, which waits for nothing, and one of each operation. */
const keepEffects = (fiber: MadeFiber): void => {
  const more = () => Effect.void
  const waits = Effect.callback<void>(more)
  keep([
    fiber,
    waits,
    Effect.withFiber(more),
    Effect.suspend(more),
    Effect.sync(more),
    Effect.flatMap(waits, more),
    Effect.onExitPrimitive(waits, more),
    Effect.fail(undefined)
  ])
  fiber.evaluate(Effect.scoped(Effect.uninterruptibleMask((restore) => Effect.exit(restore(waits)))))
}

/**
 * Starts an effect at once in a fiber that its body knows before the first operation, and whose context is made when it is
 * first read. `undefined` where that cannot be had.
 */
export const startEntering = (
  given: Context.Context<never>,
  work: Effect.Effect<unknown, unknown>,
  body: Entering<unknown, unknown>
): Fiber.Fiber<unknown, unknown> | undefined => {
  if (Telling === undefined || !entersLate) return undefined
  const fiber = new Telling(given, true, body)
  fiber.entering = body as Entering
  body.fiber = fiber
  fiber.evaluate(work)
  return fiber
}

/**
 * Starts an effect at once in a fiber that is known to `cell` before its first operation: Effect's own way to start one gives
 * the fiber away when it has run up to its first suspension. Where the cell is cancelled already no operation runs.
 * `undefined` before anything was learned, and where a fiber does not look as expected.
 */
export const startKnown = <I>(
  context: Context.Context<never>,
  work: Effect.Effect<unknown, unknown>,
  cell: { fiber: Fiber.Fiber<unknown, unknown> | undefined; readonly reason: CancelReason | undefined },
  key: Context.Key<I, CancelReason>,
  body: Body<unknown, unknown> | undefined
): Fiber.Fiber<unknown, unknown> | undefined => {
  if (Made === undefined || Telling === undefined) return undefined
  const fiber = body === undefined ? new Made(context, true) : new Telling(context, true, body)
  cell.fiber = fiber
  if (cell.reason === undefined) fiber.evaluate(work)
  else fiber.interruptUnsafe(undefined, noticeOf(cell.reason, key).annotations)
  return fiber
}
