/**
 * Forking a child under a cell, and waiting for it. The only place in this package where a fiber starts.
 *
 * Invariants
 * 1. Whoever forks a child here waits for it, hands it to a task scope, or enters it into the stuck registry.
 * 2. A cell knows its fiber before the first operation of the work, so that work which cancels its own scope at
 *    once is interrupted like any other; a cancel that comes still earlier ends the fiber before that operation.
 * 3. Starting a child and beginning to wait for it are one operation (`startAndAwait`): an interrupt cannot fall
 *    between them.
 * 4. The cell of a forked child leaves the tree when the child's fiber has ended.
 * 5. Depth costs no stack: after `maxNested` synchronous starts or ends inside one another the next one goes
 *    through the dispatcher.
 */
import { type CancelCell, CurrentCell, Interruption, startKnownUnsafe } from "@curfew/reason/CancelCell"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"

// A synchronous start or end takes about ten frames of the engine's own and whatever the user's program adds; the
// engine's default stack holds about a thousand such steps.
const maxNested = 64
let nested = 0

/** Starts the work at once in a fiber of its own, which a cancel of the cell interrupts. */
export const forkUnsafe = <A, E, R>(
  context: Context.Context<R>,
  cell: CancelCell,
  work: Effect.Effect<A, E, R>,
  /** Put around the work and around the turn of the dispatcher that a deep start takes first. */
  around?: (work: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Fiber.Fiber<A, E> => {
  const entered = entering(cell, work)
  const running = startUnsafe(
    Context.add(context, CurrentCell, cell) as Context.Context<R>,
    around === undefined ? entered : around(entered)
  )
  if (running.pollUnsafe() === undefined) running.addObserver(() => cell.unlink())
  else cell.unlink()
  return running
}

/** The work, whose first operation makes its fiber known to the cell; for a fiber that starts at once. */
const entering = <A, E, R>(cell: CancelCell, work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const deep = isDeep()
  return Effect.withFiber((fiber) => {
    cell.fiber = fiber
    // A scheduler may hold the fiber up before this operation; a cancel that came meanwhile found no fiber.
    if (cell.reason !== undefined)
      fiber.interruptUnsafe(undefined, Interruption.context(cell.reason) as never)
    return deep ? Effect.andThen(Effect.yieldNow, work) : work
  })
}

/**
 * Starts work whose exit is told to `settle` within its last mask, before its children are cleaned up. The cell knows the
 * fiber before the first operation: where a scheduler holds it up there, a cancel ends it, and `settle` is not told.
 * Whoever starts it takes the cell out of the tree when the fiber has ended.
 */
export const startUnder = <A, E, R>(
  context: Context.Context<R>,
  cell: CancelCell,
  work: Effect.Effect<A, E, R>,
  settle: (exit: Exit.Exit<A, E>) => Effect.Effect<void> | undefined
): Fiber.Fiber<A, E> => {
  const own = Context.add(context, CurrentCell, cell) as Context.Context<never>
  const slowly = () =>
    startUnsafe(own, Effect.onExitPrimitive(entering(cell, work as Effect.Effect<A, E>), settle))
  if (cell.reason !== undefined || isDeep()) return slowly()
  nested++
  try {
    return startKnownUnsafe(own, Effect.onExitPrimitive(work as Effect.Effect<A, E>, settle), cell, slowly)
  } finally {
    nested--
  }
}

/** Whether a start would come too deep on the stack to run its work at once. */
export const isDeep = (): boolean => nested >= maxNested

/** Starts an effect at once in a fiber of its own that nothing interrupts: for clean-up and for timers. */
export const startUnsafe = <A, E, R>(
  context: Context.Context<R>,
  work: Effect.Effect<A, E, R>,
  options?: { readonly uninterruptible?: boolean }
): Fiber.Fiber<A, E> => {
  nested++
  try {
    return Effect.runForkWith(context)(work, options)
  } finally {
    nested--
  }
}

/** Resumes a waiter at once, or through the dispatcher when the stack is deep already. */
export const resumeWith = <A, E, R>(
  waiter: Fiber.Fiber<unknown, unknown>,
  resume: (effect: Effect.Effect<A, E, R>) => void,
  effect: Effect.Effect<A, E, R>
): void => {
  if (nested >= maxNested) {
    waiter.currentDispatcher.scheduleTask(() => resume(effect), 0)
    return
  }
  nested++
  try {
    resume(effect)
  } finally {
    nested--
  }
}

/**
 * Starts a child and waits for it, in one operation: there is no point at which the waiter could be interrupted with
 * the child started and nobody waiting. `onExit` says how the waiter goes on. `onInterrupt` runs masked, in the place
 * of `onExit` or of the value it gives, when an interrupt comes first. It also runs when what `onExit` gives contains
 * an interrupt itself.
 *
 * With `handOver` a child that ends at once is waited for like any other, at the price of a turn of the dispatcher:
 * `onInterrupt` then runs whenever the waiter ends by an interrupt without having got the exit.
 */
export const startAndAwait = <A, E, B, E2, R2>(
  start: (waiter: Fiber.Fiber<unknown, unknown>) => Fiber.Fiber<A, E>,
  onExit: (exit: Exit.Exit<A, E>) => Effect.Effect<B, E2, R2>,
  onInterrupt: (child: Fiber.Fiber<A, E>) => Effect.Effect<void, unknown, R2>,
  options?: { readonly handOver?: boolean }
): Effect.Effect<B, E2, R2> =>
  Effect.withFiber((waiter) =>
    Effect.callback<B, E2, R2>((resume) => {
      const running = start(waiter)
      const ended = running.pollUnsafe()
      if (ended === undefined) {
        running.addObserver((exit) => resumeWith(waiter, resume, onExit(exit)))
      } else if (options?.handOver === true) {
        waiter.currentDispatcher.scheduleTask(() => resume(onExit(ended)), 0)
      } else {
        resume(onExit(ended))
      }
      // What fails here joins the waiter's interrupt in its cause; the signature of `callback` has no room for it.
      return Effect.suspend(() => onInterrupt(running)) as Effect.Effect<void, never, R2>
    })
  )

/** Waits until the fiber has ended, whatever its exit. One that leaves does so in O(1), however many wait. */
export const awaitEnd = (fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> =>
  Effect.withFiber((waiter) =>
    fiber.pollUnsafe() === undefined
      ? Effect.callback<void>((resume) => {
          if (fiber.pollUnsafe() !== undefined) {
            resume(Effect.void)
            return
          }
          const { waiters, forget } = waiting.get(fiber) ?? waitFor(fiber)
          const ended = () => resumeWith(waiter, resume, Exit.void)
          waiters.add(ended)
          return Effect.sync(() => {
            waiters.delete(ended)
            if (waiters.size === 0) forget()
          })
        })
      : Effect.void
  )

interface Waiting {
  readonly waiters: Set<() => void>
  readonly forget: () => void
}

// A fiber keeps its observers in an array: taking out one of ten thousand would look at all before it.
const waiting = /* @__PURE__ */ new WeakMap<Fiber.Fiber<unknown, unknown>, Waiting>()

const waitFor = (fiber: Fiber.Fiber<unknown, unknown>): Waiting => {
  const waiters = new Set<() => void>()
  const remove = fiber.addObserver(() => {
    for (const ended of waiters) ended()
  })
  const entry = {
    waiters,
    forget: () => {
      remove()
      waiting.delete(fiber)
    }
  }
  waiting.set(fiber, entry)
  return entry
}
