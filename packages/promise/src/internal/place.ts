/**
 * Where work starts: under whom, and below which cell.
 *
 * Invariants
 * 1. Whatever starts here is a task of a task scope: of the scope whose signal was given, else of the owner. Only where
 *    that one takes no work any more, or the caller stands in a mask, it is attached to whoever awaits its promise.
 * 2. A signal that Curfew made is a place: work started with it hangs below the cell it belongs to, without a listener. Any
 *    other signal is listened to for as long as the work runs, and no longer.
 * 3. Below a cancelled place, or with a signal that is aborted, nothing starts; nor with what is no signal.
 * 4. Cancellation crosses neither a mask nor a shield: what starts inside has no parent outside.
 */
import { type CancelReason, fromAbort } from "@curfew/reason"
import { CancelCell, type Cell, CurrentCell, liveOf, startsApartUnsafe } from "@curfew/reason/CancelCell"
import { Owner, ownerClosedTotal } from "@curfew/scope"
import * as Child from "@curfew/scope/Child"
import * as TaskScope from "@curfew/scope/TaskScope"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { processOwner } from "./owners.ts"

/** The task scope of the running work, which answers for what that work starts. */
export const CurrentTasks: Context.Reference<TaskScope.TaskScope | undefined> =
  /* @__PURE__ */ Context.Reference("@curfew/promise/CurrentTasks", {
    defaultValue: (): TaskScope.TaskScope | undefined => undefined
  })

/** Set below a daemon: what it starts does not keep the scope open either. */
export const InDaemon: Context.Reference<boolean> = /* @__PURE__ */ Context.Reference(
  "@curfew/promise/InDaemon",
  { defaultValue: () => false }
)

export class Place implements Placed {
  readonly context: Context.Context<never>
  readonly cell: Cell | undefined
  /** The fiber stands in a mask: what starts here stands beside it. */
  readonly apart: boolean

  constructor(context: Context.Context<never>, cell: Cell | undefined, apart: boolean) {
    this.context = context
    this.cell = cell
    this.apart = apart
  }

  get place(): Place {
    return this
  }
}

/** Who knows the place of a signal. */
export interface Placed {
  readonly place: Place
  /** Of the place: with what clock, and under which owner. */
  readonly context: Context.Context<never>
}

// On the signal itself: in a weak map the collector looks at every entry, which costs more than the work around it.
const placed = Symbol("@curfew/promise/placed")

type Marked = AbortSignal & { [placed]?: Placed }

/** Remembers the signal of work, or of a scope. */
export const remember = (signal: AbortSignal, where: Placed): void => {
  ;(signal as Marked)[placed] = where
}

/** The place of the work that the fiber runs now. */
export const placeOfFiber = (fiber: Fiber.Fiber<unknown, unknown>): Place =>
  new Place(fiber.context, fiber.getRef(CurrentCell), startsApartUnsafe(fiber))

/** Whether nothing is known of the signal that stands against work or places it: there is none, or one of others. */
export const isFree = (signal: AbortSignal | undefined): boolean =>
  signal === undefined || (isSignal(signal) && !signal.aborted && (signal as Marked)[placed] === undefined)

export const contextOf = (signal: AbortSignal | undefined): Context.Context<never> | undefined =>
  (signal as Marked | undefined)?.[placed]?.context

export const placeOf = (signal: AbortSignal | undefined): Place | undefined =>
  (signal as Marked | undefined)?.[placed]?.place

/** Starts a task of the scope, or of the owner where that one takes no work any more. */
const spawnUnsafe = <A>(
  context: Context.Context<Owner>,
  effect: Effect.Effect<A, unknown, Owner>,
  { kind, name }: Start,
  outer: Cell | undefined
) => {
  const options = { kind, name, outer, observed: always }
  const tasks = Context.get(context as Context.Context<never>, CurrentTasks)
  const daemon = Context.get(context as Context.Context<never>, InDaemon)
  const task =
    tasks && TaskScope.spawnUnsafe(tasks, context, effect, { kind, name, outer, observed: always, daemon })
  return task ?? TaskScope.spawnUnsafe(Context.get(context, Owner), context, effect, options)
}

const withOwner = (
  context: Context.Context<never>,
  owner: Context.Context<never> | undefined
): Context.Context<never> =>
  owner === undefined
    ? context
    : Context.add(context, Owner, Context.get(owner as Context.Context<Owner>, Owner))

export interface Start {
  readonly signal?: AbortSignal | undefined
  /** The context of the owner that was named. */
  readonly owner?: Context.Context<never> | undefined
  readonly name?: string | undefined
  readonly kind?: "scope" | "task" | undefined
  /** Changes the context that the work gets. */
  readonly adapt?: ((context: Context.Context<never>) => Context.Context<never>) | undefined
}

export type Started<A> =
  | { readonly _tag: "Refused"; readonly reason: CancelReason }
  | { readonly _tag: "Started"; readonly fiber: Fiber.Fiber<A, unknown>; readonly cell: CancelCell }

export const contextAt = (start: Start): Context.Context<never> => {
  const place = placeOf(start.signal)
  // An Effect program that calls in without an owner of its own has that of the process.
  const here =
    place === undefined ? (start.owner ?? processOwner().context) : withOwner(place.context, start.owner)
  const owned = here.mapUnsafe.has(Owner.key) ? here : withOwner(here, processOwner().context)
  return start.adapt === undefined ? owned : start.adapt(owned)
}

/** Starts work where the signal and the owner say. */
export const startUnsafe = <A>(effect: Effect.Effect<A, unknown, Owner>, start: Start): Started<A> => {
  const { name, signal } = start
  if (signal !== undefined && !isSignal(signal)) throw new TypeError(notASignal)
  const place = placeOf(signal)
  const above = liveOf(place?.cell)
  const parent = place?.apart === true ? undefined : above
  if (parent?.reason !== undefined) return { _tag: "Refused", reason: parent.reason }
  if (signal?.aborted === true) return { _tag: "Refused", reason: fromAbort(signal.reason) }
  const context = contextAt(start) as Context.Context<Owner>
  const task = place?.apart === true ? undefined : spawnUnsafe(context, effect, start, above)
  let cell: CancelCell
  let fiber: Fiber.Fiber<A, unknown>
  if (task === undefined) {
    if (place?.apart !== true) ownerClosedTotal.updateUnsafe(1, context)
    cell = new CancelCell(start.kind ?? "task", { name, parent, outer: above })
    fiber = Child.forkUnsafe(context, cell, effect)
  } else {
    fiber = task.fiber
    // A fiber that has ended at once has no context any more to ask.
    cell = task.cell
    // From the task scope, which waits for it, to the very work that started it, which takes it along when it is cancelled.
    if (parent !== undefined && !cell.ended) cell.moveTo(parent)
  }
  if (place === undefined && signal !== undefined) listen(signal, cell, fiber)
  return { _tag: "Started", fiber, cell }
}

const isSignal = (signal: AbortSignal): boolean => typeof signal?.addEventListener === "function"

const notASignal =
  "The signal is not an AbortSignal; give that of a scope, of the work around, or of an AbortController: controller.signal."

const listen = (signal: AbortSignal, cell: CancelCell, fiber: Fiber.Fiber<unknown, unknown>): void => {
  const remove = forwardAbort(signal, cell)
  fiber.addObserver(remove)
}

/** Cancels the cell when the signal is aborted, or does what is given for that; returns the removal. */
export const forwardAbort = (
  signal: AbortSignal,
  cell: CancelCell,
  cancel = (reason: CancelReason): unknown => cell.cancel(reason)
): (() => void) => {
  const abort = () => cancel(fromAbort(signal.reason))
  signal.addEventListener("abort", abort, once)
  return () => signal.removeEventListener("abort", abort)
}

const once = { once: true }

/** Who awaits the promise is told a failure; the task scope does not report it again. */
export const always = (): boolean => true
