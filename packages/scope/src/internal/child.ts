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
import {
  type Body,
  CancelCell,
  CurrentCell,
  type Entering,
  Interruption,
  inlineUnsafe,
  interruptsOfUnsafe,
  isMaskedUnsafe,
  learnUnsafe,
  showAll,
  startEnteringUnsafe,
  startKnownUnsafe,
  type Unshown,
  unshown
} from "@curfew/reason/CancelCell"
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
  /** Told how the work ended, before its children are cleaned up. */
  body?: Body<A, E>
): Fiber.Fiber<A, E> => {
  const running = startUnder(context, cell, work, body)
  if (running.pollUnsafe() === undefined) unlinkAfter(running, cell)
  else cell.unlink()
  return running
}

const unlinkAfter = (running: Fiber.Fiber<unknown, unknown>, cell: CancelCell): void => {
  running.addObserver(() => cell.unlink())
}

/**
 * The same for who takes the cell out of the tree itself, when the fiber has ended. The cell knows the fiber before its first
 * operation. Should a scheduler hold it up there, a cancel ends it, and `body` is told that as well.
 */
export const startUnder = <A, E, R>(
  context: Context.Context<R>,
  cell: CancelCell,
  work: Effect.Effect<A, E, R>,
  body: Body<A, E> | undefined
): Fiber.Fiber<A, E> => {
  const own = Context.add(context, CurrentCell, cell) as Context.Context<never>
  learn()
  const started = unlessDeep(work) as Effect.Effect<A, E>
  nested++
  try {
    const fiber = startKnownUnsafe(own, started, cell, body)
    if (fiber !== undefined) return fiber
  } finally {
    nested--
  }
  return startUnknown(own, cell, started, body)
}

/** The same for a body that makes its cell when somebody asks for it; `undefined` where that cannot be had. */
export const startEntering = <A, E, R>(
  context: Context.Context<R>,
  work: Effect.Effect<A, E, R>,
  body: Entering<A, E>
): Fiber.Fiber<A, E> | undefined => {
  learn()
  const started = unlessDeep(work) as Effect.Effect<A, E>
  nested++
  try {
    return startEnteringUnsafe(context as Context.Context<never>, started, body)
  } finally {
    nested--
  }
}

/** The same with a cell in any case. It stands among what is shown to whoever looks for cells, until this returns. */
export const startUnshown = <A, E, R>(
  context: Context.Context<R>,
  work: Effect.Effect<A, E, R>,
  body: Entering<A, E> & Unshown & { readonly cell: CancelCell }
): Fiber.Fiber<A, E> => {
  body.before = unshown.last
  unshown.last = body
  let fiber: Fiber.Fiber<A, E> | undefined
  try {
    fiber = startEntering(context, work, body)
  } finally {
    unshown.last = body.before
    body.before = undefined
  }
  fiber ??= startUnder(context, body.cell, work, body)
  if (fiber.pollUnsafe() === undefined) showAll()
  return fiber
}

const unlessDeep = <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  isDeep() ? Effect.andThen(Effect.yieldNow, work) : work

const learn = (): void => {
  if (learned) return
  learned = true
  keptCell()
  learnUnsafe(startUnsafe(Context.empty(), Effect.void))
}

let learned = false
let kept: CancelCell | undefined

/** A cell that stands for nothing, for what is kept by `keepUnsafe`. */
export const keptCell = (): CancelCell => {
  if (kept === undefined) {
    kept = new CancelCell("task", {})
    kept.unlink()
  }
  return kept
}

/** The same by Effect's public calls alone: masked up to the work, so that nothing comes before `body` can be told. */
const startUnknown = <A, E>(
  context: Context.Context<never>,
  cell: CancelCell,
  work: Effect.Effect<A, E>,
  body: Body<A, E> | undefined
): Fiber.Fiber<A, E> => {
  const entering = Effect.withFiber<A, E>((fiber) => {
    cell.fiber = fiber
    // A scheduler may have held the fiber up before this operation; a cancel that came meanwhile found no fiber.
    if (cell.reason !== undefined)
      fiber.interruptUnsafe(undefined, Interruption.context(cell.reason) as never)
    return Effect.interruptible(work)
  })
  return startUnsafe(
    context,
    Effect.onExitPrimitive(entering, (exit) => body?.settle(exit)),
    { uninterruptible: true }
  )
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
 * What `onExit` gives begins in the same operation: a waiter that ends by an interrupt without having got the exit always
 * runs `onInterrupt`, also when the child had ended at once.
 */
export const startAndAwait = <A, E, B, E2, R2>(
  start: (waiter: Fiber.Fiber<unknown, unknown>) => Fiber.Fiber<A, E>,
  onExit: (exit: Exit.Exit<A, E>) => Effect.Effect<B, E2, R2>,
  onInterrupt: (child: Fiber.Fiber<A, E>) => Effect.Effect<void, unknown, R2>
): Effect.Effect<B, E2, R2> =>
  Effect.withFiber((waiter) => {
    const running = start(waiter)
    const ended = running.pollUnsafe()
    const interrupted = interruptsOfUnsafe(waiter) !== undefined && !isMaskedUnsafe(waiter)
    return inlineUnsafe(
      waiter,
      ended === undefined || interrupted ? awaiting(waiter, running, onExit, onInterrupt) : onExit(ended)
    )
  })

const awaiting = <A, E, B, E2, R2>(
  waiter: Fiber.Fiber<unknown, unknown>,
  running: Fiber.Fiber<A, E>,
  onExit: (exit: Exit.Exit<A, E>) => Effect.Effect<B, E2, R2>,
  onInterrupt: (child: Fiber.Fiber<A, E>) => Effect.Effect<void, unknown, R2>
): Effect.Effect<B, E2, R2> =>
  Effect.callback<B, E2, R2>((resume) => {
    const ended = running.pollUnsafe()
    if (ended === undefined) running.addObserver((exit) => resumeWith(waiter, resume, onExit(exit)))
    // The interrupt that is pending finds the waiter here.
    else waiter.currentDispatcher.scheduleTask(() => resume(onExit(ended)), 0)
    // What fails here joins the waiter's interrupt in its cause; the signature of `callback` has no room for it.
    return Effect.suspend(() => onInterrupt(running)) as Effect.Effect<void, never, R2>
  })

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
