/**
 * Running a body in a fiber of its own under a cell: what `run`, `failAfter` and `moveOnAfter` share.
 *
 * Invariants
 * 1. The body's fiber, the deadline's timer and the signal's listener end before the caller goes on: they are taken
 *    down in the observer of the body's exit, whatever that exit is.
 * 2. When the caller is interrupted, the cell takes over the caller's reason and the caller waits for the body.
 * 3. A value or a failure that the body gave before the cancel stays its outcome, although Effect replaces it by the
 *    interrupt while the body's children still clean up.
 * 4. A defect or failure that comes out of a cancelled body is never absorbed into the cancellation.
 * 5. A body that ends at once needs neither a timer nor a wait, and gets none. It has a cell if somebody asks for it meanwhile.
 */
import { CancelReason, currentReason, fromAbort, toCause } from "@curfew/reason"
import {
  CancelCell,
  CurrentCell,
  cancelledAboveUnsafe,
  cellInUnsafe,
  type Entering,
  Interruption,
  inlineUnsafe,
  keepUnsafe,
  show,
  startsApartUnsafe,
  type Unshown
} from "@curfew/reason/CancelCell"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { instantUnsafe } from "../Argument.ts"
import { failureOf } from "../failureOf.ts"
import { nowOf, nowUnsafe } from "../Instant.ts"
import * as child from "./child.ts"
import { holdBack } from "./lateInterrupt.ts"
import { armUnsafe } from "./timer.ts"

/** The reason for a deadline: its instant told as wall-clock time, and the name of its scope. */
const deadlineReason = (clock: Clock.Clock, at: number, name: string | undefined): CancelReason =>
  CancelReason.Deadline({
    at: Math.round(clock.currentTimeMillisUnsafe() + (at - nowOf(clock))),
    origin: "local",
    ...(name === undefined ? {} : { scope: name })
  })

/**
 * Bodies with a deadline that are in their first run, from the outermost one in. None has a timer before one of them waits;
 * then all get theirs in this order, so that of two deadlines at the same time the outer one comes first.
 */
const unarmed: Array<{ readonly arm: () => void }> = []

const armAll = (): void => {
  for (const state of unarmed.splice(0)) state.arm()
}

/** Work of this scope starts with this much known of it. */
interface Known {
  readonly name?: string | undefined
  readonly deadline?: number | undefined
}

const unknown: Known = {}

/** The cell of a body, what its timer needs, and what the body gave. */
export class ScopeState<A = unknown, E = unknown> implements Entering<A, E>, Unshown {
  #cell: CancelCell | undefined = undefined
  /** Where the scope stands, and whether it stands there beside the cell instead of below. */
  readonly context: Context.Context<never>
  readonly #apart: boolean
  readonly #known: Known
  /** The next one out of those that have not been shown. */
  before: Unshown | undefined = undefined
  // Set before the body's first operation.
  fiber!: Fiber.Fiber<unknown, unknown>
  #disarm: (() => void) | undefined = undefined
  #controller: AbortController | undefined = undefined
  #ended = false
  /** What the body gave, once nothing but its children's clean-up stands between it and the caller. */
  #reached: Exit.Exit<A, E> | undefined = undefined

  constructor(context: Context.Context<never>, apart: boolean, known: Known = unknown) {
    this.context = context
    this.#apart = apart
    this.#known = known
  }

  get name(): string | undefined {
    return this.#known.name
  }

  get cell(): CancelCell {
    return this.#cell ?? this.#makeCell()
  }

  /** The cell, where somebody asked for it: without one nothing was cancelled. */
  get shown(): CancelCell | undefined {
    return this.#cell
  }

  #makeCell(): CancelCell {
    show(this.before)
    const { deadline, name } = this.#known
    const cell = cellInUnsafe(Context.get(this.context, CurrentCell), "scope", name, this.#apart, CancelCell)
    this.#cell = cell
    if (deadline !== undefined) cell.deadline = deadline
    if (!this.#ended) cell.fiber = this.fiber
    else {
      // Nobody has cancelled it while it ran: its cell would have been there.
      cell.reason = undefined
      cell.unlink()
    }
    return cell
  }

  show(): void {
    if (this.#cell === undefined) this.#makeCell()
  }

  enter(given: Context.Context<never>): Context.Context<never> {
    return Context.add(given, CurrentCell, this.cell)
  }

  settle(exit: Exit.Exit<A, E>): undefined {
    if (this.#cell?.reason === undefined && (exit._tag === "Success" || failureOf(exit.cause) !== undefined))
      this.#reached = exit
  }

  /** What became of a body that ended with this exit. */
  outcome(exit: Exit.Exit<A, E>): Ended<A, E> {
    const cell = this.#cell
    const reached = this.#reached
    const beaten = reached !== undefined && exit._tag === "Failure" && endedByOwnCancel(exit.cause, cell)
    const inTime = beaten || (reached !== undefined && exit._tag === reached._tag)
    return { _tag: "Ended", exit: beaten ? reached : exit, cell, inTime }
  }

  setDeadline(at: number): void {
    instantUnsafe("the deadline of the scope", at)
    if (this.#ended || this.cell.reason !== undefined) return
    this.disarm()
    this.cell.deadline = at
    armAll()
    this.arm()
  }

  /** Arms the timer of the deadline, unless there is one. A body that ends at once needs none. */
  arm(): void {
    const { context, cell } = this
    const { deadline = Number.POSITIVE_INFINITY } = cell
    if (deadline === Number.POSITIVE_INFINITY || this.#disarm !== undefined || cell.reason !== undefined)
      return
    const clock = Context.get(context, Clock.Clock)
    this.#disarm = armUnsafe(context, clock, deadline - nowOf(clock), () => {
      cell.cancel(deadlineReason(clock, deadline, cell.name))
    })
  }

  /** Does nothing to a timer that has fired. */
  disarm(): void {
    this.#disarm?.()
    this.#disarm = undefined
  }

  /** From now on no deadline arms a timer: what it would cancel has ended. */
  end(): void {
    this.#ended = true
    this.disarm()
    this.#cell?.unlink()
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = new AbortController()
      this.#controller = controller
      const { cell } = this
      if (cell.reason !== undefined) controller.abort(cell.reason)
      else cell.listen((reason) => controller.abort(reason))
    }
    return this.#controller.signal
  }
}

let keeps = false

export interface Limits {
  readonly name?: string | undefined
  readonly deadline?: number | undefined
  readonly signal?: AbortSignal | undefined
  /** Keep a late result from a mask instead of letting the interrupt replace it. */
  readonly keepLate?: boolean
}

/** A body that has ended. */
export interface Ended<A, E> {
  readonly _tag: "Ended"
  readonly exit: Exit.Exit<A, E>
  /** `undefined` when nobody asked for it: nothing was cancelled then. */
  readonly cell: CancelCell | undefined
  /** The body gave this exit before its cell was cancelled: only its children's clean-up came after that. */
  readonly inTime: boolean
}

/** What became of the body, before it is told to the caller. */
export type Settled<A, E> = { readonly _tag: "NotStarted"; readonly reason: CancelReason } | Ended<A, E>

export const runBody = <A, E, R, B, E2, R2>(
  body: (state: ScopeState) => Effect.Effect<A, E, R>,
  limits: Limits,
  settle: (settled: Settled<A, E>) => Effect.Effect<B, E2, R2>,
  /** Takes the exit of a body whose caller was interrupted before `settle` was through; `undefined` to decline. */
  leave?: (ended: Ended<A, E>) => Effect.Effect<void, never, R2> | undefined
): Effect.Effect<B, E2, R | R2> =>
  Effect.withFiber((fiber) => {
    // Whatever calls into the program comes before the look at what is above: a getter or a clock may cancel that.
    const { name, signal } = limits
    const deadline =
      limits.deadline === undefined ? undefined : instantUnsafe("the deadline of the scope", limits.deadline)
    const past = deadline !== undefined && deadline <= nowUnsafe(fiber)
    const apart = startsApartUnsafe(fiber)
    const ancestor = cancelledAboveUnsafe(fiber, apart)
    if (ancestor !== undefined) return Effect.failCause(toCause(ancestor))
    if (signal?.aborted === true) return settle({ _tag: "NotStarted", reason: fromAbort(signal.reason) })
    if (past) {
      return settle({
        _tag: "NotStarted",
        reason: deadlineReason(fiber.getRef(Clock.Clock), deadline, name)
      })
    }
    const context = fiber.context as Context.Context<R>
    if (!keeps) {
      keeps = true
      child.keptCell()
      keepUnsafe(new ScopeState(Context.empty(), false))
    }
    const state = new ScopeState<A, E>(
      context as Context.Context<never>,
      apart,
      name === undefined && deadline === undefined ? undefined : { name, deadline }
    )
    if (deadline !== undefined) unarmed.push(state)
    const forget = signal && forwardAbort(signal, state)
    const work = Effect.suspend(() => body(state))
    // A signal that is not the platform's may abort, or cancel what is above, when it is listened to: then nothing begins.
    const known =
      limits.keepLate === true ||
      (signal !== undefined &&
        (state.shown !== undefined || cancelledAboveUnsafe(fiber, apart) !== undefined))
    const running = known
      ? child.startUnder(
          limits.keepLate === true ? holdBack(context, state.cell) : context,
          state.cell,
          work,
          state
        )
      : child.startUnshown(context, work, state)
    const ended = running.pollUnsafe()
    if (ended === undefined) {
      state.show()
      armAll()
      return inlineUnsafe(fiber, waiting(fiber, running, state, settle, leave, forget))
    }
    takeDown(state, forget)
    return settle(state.outcome(ended))
  })

const takeDown = <A, E>(state: ScopeState<A, E>, forget: (() => void) | undefined): void => {
  state.end()
  if (unarmed.at(-1) === state) unarmed.pop()
  forget?.()
}

/** Waits for a body that has not ended at once. */
const waiting = <A, E, R, B, E2, R2>(
  waiter: Fiber.Fiber<unknown, unknown>,
  running: Fiber.Fiber<A, E>,
  state: ScopeState<A, E>,
  settle: (settled: Settled<A, E>) => Effect.Effect<B, E2, R2>,
  leave: ((ended: Ended<A, E>) => Effect.Effect<void, never, R2> | undefined) | undefined,
  forget: (() => void) | undefined
): Effect.Effect<B, E2, R | R2> =>
  Effect.callback<B, E2, R | R2>((resume) => {
    // Once the outcome is being told, an interrupt in it is somebody else's and nothing is left to take over.
    let told = false
    running.addObserver((exit) => {
      takeDown(state, forget)
      const outcome =
        // A value that nobody takes late is of no use to a caller that is interrupted before it is told.
        exit._tag === "Success" && leave === undefined
          ? settle(state.outcome(exit))
          : Effect.suspend(() => {
              told = true
              return settle(state.outcome(exit))
            })
      child.resumeWith(waiter, resume, outcome)
    })
    // What fails here joins the caller's interrupt in its cause; the signature of `callback` has no room for it.
    return Effect.suspend((): Effect.Effect<void, unknown, R | R2> => {
      const left = () => leave?.(state.outcome(running.pollUnsafe() as Exit.Exit<A, E>))
      return told ? (left() ?? Effect.void) : takeOver(running, state.cell, left)
    }) as Effect.Effect<void>
  })

/** Cancels the cell when the signal aborts; gives the removal of that ear. */
const forwardAbort = (signal: AbortSignal, state: { readonly cell: CancelCell }): (() => void) => {
  const abort = () => state.cell.cancel(fromAbort(signal.reason))
  signal.addEventListener("abort", abort, { once: true })
  return () => signal.removeEventListener("abort", abort)
}

/** The caller was interrupted: hand its reason down, wait for the body, and let only a real failure through. */
const takeOver = <A, E, R>(
  running: Fiber.Fiber<A, E>,
  cell: CancelCell,
  left: () => Effect.Effect<void, never, R> | undefined
): Effect.Effect<void, E, R> =>
  Effect.flatMap(currentReason, (reason) => {
    cell.inherit(Option.getOrElse(reason, CancelReason.Unknown))
    return Effect.flatMap(child.awaitEnd(running), (): Effect.Effect<void, E, R> => {
      const taken = left()
      if (taken !== undefined) return taken
      const exit = running.pollUnsafe()
      const failure = exit?._tag === "Failure" ? failureOf(exit.cause) : undefined
      return failure === undefined ? Effect.void : Effect.failCause(failure)
    })
  })

const isOwn = (reason: Cause.Reason<unknown>, cell: CancelCell): boolean =>
  reason._tag === "Interrupt" && reason.annotations.get(Interruption.key) === cell.reason

/** True iff the body ended by the cancel of this very cell, and by nothing else. */
export const endedByOwnCancel = (
  cause: Cause.Cause<unknown>,
  cell: CancelCell | undefined
): cell is CancelCell =>
  cell?.own === true && Cause.hasInterruptsOnly(cause) && cause.reasons.some((reason) => isOwn(reason, cell))

/** What a body that was cancelled by its own cell failed with besides: the interrupt that was ours is taken out. */
export const withoutOwnInterrupt = <E>(
  cause: Cause.Cause<E>,
  cell: CancelCell | undefined
): Cause.Cause<E> => {
  if (cell?.own !== true) return cause
  const rest = cause.reasons.filter((reason) => !isOwn(reason, cell))
  return rest.length === 0 || rest.length === cause.reasons.length ? cause : Cause.fromReasons(rest)
}
