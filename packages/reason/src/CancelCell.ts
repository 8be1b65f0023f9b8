import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { CancelReason } from "./CancelReason.ts"
import {
  Cell,
  type CellKind,
  childrenOf,
  daemon,
  draining,
  type Hears,
  type Listener,
  liveOf,
  nothing,
  now,
  own,
  showAll,
  stuck
} from "./internal/cell.ts"
import * as delivery from "./internal/delivery.ts"
import { inline } from "./internal/inline.ts"
import { CurrentCell, Interruption } from "./internal/keys.ts"
import { isMaskedUnsafe } from "./internal/peek.ts"
import { type Attempt, takeTurn } from "./internal/turn.ts"
import { witness } from "./internal/witness.ts"

export { uptime } from "./internal/age.ts"
export {
  ageOf,
  Cell,
  type CellKind,
  childrenOf,
  daemon,
  draining,
  type Hears,
  has,
  liveOf,
  rootsUnsafe,
  show,
  showAll,
  stuck,
  type Unshown,
  unshown,
  untaken
} from "./internal/cell.ts"
export { fieldsOf } from "./internal/fields.ts"
export { CurrentCell, Interruption } from "./internal/keys.ts"
export { interruptsOfUnsafe, isMaskedUnsafe, maskedReasonUnsafe } from "./internal/peek.ts"
export type { Attempt } from "./internal/turn.ts"

/**
 * A node of the cancellation tree, for those who write primitives of their own on top of Curfew's. Programs use
 * `CancelScope`, `TaskScope` and the shields instead.
 *
 * A cell knows two neighbours above it. Cancellation comes down from `parent`. Through `outer` nothing comes
 * down, but who is inside may ask: that is the way past a shield, a mask or an owner.
 *
 * **Guarantees**
 *
 * - **First wins**: the first reason of a cell stays.
 * - **One turn**: a cancel marks every descendant, then makes every interrupt pending, then tells the listeners,
 *   and only then lets a fiber run its finalizers. All of it happens within the call of `cancel`: a listener is
 *   called synchronously, and a fiber that waited for the cancel goes on inside it, up to its next suspension.
 * - **Re-entrant**: a listener may cancel again (this cell: nothing happens; another one: within its own call),
 *   remove itself or another, which is then not called, or add one, which is not called either. One that throws
 *   keeps nobody from the cancel; the canceller gets its error, several as an `AggregateError`.
 * - **Downward only**: neither a parent nor a cell behind `outer` is touched.
 * - **No recursion**: depth costs no stack.
 *
 * @see CancelScope in `@curfew/scope` for the primitive.
 * @stability internal
 * @since 0.1.0
 */
export class CancelCell extends Cell implements Hears {
  /** Set by work that runs without a fiber: called before a cancel reaches it, to make the one that is interrupted. */
  wake: (() => void) | undefined = undefined
  #limit: Limit | undefined = undefined
  // Few cells have a listener, and of those most have one.
  listeners: Listener | Set<Listener> | undefined = undefined

  /** True when `cancel` was called on this very cell before an ancestor was cancelled. */
  get own(): boolean {
    return (this.flags & own) !== 0
  }

  /** Set by a task scope that takes no new work, and by a shutdown: what is in it runs to its end. */
  get draining(): boolean {
    return (this.flags & draining) !== 0
  }

  set draining(is: boolean) {
    this.flags = is ? this.flags | draining : this.flags & ~draining
  }

  /** Set by a task scope: it does not wait for this work, which is cancelled when the other work has ended. */
  get daemon(): boolean {
    return (this.flags & daemon) !== 0
  }

  set daemon(is: boolean) {
    this.flags = is ? this.flags | daemon : this.flags & ~daemon
  }

  /** Set when the work was left behind after its clean-up budget. */
  get stuck(): boolean {
    return (this.flags & stuck) !== 0
  }

  /** Monotonic milliseconds at which the cell cancels itself, if ever. */
  get deadline(): number | undefined {
    return this.#limit?.deadline
  }

  set deadline(at: number | undefined) {
    CancelCell.#limitOf(this).deadline = at
  }

  /**
   * Set by a time limit that keeps late results: called in place of the interrupt while the fiber is masked, and
   * from then on responsible for interrupting it.
   */
  get holdBack(): ((annotations: Context.Context<never>) => void) | undefined {
    return this.#limit?.holdBack
  }

  set holdBack(call: ((annotations: Context.Context<never>) => void) | undefined) {
    CancelCell.#limitOf(this).holdBack = call
  }

  static #limitOf(cell: CancelCell): Limit {
    cell.#limit ??= { deadline: undefined, holdBack: undefined }
    return cell.#limit
  }

  /** Hands the cell, with everything below it, over to another parent that is not cancelled. */
  moveTo(parent: Cell): void {
    this.leave()
    this.parent = parent
    if (this.reason === undefined) this.reason = parent.reason
    this.enter()
  }

  /** How many cells hang directly below this one. */
  get size(): number {
    return childrenOf(this).length
  }

  /** How many callbacks wait for this cell's cancel. */
  get listenerCount(): number {
    const listeners = this.listeners
    return listeners instanceof Set ? listeners.size : listeners === undefined ? 0 : 1
  }

  /**
   * Calls back once, in the turn of the cancel, after all interrupts are pending. A cell that is cancelled already
   * never calls back: look at `reason` first. Returns the removal.
   */
  override listen(listener: Listener): () => void {
    if (this.reason !== undefined) return nothing
    const listeners = this.listeners
    if (listeners === undefined) this.listeners = listener
    else if (listeners instanceof Set) listeners.add(listener)
    else this.listeners = new Set([listeners, listener])
    return () => {
      if (this.listeners === listener) this.listeners = undefined
      else if (this.listeners instanceof Set) this.listeners.delete(listener)
    }
  }

  /** Cancels this cell and everything below it. True iff this call was the first to. */
  cancel(reason: CancelReason): boolean {
    if (this.reason !== undefined) return false
    this.wake?.()
    this.flags |= own
    CancelCell.#spread(this, reason)
    return true
  }

  /** Takes over a cancel that reached the surrounding fiber by a road outside the tree. */
  inherit(reason: CancelReason): void {
    if (this.reason === undefined) CancelCell.#spread(this, reason)
  }

  static #spread(from: CancelCell, reason: CancelReason): void {
    showAll()
    from.reason = reason
    const at = now()
    // Nobody to tell, as in a task scope at its end.
    if (from.fiber === undefined && from.first === undefined && from.listeners === undefined) {
      from.signalledAt = at
      return
    }
    const notice = delivery.noticeOf(reason, Interruption)
    // All is marked before anything happens. Each cell is looked at once: where they are many, looking takes the time.
    const reached: Array<CancelCell> = [from]
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    let heard: Array<CancelCell> | undefined
    for (let i = 0; i < reached.length; i++) {
      const cell = reached[i] as CancelCell
      cell.signalledAt = at
      if (cell.listeners !== undefined) {
        if (heard === undefined) heard = [cell]
        else heard.push(cell)
      }
      const { fiber } = cell
      if (fiber !== undefined) {
        const { holdBack } = cell
        if (holdBack !== undefined && isMaskedUnsafe(fiber)) holdBack(notice.annotations)
        else fibers.push(fiber)
      }
      const { first } = cell
      // What hangs below a cell can be cancelled, or hears of it: clean-up, which cannot, hangs below nothing.
      for (let child = first as CancelCell | undefined; child !== undefined; ) {
        // A child that was cancelled earlier keeps its reason, and so does everything below it.
        if (child.reason === undefined) {
          child.wake?.()
          child.reason = reason
          reached.push(child)
        }
        child = child.next === first ? undefined : (child.next as CancelCell)
      }
    }
    let pending = 0
    for (let i = 0; i < fibers.length; i++) {
      const fiber = fibers[i] as Fiber.Fiber<unknown, unknown>
      if (delivery.pend(fiber, notice)) fibers[pending++] = fiber
    }
    fibers.length = pending
    takeTurn((attempt) => {
      const seen = witness.current?.cancel(reason, from)
      if (seen !== undefined) for (const { fiber, kind } of reached) if (fiber) attempt(seen, kind, fiber)
      if (heard !== undefined) for (const cell of heard) cell.tell(reason, attempt)
      for (const fiber of fibers) attempt(delivery.deliver, fiber, notice)
    })
  }

  tell(reason: CancelReason, attempt: Attempt): void {
    const { listeners } = this
    if (listeners === undefined) return
    // One that is removed meanwhile is not called; one that comes meanwhile was not taken in.
    if (listeners instanceof Set) for (const listener of listeners) attempt(listener, reason, undefined)
    else attempt(listeners, reason, undefined)
    this.listeners = undefined
  }
}

/**
 * Monotonic milliseconds at which the cell cancels itself, if ever: clean-up does not.
 *
 * @stability internal
 * @since 0.1.0
 */
export const deadlineOf = (cell: Cell): number | undefined => (cell as CancelCell).deadline

/** What few cells have. */
interface Limit {
  deadline: number | undefined
  holdBack: ((annotations: Context.Context<never>) => void) | undefined
}

/**
 * Cancels work that has no fiber, nothing below it, and nothing to clean up: it has ended by that. Who counts cancels counts
 * it like any other.
 *
 * @stability internal
 * @since 0.1.0
 */
export const cancelAloneUnsafe = (
  cell: CancelCell,
  reason: CancelReason,
  context: Context.Context<never>
): void => {
  if (!cell.cancel(reason)) return
  const seen = witness.current
  if (seen === undefined) return
  const none = { context, cache: {} } as Fiber.Fiber<unknown, unknown>
  seen.cancel(reason, cell)(cell.kind, none)
  seen.ended(cell.kind, 0, none)
}

/**
 * Work that calls back when it begins: within its first operation, so that no interrupt falls between the two.
 *
 * @stability internal
 * @since 0.1.0
 */
export const tellingBegin = <A, E, R>(
  work: Effect.Effect<A, E, R>,
  begun: () => void
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    begun()
    return inline(fiber, work)
  })

/**
 * Evaluates an effect within the running operation: neither an interrupt nor a scheduler comes between what was done there
 * and the effect. To be given back by the function of `Effect.withFiber`, and by nothing else.
 *
 * @stability internal
 * @since 0.1.0
 */
export const inlineUnsafe = <A, E, R>(
  fiber: Fiber.Fiber<unknown, unknown>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => inline(fiber, effect)

/**
 * Starts an effect at once in a fiber that the cell knows before its first operation, and tells `body` how it ended. In a
 * cell that is cancelled already it ends before that operation. `undefined` where that cannot be had.
 *
 * @see learnUnsafe which has to come first.
 * @stability internal
 * @since 0.1.0
 */
export const startKnownUnsafe = <A, E>(
  context: Context.Context<never>,
  work: Effect.Effect<A, E>,
  cell: CancelCell,
  body: Body<A, E> | undefined
): Fiber.Fiber<A, E> | undefined =>
  delivery.startKnown(context, work, cell, Interruption, body as Body<unknown, unknown> | undefined) as
    | Fiber.Fiber<A, E>
    | undefined

/**
 * Starts an effect at once in a fiber that its body is told before its first operation. The context is what `enter` makes of
 * the one given, when somebody first reads it. `undefined` where that cannot be had.
 *
 * @see learnUnsafe which has to come first.
 * @stability internal
 * @since 0.1.0
 */
export const startEnteringUnsafe = <A, E>(
  given: Context.Context<never>,
  work: Effect.Effect<A, E>,
  body: Entering<A, E>
): Fiber.Fiber<A, E> | undefined =>
  delivery.startEntering(given, work, body as Entering<unknown, unknown>) as Fiber.Fiber<A, E> | undefined

/**
 * Keeps one object of a class for good. While none of them is alive a collection forgets what they look like, and with that the
 * code that was made for them: work that comes and goes keeps one of each class that it makes. It must hold nothing.
 *
 * @stability internal
 * @since 0.1.0
 */
export const keepUnsafe = (one: unknown): void => delivery.keep(one)

/**
 * Learns from any fiber how fibers are made.
 *
 * @stability internal
 * @since 0.1.0
 */
export const learnUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): void => delivery.learn(fiber)

/**
 * Who is told how a body ended: once, masked, when nothing but its children's clean-up is left. What `settle` gives runs
 * masked before the fiber ends.
 *
 * @stability internal
 * @since 0.1.0
 */
export type Body<A = never, E = never> = delivery.Body<A, E>

/**
 * A body that knows its fiber, and makes its context when somebody reads it.
 *
 * @stability internal
 * @since 0.1.0
 */
export type Entering<A = never, E = never> = delivery.Entering<A, E>

/**
 * Tells whether work that the fiber starts now stands beside its cell and not below: the fiber is masked, or it was
 * forked inside a mask (a side of a race, the body of a time-out), which Effect does not hand on.
 *
 * @stability internal
 * @since 0.1.0
 */
export const startsApartUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): boolean => {
  if (isMaskedUnsafe(fiber)) return true
  const owner = liveOf(fiber.getRef(CurrentCell))?.fiber
  return owner !== undefined && owner !== fiber && isMaskedUnsafe(owner)
}

/**
 * The reason for which work that the fiber would start now must not start.
 *
 * @stability internal
 * @since 0.1.0
 */
export const cancelledAboveUnsafe = (
  fiber: Fiber.Fiber<unknown, unknown>,
  apart: boolean = startsApartUnsafe(fiber)
): CancelReason | undefined => (apart ? undefined : liveOf(fiber.getRef(CurrentCell))?.reason)

/**
 * A cell for work that the fiber starts now: below the fiber's own cell, or only beside it when the fiber is
 * inside a mask, because cancellation crosses a mask by no road.
 *
 * @stability internal
 * @since 0.1.0
 */
export const forkCellUnsafe = <Cell extends CancelCell = CancelCell>(
  fiber: Fiber.Fiber<unknown, unknown>,
  kind: CellKind,
  name?: string | undefined,
  masked: boolean = startsApartUnsafe(fiber),
  Cell: new (...made: ConstructorParameters<typeof CancelCell>) => Cell = CancelCell as never
): Cell => cellUnsafe(fiber, kind, name, masked, Cell)

/**
 * The same, of a class that need not be one that can be cancelled by itself.
 *
 * @stability internal
 * @since 0.1.0
 */
export const cellUnsafe = <Made extends Cell>(
  fiber: Fiber.Fiber<unknown, unknown>,
  kind: CellKind,
  name: string | undefined,
  masked: boolean,
  Class: new (...made: ConstructorParameters<typeof Cell>) => Made
): Made => cellInUnsafe(fiber.getRef(CurrentCell), kind, name, masked, Class)

/**
 * The same for work that stands in this cell, if in any.
 *
 * @stability internal
 * @since 0.1.0
 */
export const cellInUnsafe = <Made extends Cell>(
  nearest: Cell | undefined,
  kind: CellKind,
  name: string | undefined,
  masked: boolean,
  Class: new (...made: ConstructorParameters<typeof Cell>) => Made
): Made => {
  const current = liveOf(nearest)
  if (current === undefined) return new Class(kind, { name, outer: nearest })
  return masked ? new Class(kind, { name, outer: current }) : new Class(kind, { name, parent: current })
}
