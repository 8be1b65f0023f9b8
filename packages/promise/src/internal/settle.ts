/**
 * A promise function as an effect that waits for its promise.
 *
 * Invariants
 * 1. Interrupted before the work was called, it is never called.
 * 2. Interrupted later, its signal is aborted once, with the reason; then the promise has the clean-up budget to settle.
 *    What overruns it is left behind as stuck, by name, until it settles after all.
 * 3. The exit is a pure interrupt then. What the promise still produces has exactly one receiver: `late`, or, without
 *    one, `OnUnhandled` for a failure. An abort that only says that it was one is neither. Only with `failsLate` a
 *    failure after the abort joins the exit.
 * 4. The signal that work is given is known by its place in the tree: what is started with it hangs below the fiber that
 *    runs the work.
 * 5. What is no function is refused before anything starts, with a sentence: mostly it is a promise that runs already.
 */
import type { CancelReason } from "@curfew/reason"
import { keepUnsafe, maskedReasonUnsafe } from "@curfew/reason/CancelCell"
import { reportUnhandled } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import { receive } from "@curfew/scope/LateResult"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { Cancelled } from "../Cancelled.ts"
import { begin, follow } from "./bridge.ts"
import { exitOf, failCause, isAbort } from "./errors.ts"
import { Place, type Placed, placeOfFiber, remember } from "./place.ts"

export interface SettleOptions<A> {
  readonly name?: string | undefined
  readonly late?: ((result: PromiseSettledResult<A>) => Effect.Effect<unknown>) | undefined
  /** What it throws after its abort, other than the abort, is a failure of the work: it has siblings to stand beside. */
  readonly failsLate?: boolean
}

/** Who runs work that has no fiber, and makes one of it when somebody asks for its place. */
export interface Host {
  readonly context: Context.Context<never>
  readonly place: Place
  /** The work has ended, and no fiber answers for it. One that enters now is told after this. */
  readonly over: (run: Run<never>, result: PromiseSettledResult<never>) => void
}

let keeps = false

export class Run<A> implements Placed {
  readonly #work: (signal: AbortSignal) => A | PromiseLike<A>
  readonly #settling: SettleOptions<A> | undefined
  readonly #host: Host | undefined
  #fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  #place: Place | undefined = undefined
  #left = false
  #controller: AbortController | undefined = undefined
  #result: PromiseSettledResult<A> | undefined = undefined
  #heard: ((result: PromiseSettledResult<A>) => void) | undefined = undefined

  constructor(
    work: (signal: AbortSignal) => A | PromiseLike<A>,
    settling: SettleOptions<A> | undefined,
    host?: Host
  ) {
    this.#work = work
    this.#settling = settling
    this.#host = host
  }

  /** Asked when it is left. */
  protected get settling(): SettleOptions<A> | undefined {
    return this.#settling
  }

  get context(): Context.Context<never> {
    return this.#place?.context ?? (this.#host as Host).context
  }

  /** Where the work stands, for what is started with its signal. */
  get place(): Place {
    if (this.#place === undefined) {
      // The host makes a fiber, in which `enter` is called.
      const place = (this.#host as Host).place
      this.#place ??= place
    }
    return this.#place
  }

  /** A fiber answers for the work. */
  get entered(): boolean {
    return this.#fiber !== undefined
  }

  /**
   * Ends like the work, for which the fiber answers from now on: its interrupt aborts it. `begins` in the operation that
   * begins to wait: before it, an interrupt would leave work that nobody aborts.
   */
  enter(fiber: Fiber.Fiber<unknown, unknown>, begins?: (run: Run<A>) => void): Effect.Effect<A, unknown> {
    return Effect.callback<A, unknown>((resume) => {
      this.#fiber = fiber
      if (this.#controller !== undefined) this.#place = placeOfFiber(fiber)
      // It may have settled while a scheduler held the fiber up.
      if (this.#result !== undefined) resume(exitOf(this.#result))
      else this.#heard = (result) => resume(exitOf(result))
      begins?.(this)
      // What fails there joins the interrupt in the cause; the signature of `callback` has no room for it.
      return this.leave as Effect.Effect<void>
    })
  }

  /** For work that runs already: its promise has nothing to be called, and its signal nobody. */
  follow(promise: PromiseLike<A>): void {
    this.#controller = new AbortController()
    follow(promise, this)
  }

  settled(result: PromiseSettledResult<A>): void {
    if (this.#fiber === undefined && !this.#left) this.#host?.over(this as never, result as never)
    this.#result = result
    this.#heard?.(result)
  }

  call(): A | PromiseLike<A> {
    // Left before it was called: nobody hears what becomes of this promise.
    if (this.#left) return undefined as A
    const controller = new AbortController()
    this.#controller = controller
    if (this.#fiber !== undefined) this.#place = placeOfFiber(this.#fiber)
    remember(controller.signal, this)
    return this.#work(controller.signal)
  }

  /** Aborts the work and waits for its end. To be run masked. */
  get leave(): Effect.Effect<void, unknown> {
    return Effect.withFiber((fiber) => {
      this.#left = true
      const controller = this.#controller
      if (controller === undefined) return Effect.void
      // It runs masked. What is interrupted without a reason of its own says none.
      const reason = maskedReasonUnsafe(fiber) ?? unknown
      if (this.#result === undefined) controller.abort(new Cancelled(reason))
      const settled = Effect.callback<PromiseSettledResult<A>>((resume) => {
        if (this.#result !== undefined) resume(Effect.succeed(this.#result))
        else this.#heard = (result) => resume(Effect.succeed(result))
      })
      const { failsLate, late, name: given } = (this.settling ?? none) as SettleOptions<A>
      const name = given ?? (this.#work.name || undefined)
      const received = Effect.flatMap(settled, (result) => {
        if (result.status === "rejected" && isAbort(result.reason, controller.signal.reason))
          return Effect.void
        if (result.status === "rejected" && failsLate === true) return Effect.fail(result.reason)
        if (late !== undefined) return receive(() => late(result), name)
        return result.status === "fulfilled"
          ? Effect.void
          : reportUnhandled("late result", name, failCause(result.reason), reason)
      })
      // Without a position: the one that could be taken here is a line of this file, and says nothing to anybody.
      return Effect.asVoid(boundedAt(received, { name }))
    })
  }
}

const none: SettleOptions<never> = {}

const unknown: CancelReason = { _tag: "Unknown" }

/** Calls the work with a signal and ends like its promise. */
export const settle = <A>(
  work: (signal: AbortSignal) => A | PromiseLike<A>,
  options?: SettleOptions<A>
): Effect.Effect<A, unknown> => {
  checkWork(work)
  return Effect.withFiber((fiber) => {
    keepRuns()
    return new Run(work, options).enter(fiber, begin)
  })
}

/** Before the first is made. */
export const keepRuns = (): void => {
  if (keeps) return
  keeps = true
  const run = new Run(() => {}, undefined)
  const controller = new AbortController()
  remember(controller.signal, run)
  keepUnsafe([run, new Place(Context.empty(), undefined, false), controller])
}

/** Ends like a promise that runs already. */
export const settleRunning = <A>(
  promise: PromiseLike<A>,
  options?: SettleOptions<A>
): Effect.Effect<A, unknown> =>
  Effect.withFiber((fiber) => new Run(() => promise, options).enter(fiber, (run) => run.follow(promise)))

export const checkWork = (work: unknown): void => {
  if (typeof work !== "function") throw new TypeError(notAFunction(work))
}

const notAFunction = (work: unknown): string => {
  const isPromise = typeof (work as PromiseLike<unknown> | undefined)?.then === "function"
  return `The work is ${isPromise ? "a promise that runs already" : "not a function"}; give a function that takes a signal: (signal) => fetch(url, { signal }).`
}
