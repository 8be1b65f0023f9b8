import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Tracer from "effect/Tracer"
import type { CancelReason } from "./CancelReason.ts"
import { uptime } from "./internal/age.ts"
import * as delivery from "./internal/delivery.ts"
import * as telling from "./internal/telling.ts"

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
  #parent: CancelCell | undefined = undefined
  #outer: CancelCell | undefined
  /** Set once what the cell stands for has ended. */
  ended = false
  readonly #bornAt: number = uptime()
  /** When a cancel reached it; zero before. */
  #signalledAt = 0
  /** Set by a task scope that takes no new work, and by a shutdown: what is in it runs to its end. */
  draining = false
  /** Set by a task scope: it does not wait for this work, which is cancelled when the other work has ended. */
  daemon = false
  /** Set when the work was left behind after its clean-up budget. */
  stuck = false
  /** The first reason that reached this cell, from its own `cancel` or from an ancestor. */
  reason: CancelReason | undefined = undefined
  /** True when `cancel` was called on this very cell before an ancestor was cancelled. */
  own = false
  /** The fiber that a cancel of this cell interrupts. */
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /**
   * Set by a time limit that keeps late results: called in place of the interrupt while the fiber is masked, and
   * from then on responsible for interrupting it.
   */
  holdBack: ((annotations: Context.Context<never>) => void) | undefined = undefined
  /** Monotonic milliseconds at which the cell cancels itself; `Infinity` without a deadline. */
  deadline = Number.POSITIVE_INFINITY
  #children: Set<CancelCell> | undefined = undefined
  #listeners: Set<(reason: CancelReason) => void> | undefined = undefined

  constructor(
    kind: CellKind,
    options: {
      readonly name?: string | undefined
      readonly parent?: CancelCell | undefined
      readonly outer?: CancelCell | undefined
    }
  ) {
    this.kind = kind
    this.name = options.name
    this.#outer = options.outer
    if (options.parent === undefined) roots.add(this)
    else this.#hang(options.parent)
  }

  /** The cells without a parent: owners, scopes that nobody surrounds, and what hangs beside a mask or a shield. */
  static get roots(): ReadonlySet<CancelCell> {
    return roots
  }

  /** What hangs directly below. */
  get children(): Iterable<CancelCell> {
    return this.#children ?? noCells
  }

  /** Who may be asked through a barrier. */
  get outer(): CancelCell | undefined {
    return this.#outer
  }

  /** Where cancellation comes down from. */
  get parent(): CancelCell | undefined {
    return this.#parent
  }

  #hang(parent: CancelCell): void {
    this.#parent = parent
    if (this.reason === undefined) this.reason = parent.reason
    parent.#link(this)
  }

  /** Hands the cell, with everything below it, over to another parent that is not cancelled. */
  moveTo(parent: CancelCell): void {
    this.#leave()
    this.#hang(parent)
  }

  #link(child: CancelCell): void {
    if (this.#children === undefined) this.#children = new Set()
    this.#children.add(child)
  }

  /** Takes the cell out of the tree. To be called once, when the work it stands for has ended. */
  unlink(): void {
    if (this.ended) return
    this.ended = true
    this.#leave()
    if (this.fiber !== undefined && this.cleaningFor !== undefined)
      telling.ended(this.kind, this.cleaningFor, this.fiber.context)
    this.fiber = undefined
    // What outlives it, in a wider `Scope` for instance, hangs from now on where this cell hung.
    const left = this.#children
    if (left === undefined) return
    this.#children = undefined
    for (const child of left) {
      child.#parent = this.#parent
      if (child.#outer === undefined) child.#outer = this.#outer
      if (this.#parent === undefined) roots.add(child)
      else this.#parent.#link(child)
    }
  }

  #leave(): void {
    if (this.#parent === undefined) roots.delete(this)
    else this.#parent.#children?.delete(this)
  }

  /** Marks work that was left behind: it stands by itself from now on, until it is unlinked. */
  abandon(): void {
    this.#leave()
    this.#parent = undefined
    this.stuck = true
    roots.add(this)
  }

  /** Milliseconds since the cell was made. */
  get age(): number {
    return uptime() - this.#bornAt
  }

  /** Milliseconds since a cancel reached it, or since it began when it is clean-up; `undefined` while it works. */
  get cleaningFor(): number | undefined {
    if (this.kind === "cleanup") return this.age
    return this.#signalledAt === 0 ? undefined : uptime() - this.#signalledAt
  }

  /** The name of the cell whose cancel reached this one. */
  get cancelledBy(): string | undefined {
    let cell: CancelCell | undefined = this
    while (cell !== undefined && !cell.own) cell = cell.#parent
    return cell?.name
  }

  /** How many cells hang directly below this one. */
  get size(): number {
    return this.#children?.size ?? 0
  }

  /** How many callbacks wait for this cell's cancel. */
  get listenerCount(): number {
    return this.#listeners?.size ?? 0
  }

  /**
   * Calls back once, in the turn of the cancel, after all interrupts are pending. A cell that is cancelled already
   * never calls back: look at `reason` first. Returns the removal.
   */
  listen(listener: (reason: CancelReason) => void): () => void {
    if (this.#listeners === undefined) this.#listeners = new Set()
    const listeners = this.#listeners
    listeners.add(listener)
    return () => {
      listeners.delete(listener)
    }
  }

  /** Cancels this cell and everything below it. True iff this call was the first to. */
  cancel(reason: CancelReason): boolean {
    if (this.reason !== undefined) return false
    this.own = true
    this.#spread(reason)
    return true
  }

  /** Takes over a cancel that reached the surrounding fiber by a road outside the tree. */
  inherit(reason: CancelReason): void {
    if (this.reason === undefined) this.#spread(reason)
  }

  #spread(reason: CancelReason): void {
    const reached: Array<CancelCell> = [this]
    this.reason = reason
    for (let i = 0; i < reached.length; i++) {
      const children = (reached[i] as CancelCell).#children
      if (children === undefined) continue
      for (const child of children) {
        // A child that was cancelled earlier keeps its reason, and so does everything below it.
        if (child.reason !== undefined) continue
        child.reason = reason
        reached.push(child)
      }
    }
    const annotations = Context.make(Interruption, reason) as Context.Context<never>
    const pending: Array<Fiber.Fiber<unknown, unknown>> = []
    for (const { fiber, holdBack } of reached) {
      if (fiber === undefined) continue
      if (holdBack !== undefined && delivery.isMasked(fiber)) holdBack(annotations)
      else if (delivery.pend(fiber, annotations)) pending.push(fiber)
    }
    // A callback that throws must not keep the others from the cancel: its error goes to the canceller, at the end.
    const thrown: Array<unknown> = []
    const attempt = (call: () => void): void => {
      try {
        call()
      } catch (error) {
        thrown.push(error)
      }
    }
    const tell = (): void => {
      this.#tell(reached, reason, attempt)
      for (const cell of reached) {
        const listeners = cell.#listeners
        if (listeners === undefined) continue
        cell.#listeners = undefined
        for (const listener of listeners) attempt(() => listener(reason))
      }
      for (const fiber of pending) attempt(() => delivery.deliver(fiber, annotations))
      rethrow(thrown)
    }
    inTurn(tell)
  }

  /** Whether the cell is the other one or stands somewhere below it, behind shields and masks as well. */
  isInside(other: CancelCell): boolean {
    const above: Array<CancelCell> = [this]
    for (let cell = above.pop(); cell !== undefined; cell = above.pop()) {
      if (cell === other) return true
      if (cell.outer !== undefined) above.push(cell.outer)
      if (cell.parent !== undefined) above.push(cell.parent)
    }
    return false
  }

  #tell(reached: ReadonlyArray<CancelCell>, reason: CancelReason, attempt: (call: () => void) => void): void {
    const now = uptime()
    const told = new Set<Tracer.Span>()
    const scope = this.cancelledBy
    for (const cell of reached) {
      cell.#signalledAt = now
      const { fiber, kind } = cell
      if (fiber === undefined) continue
      attempt(() => telling.signalled(kind, reason, fiber.context))
      attempt(() => telling.tellSpan(told, fiber, reason, scope))
    }
  }

  /** The nearest reason upwards, looking through shields and masks as well. */
  outerReason(): CancelReason | undefined {
    const above: Array<CancelCell> = [this]
    for (let cell = above.pop(); cell !== undefined; cell = above.pop()) {
      if (cell.reason !== undefined) return cell.reason
      if (cell.outer !== undefined) above.push(cell.outer)
      if (cell.parent !== undefined) above.push(cell.parent)
    }
    return undefined
  }

  /** Calls back once, at the first cancel upwards, looking through shields and masks as well. Returns the removal. */
  listenOuter(listener: (reason: CancelReason) => void): () => void {
    const removals: Array<() => void> = []
    const remove = () => {
      for (const forget of removals) forget()
    }
    const once = (reason: CancelReason) => {
      // The others would be heard at a later cancel.
      remove()
      listener(reason)
    }
    removals.push(this.listen(once))
    const above: Array<CancelCell> = [this]
    for (let cell = above.pop(); cell !== undefined; cell = above.pop()) {
      // What comes down from a parent is heard below; beyond a barrier it takes an ear of its own.
      if (cell.outer !== undefined) {
        removals.push(cell.outer.listen(once))
        above.push(cell.outer)
      }
      if (cell.parent !== undefined) above.push(cell.parent)
    }
    return remove
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

// One cancel inside another takes a few dozen frames of the engine's stack.
const maxNested = 64
let nested = 0
const waiting: Array<() => void> = []

/** Tells a cancel, or leaves that to the cancel it stands in when the stack is deep: still the same turn. */
const inTurn = (tell: () => void): void => {
  if (nested >= maxNested) {
    waiting.push(tell)
    return
  }
  nested++
  const thrown: Array<unknown> = []
  // At the deepest level the stack is as deep for each that was put off as it was for the first.
  for (let next: (() => void) | undefined = tell; next !== undefined; ) {
    try {
      next()
    } catch (error) {
      thrown.push(error)
    }
    next = nested === maxNested ? waiting.shift() : undefined
  }
  nested--
  rethrow(thrown)
}

const rethrow = (thrown: ReadonlyArray<unknown>): void => {
  if (thrown.length === 1) throw thrown[0]
  if (thrown.length > 1) throw new AggregateError(thrown, "Several listeners of one cancel have thrown.")
}

const roots = /* @__PURE__ */ new Set<CancelCell>()
const noCells: Iterable<CancelCell> = []

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
): Effect.Effect<A, E, R> => delivery.tellingBegin(work, begun)

/** The nearest cell above the fiber that has not ended: a fiber may outlive the scope it was forked in. */
const liveCellUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): CancelCell | undefined => {
  let cell = fiber.getRef(CurrentCell)
  while (cell?.ended === true) cell = cell.parent
  return cell
}

/**
 * Tells whether work that the fiber starts now stands beside its cell and not below: the fiber is masked, or it was
 * forked inside a mask (a side of a race, the body of a time-out), which Effect does not hand on.
 *
 * @stability internal
 * @since 0.1.0
 */
export const startsApartUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): boolean => {
  if (delivery.isMasked(fiber)) return true
  const owner = liveCellUnsafe(fiber)?.fiber
  return owner !== undefined && owner !== fiber && delivery.isMasked(owner)
}

/**
 * The reason for which work that the fiber would start now must not start.
 *
 * @stability internal
 * @since 0.1.0
 */
export const cancelledAboveUnsafe = (fiber: Fiber.Fiber<unknown, unknown>): CancelReason | undefined =>
  startsApartUnsafe(fiber) ? undefined : liveCellUnsafe(fiber)?.reason

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
  const current = liveCellUnsafe(fiber)
  if (current === undefined) return new CancelCell(kind, { name, outer: fiber.getRef(CurrentCell) })
  return masked
    ? new CancelCell(kind, { name, outer: current })
    : new CancelCell(kind, { name, parent: current })
}
