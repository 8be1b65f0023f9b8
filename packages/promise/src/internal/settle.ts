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
import { CancelReason, currentReason } from "@curfew/reason"
import { reportUnhandled } from "@curfew/scope"
import { boundedAt } from "@curfew/scope/bounded"
import { receive } from "@curfew/scope/LateResult"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { Cancelled } from "../Cancelled.ts"
import { begin, follow } from "./bridge.ts"
import { exitOf, failCause, isAbort } from "./errors.ts"
import { rememberUnsafe } from "./place.ts"

export interface SettleOptions<A> {
  readonly name?: string | undefined
  readonly late?: ((result: PromiseSettledResult<A>) => Effect.Effect<unknown>) | undefined
  /** What it throws after its abort, other than the abort, is a failure of the work: it has siblings to stand beside. */
  readonly failsLate?: boolean
}

class Run<A> {
  readonly #work: (signal: AbortSignal) => A | PromiseLike<A>
  readonly #fiber: Fiber.Fiber<unknown, unknown>
  readonly #name: string | undefined
  readonly #late: SettleOptions<A>["late"]
  readonly #failsLate: boolean
  #left = false
  #controller: AbortController | undefined
  #result: PromiseSettledResult<A> | undefined
  #heard: ((result: PromiseSettledResult<A>) => void) | undefined

  constructor(
    work: (signal: AbortSignal) => A | PromiseLike<A>,
    fiber: Fiber.Fiber<unknown, unknown>,
    options: SettleOptions<A> | undefined
  ) {
    this.#work = work
    this.#fiber = fiber
    this.#name = options?.name ?? (work.name || undefined)
    this.#late = options?.late
    this.#failsLate = options?.failsLate === true
  }

  /** The same for work that runs already: its promise has nothing to be called, and its signal nobody. */
  follow(promise: PromiseLike<A>, settled: (result: PromiseSettledResult<A>) => void): void {
    this.#heard = settled
    this.#controller = new AbortController()
    follow(promise, (result) => {
      this.#result = result
      this.#heard?.(result)
    })
  }

  begin(settled: (result: PromiseSettledResult<A>) => void): void {
    this.#heard = settled
    begin(
      // Left before it was called: nobody hears what becomes of this promise.
      () => (this.#left ? (undefined as A) : this.#call()),
      (result) => {
        this.#result = result
        this.#heard?.(result)
      }
    )
  }

  #call(): A | PromiseLike<A> {
    const controller = new AbortController()
    this.#controller = controller
    rememberUnsafe(controller.signal, this.#fiber)
    return this.#work(controller.signal)
  }

  readonly leave: Effect.Effect<void, unknown> = Effect.flatMap(currentReason, (found) => {
    this.#left = true
    const controller = this.#controller
    if (controller === undefined) return Effect.void
    const reason = Option.getOrElse(found, CancelReason.Unknown)
    if (this.#result === undefined) controller.abort(new Cancelled(reason))
    const settled = Effect.callback<PromiseSettledResult<A>>((resume) => {
      if (this.#result !== undefined) resume(Effect.succeed(this.#result))
      else this.#heard = (result) => resume(Effect.succeed(result))
    })
    const received = Effect.flatMap(settled, (result) => this.#receive(result, reason))
    // Without a position: the one that could be taken here is a line of this file, and says nothing to anybody.
    return Effect.asVoid(boundedAt(received, { name: this.#name }))
  })

  #receive(result: PromiseSettledResult<A>, reason: CancelReason): Effect.Effect<void, unknown> {
    const late = this.#late
    if (result.status === "rejected" && isAbort(result.reason, this.#controller?.signal.reason))
      return Effect.void
    if (result.status === "rejected" && this.#failsLate) return Effect.fail(result.reason)
    if (late !== undefined) return receive(() => late(result), this.#name)
    return result.status === "fulfilled"
      ? Effect.void
      : reportUnhandled("late result", this.#name, failCause(result.reason), reason)
  }
}

/** Calls the work with a signal and ends like its promise. */
export const settle = <A>(
  work: (signal: AbortSignal) => A | PromiseLike<A>,
  options?: SettleOptions<A>
): Effect.Effect<A, unknown> => {
  if (typeof work !== "function") throw new TypeError(notAFunction(work))
  return Effect.withFiber((fiber) => {
    const run = new Run(work, fiber, options)
    return Effect.callback<A, unknown>((resume) => {
      run.begin((result) => resume(exitOf(result)))
      // What fails there joins the interrupt in the cause; the signature of `callback` has no room for it.
      return run.leave as Effect.Effect<void>
    })
  })
}

/** Ends like a promise that runs already. */
export const settleRunning = <A>(
  promise: PromiseLike<A>,
  options?: SettleOptions<A>
): Effect.Effect<A, unknown> =>
  Effect.withFiber((fiber) => {
    const run = new Run(() => promise, fiber, options)
    return Effect.callback<A, unknown>((resume) => {
      run.follow(promise, (result) => resume(exitOf(result)))
      return run.leave as Effect.Effect<void>
    })
  })

const notAFunction = (work: unknown): string => {
  const isPromise = typeof (work as PromiseLike<unknown> | undefined)?.then === "function"
  return `The work is ${isPromise ? "a promise that runs already" : "not a function"}; give a function that takes a signal: (signal) => fetch(url, { signal }).`
}
