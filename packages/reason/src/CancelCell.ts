import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Fn from "effect/Function"
import type { CancelReason } from "./CancelReason.ts"
import { uptime } from "./internal/age.ts"
import * as delivery from "./internal/delivery.ts"
import { type Attempt, takeTurn } from "./internal/turn.ts"
import { witness } from "./internal/witness.ts"

/**
 * What a cell stands for in the live program.
 *
 * @stability internal
 * @since 0.1.0
 */
export type CellKind = "scope" | "tasks" | "task" | "call" | "shield" | "owner" | "shared" | "cleanup"

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
export class CancelCell {
  readonly kind: CellKind
  readonly name: string | undefined
  #parent: CancelCell | undefined
  #outer: CancelCell | undefined
  // What hangs below one cell is a ring of cells: a set would cost more than they do.
  #first: CancelCell | undefined = undefined
  #next: CancelCell = this
  #previous: CancelCell = this
  /** What is true of it or not: five fields would take more than all its roads. */
  #flags = 0
  // Whole milliseconds, which unlike fractions need no object of their own.
  readonly #bornAt: number = Math.trunc(uptime())
  /** When a cancel reached it. */
  #signalledAt: number | undefined = undefined
  /** The first reason that reached this cell, from its own `cancel` or from an ancestor. */
  reason: CancelReason | undefined
  /** The fiber that a cancel of this cell interrupts. */
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** What those who made it know it by, where that is more than its kind. */
  stands: unknown = undefined
  #limit: Limit | undefined = undefined
  // Few cells have a listener, and of those most have one.
  #listeners: Listener | Set<Listener> | undefined = undefined

  constructor(
    kind: CellKind,
    options: {
      readonly name?: string | undefined
      readonly parent?: CancelCell | undefined
      readonly outer?: CancelCell | undefined
    }
  ) {
    const { parent } = options
    this.kind = kind
    this.name = options.name
    this.#outer = options.outer
    this.#parent = parent
    this.reason = parent?.reason
    CancelCell.#enter(this)
  }

  /** Set once what the cell stands for has ended. */
  get ended(): boolean {
    return (this.#flags & ended) !== 0
  }

  /** True when `cancel` was called on this very cell before an ancestor was cancelled. */
  get own(): boolean {
    return (this.#flags & own) !== 0
  }

  /** Set by a task scope that takes no new work, and by a shutdown: what is in it runs to its end. */
  get draining(): boolean {
    return (this.#flags & draining) !== 0
  }

  set draining(is: boolean) {
    this.#flags = is ? this.#flags | draining : this.#flags & ~draining
  }

  /** Set by a task scope: it does not wait for this work, which is cancelled when the other work has ended. */
  get daemon(): boolean {
    return (this.#flags & daemon) !== 0
  }

  set daemon(is: boolean) {
    this.#flags = is ? this.#flags | daemon : this.#flags & ~daemon
  }

  /** Set when the work was left behind after its clean-up budget. */
  get stuck(): boolean {
    return (this.#flags & stuck) !== 0
  }

  /** Monotonic milliseconds at which the cell cancels itself; `Infinity` without a deadline. */
  get deadline(): number {
    return this.#limit?.deadline ?? Number.POSITIVE_INFINITY
  }

  set deadline(at: number) {
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
    cell.#limit ??= { deadline: Number.POSITIVE_INFINITY, holdBack: undefined }
    return cell.#limit
  }

  /** The cells without a parent: owners, scopes that nobody surrounds, and what hangs beside a mask or a shield. */
  static get roots(): ReadonlySet<CancelCell> {
    return new Set(CancelCell.#ring(firstRoot))
  }

  /** What hangs directly below, at this moment. */
  get children(): ReadonlyArray<CancelCell> {
    return CancelCell.#ring(this.#first)
  }

  static #ring(first: CancelCell | undefined): Array<CancelCell> {
    const cells: Array<CancelCell> = []
    for (let cell = first; cell !== undefined; ) {
      cells.push(cell)
      cell = cell.#next === first ? undefined : cell.#next
    }
    return cells
  }

  /** Who may be asked through a barrier. */
  get outer(): CancelCell | undefined {
    return this.#outer
  }

  /** Where cancellation comes down from. */
  get parent(): CancelCell | undefined {
    return this.#parent
  }

  // Static, because each object pays for methods that are private to it.
  /** Enters the ring of the parent, or of the roots, as the last one. */
  static #enter(cell: CancelCell): void {
    const parent = cell.#parent
    const first = parent === undefined ? firstRoot : parent.#first
    if (first === undefined) {
      CancelCell.#lead(parent, cell)
      return
    }
    const last = first.#previous
    cell.#next = first
    cell.#previous = last
    last.#next = cell
    first.#previous = cell
  }

  static #lead(parent: CancelCell | undefined, first: CancelCell | undefined): void {
    if (parent === undefined) firstRoot = first
    else parent.#first = first
  }

  /** Leaves the ring. Who stands in none is alone in its own, and nobody's first. */
  static #leave(cell: CancelCell): void {
    const parent = cell.#parent
    const next = cell.#next
    if ((parent === undefined ? firstRoot : parent.#first) === cell)
      CancelCell.#lead(parent, next === cell ? undefined : next)
    next.#previous = cell.#previous
    cell.#previous.#next = next
    cell.#next = cell
    cell.#previous = cell
  }

  /** Hands the cell, with everything below it, over to another parent that is not cancelled. */
  moveTo(parent: CancelCell): void {
    CancelCell.#leave(this)
    this.#parent = parent
    if (this.reason === undefined) this.reason = parent.reason
    CancelCell.#enter(this)
  }

  /** Takes the cell out of the tree. To be called once, when the work it stands for has ended. */
  unlink(): void {
    if (this.ended) return
    this.#flags |= ended
    CancelCell.#leave(this)
    const { fiber } = this
    if (fiber !== undefined && (this.#signalledAt !== undefined || this.kind === "cleanup"))
      witness.current?.ended(this.kind, this.cleaningFor as number, fiber)
    this.fiber = undefined
    if (this.#first === undefined) return
    // What outlives it, in a wider `Scope` for instance, hangs from now on where this cell hung.
    for (const child of this.children) {
      CancelCell.#leave(child)
      child.#parent = this.#parent
      if (child.#outer === undefined) child.#outer = this.#outer
      CancelCell.#enter(child)
    }
  }

  /** Marks work that was left behind: it stands by itself from now on, until it is unlinked. */
  abandon(): void {
    CancelCell.#leave(this)
    this.#parent = undefined
    this.#flags |= stuck
    CancelCell.#enter(this)
  }

  /** Milliseconds since the cell was made. */
  get age(): number {
    return Math.trunc(uptime()) - this.#bornAt
  }

  /** Milliseconds since a cancel reached it, or since it began when it is clean-up; `undefined` while it works. */
  get cleaningFor(): number | undefined {
    if (this.kind === "cleanup") return this.age
    return this.#signalledAt === undefined ? undefined : Math.trunc(uptime()) - this.#signalledAt
  }

  /** This cell, or the nearest above it, that has not ended: work may outlive the scope that it was started in. */
  get live(): CancelCell | undefined {
    let cell: CancelCell | undefined = this
    while (cell?.ended === true) cell = cell.#parent
    return cell
  }

  /** How many cells hang directly below this one. */
  get size(): number {
    return this.children.length
  }

  /** How many callbacks wait for this cell's cancel. */
  get listenerCount(): number {
    const listeners = this.#listeners
    return listeners instanceof Set ? listeners.size : listeners === undefined ? 0 : 1
  }

  /**
   * Calls back once, in the turn of the cancel, after all interrupts are pending. A cell that is cancelled already
   * never calls back: look at `reason` first. Returns the removal.
   */
  listen(listener: Listener): () => void {
    if (this.reason !== undefined) return Fn.constVoid
    const listeners = this.#listeners
    if (listeners === undefined) this.#listeners = listener
    else if (listeners instanceof Set) listeners.add(listener)
    else this.#listeners = new Set([listeners, listener])
    return () => {
      if (this.#listeners === listener) this.#listeners = undefined
      else if (this.#listeners instanceof Set) this.#listeners.delete(listener)
    }
  }

  /** Cancels this cell and everything below it. True iff this call was the first to. */
  cancel(reason: CancelReason): boolean {
    if (this.reason !== undefined) return false
    this.#flags |= own
    CancelCell.#spread(this, reason)
    return true
  }

  /** Takes over a cancel that reached the surrounding fiber by a road outside the tree. */
  inherit(reason: CancelReason): void {
    if (this.reason === undefined) CancelCell.#spread(this, reason)
  }

  static #spread(from: CancelCell, reason: CancelReason): void {
    const now = Math.trunc(uptime())
    from.reason = reason
    // Nobody to tell, as in a task scope at its end.
    if (from.fiber === undefined && from.#first === undefined && from.#listeners === undefined) {
      from.#signalledAt = now
      return
    }
    const notice = delivery.noticeOf(reason, Interruption)
    // All is marked before anything happens. Each cell is looked at once: where they are many, looking takes the time.
    const reached: Array<CancelCell> = [from]
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    let heard: Array<CancelCell> | undefined
    for (let i = 0; i < reached.length; i++) {
      const cell = reached[i] as CancelCell
      cell.#signalledAt = now
      if (cell.#listeners !== undefined) {
        if (heard === undefined) heard = [cell]
        else heard.push(cell)
      }
      const { fiber } = cell
      if (fiber !== undefined) {
        const { holdBack } = cell
        if (holdBack !== undefined && delivery.isMasked(fiber)) holdBack(notice.annotations)
        else fibers.push(fiber)
      }
      const first = cell.#first
      for (let child = first; child !== undefined; ) {
        // A child that was cancelled earlier keeps its reason, and so does everything below it.
        if (child.reason === undefined) {
          child.reason = reason
          reached.push(child)
        }
        child = child.#next === first ? undefined : child.#next
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
      if (heard !== undefined) for (const cell of heard) CancelCell.#tell(cell, reason, attempt)
      for (const fiber of fibers) attempt(delivery.deliver, fiber, notice)
    })
  }

  static #tell(cell: CancelCell, reason: CancelReason, attempt: Attempt): void {
    const listeners = cell.#listeners
    if (listeners === undefined) return
    // One that is removed meanwhile is not called; one that comes meanwhile was not taken in.
    if (listeners instanceof Set) for (const listener of listeners) attempt(listener, reason, undefined)
    else attempt(listeners, reason, undefined)
    cell.#listeners = undefined
  }

  /** The earliest deadline between here and the nearest shield, mask or owner, in monotonic milliseconds. */
  effectiveDeadline(): number {
    let earliest = this.deadline
    for (let cell = this.parent; cell !== undefined; cell = cell.parent) {
      if (cell.deadline < earliest) earliest = cell.deadline
    }
    return earliest
  }
}

type Listener = (reason: CancelReason) => void

/** What few cells have. */
interface Limit {
  deadline: number
  holdBack: ((annotations: Context.Context<never>) => void) | undefined
}

const ended = 1
const own = 2
const draining = 4
const daemon = 8
const stuck = 16

let firstRoot: CancelCell | undefined

/**
 * The cell that the running fiber belongs to, if any. Forked fibers, items of a concurrent `all`, sides of a race
 * and bodies of a time-out inherit it with the context.
 *
 * @stability internal
 * @since 0.1.0
 */
export const CurrentCell: Context.Reference<CancelCell | undefined> = /* @__PURE__ */ Context.Reference(
  "@curfew/reason/CurrentCell",
  { defaultValue: (): CancelCell | undefined => undefined }
)

/**
 * The annotation under which an interrupt that Curfew sends carries its reason.
 *
 * @see fromCause to read it.
 * @stability internal
 * @since 0.1.0
 */
export class Interruption extends /* @__PURE__ */ Context.Service<Interruption, CancelReason>()(
  "@curfew/reason/Interruption"
) {}

/**
 * Tells whether the fiber is inside an uninterruptible region at this moment: a mask or a finalizer.
 *
 * @stability internal
 * @since 0.1.0
 */
export const isMaskedUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): boolean => delivery.isMasked(fiber)

/**
 * The interrupts that were aimed at the fiber so far, or `undefined`.
 *
 * @stability internal
 * @since 0.1.0
 */
export const interruptsOfUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): Cause.Cause<never> | undefined =>
  delivery.interruptsOf(fiber)

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
    return delivery.inline(fiber, work)
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
): Effect.Effect<A, E, R> => delivery.inline(fiber, effect)

/**
 * Starts an effect at once in a fiber that the cell knows before its first operation, and tells `body` how it ended. In a
 * cell that is cancelled already it ends before that operation, unless it is masked. `undefined` where that cannot be had.
 *
 * @see learnUnsafe which has to come first.
 * @stability internal
 * @since 0.1.0
 */
export const startKnownUnsafe = <A, E>(
  context: Context.Context<never>,
  work: Effect.Effect<A, E>,
  cell: CancelCell,
  body: Body<A, E> | undefined,
  masked: boolean
): Fiber.Fiber<A, E> | undefined =>
  delivery.startKnown(
    context,
    work,
    cell,
    Interruption,
    body as Body<unknown, unknown> | undefined,
    masked
  ) as Fiber.Fiber<A, E> | undefined

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
 * Tells whether work that the fiber starts now stands beside its cell and not below: the fiber is masked, or it was
 * forked inside a mask (a side of a race, the body of a time-out), which Effect does not hand on.
 *
 * @stability internal
 * @since 0.1.0
 */
export const startsApartUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): boolean => {
  if (delivery.isMasked(fiber)) return true
  const owner = fiber.getRef(CurrentCell)?.live?.fiber
  return owner !== undefined && owner !== fiber && delivery.isMasked(owner)
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
): CancelReason | undefined => (apart ? undefined : fiber.getRef(CurrentCell)?.live?.reason)

/**
 * A cell for work that the fiber starts now: below the fiber's own cell, or only beside it when the fiber is
 * inside a mask, because cancellation crosses a mask by no road.
 *
 * @stability internal
 * @since 0.1.0
 */
export const forkCellUnsafe = (
  fiber: Fiber.Fiber<unknown, unknown>,
  kind: CellKind,
  name?: string | undefined,
  masked: boolean = startsApartUnsafe(fiber)
): CancelCell => {
  const nearest = fiber.getRef(CurrentCell)
  const current = nearest?.live
  if (current === undefined) return new CancelCell(kind, { name, outer: nearest })
  return masked
    ? new CancelCell(kind, { name, outer: current })
    : new CancelCell(kind, { name, parent: current })
}
