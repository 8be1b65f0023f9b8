/**
 * Cancel at every step: runs a program again and again, each time cancelled one operation later, until a run ends
 * without having reached its operation.
 *
 * The scheduler is asked before every primitive operation of every fiber. At operation n it answers yes, and the
 * cancel comes on the microtask that follows, while that fiber waits for its turn. (A cancel inside the question
 * itself would be too strong: it reports windows that cannot happen.)
 *
 * Every run has to terminate, to leave no fiber, and to pass the program's own check; the same program is then run
 * once without a cancel, with the state that the cancelled run left behind, and has to give the right answer.
 */
import { deepStrictEqual } from "node:assert"
import { type CancelReason, toCause } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import { MixedScheduler } from "effect/Scheduler"
import { jumpClock } from "./jumpClock.ts"

export interface Swept<A, E> {
  /** Is run several times over; what one run needs for itself it makes inside. */
  readonly program: Effect.Effect<A, E>
  /** Throws, or fails, when the run left the program's world in disorder. An effect may still wait for owned work. */
  readonly after?: (exit: Exit.Exit<A, E>, run: RunInfo) => unknown
  /** What a run without a cancel gives. Default: whatever the first such run gives. */
  readonly answer?: A
}

interface RunInfo {
  /** Whether the cancel was sent in this run. */
  readonly cancelled: boolean
  /** The operation it was sent at. */
  readonly step: number
}

export interface SweepOptions {
  /**
   * Who is cancelled. `native`: the root fiber is interrupted. `scope`: the program runs in a cancel scope, and that
   * is cancelled with a reason. `any`: the fiber that reached the operation is interrupted, whichever it is.
   * Default: `native`.
   */
  readonly cancel?: "native" | "scope" | "any"
  /** Cancels a second time 1, 2, 3, 5 and 8 operations later: in the finalizers of the first. */
  readonly twice?: boolean
  /** Makes the program anew for every step (the default), or once for the whole sweep: they find different bugs. */
  readonly fresh?: boolean
  /**
   * How many first operations of each fiber are left alone. Default: none. A scheduler holds a fiber up only after
   * thousands of operations; what hands ownership to a fiber relies on its first few being one step.
   */
  readonly young?: number
  /** Milliseconds of real time after which a run counts as hanging. Default: two seconds; a run takes a few at most. */
  readonly watchdog?: number
}

/** The reason that `cancel: "scope"` sends. */
export const sweepReason: CancelReason = { _tag: "Requested", message: "cancelled by the sweep" }

const secondCancels = [1, 2, 3, 5, 8]
const stepsAtMost = 20_000

type AnyFiber = Fiber.Fiber<unknown, unknown>

class SweepScheduler extends MixedScheduler {
  operations = 0
  readonly #at: ReadonlyArray<number>
  readonly #cancel: (fiber: AnyFiber) => void
  readonly #young: number
  readonly #asked = new WeakMap<AnyFiber, number>()
  sent = 0

  constructor(at: ReadonlyArray<number>, young: number, cancel: (fiber: AnyFiber) => void) {
    super()
    this.#at = at
    this.#young = young
    this.#cancel = cancel
  }

  override shouldYield(fiber: AnyFiber): boolean {
    const asked = (this.#asked.get(fiber) ?? 0) + 1
    this.#asked.set(fiber, asked)
    if (asked <= this.#young) return super.shouldYield(fiber)
    this.operations++
    if (!this.#at.includes(this.operations)) return super.shouldYield(fiber)
    this.sent++
    queueMicrotask(() => this.#cancel(fiber))
    return true
  }
}

interface Ran<A, E> {
  readonly exit: Exit.Exit<A, E>
  readonly sent: number
}

const runOnce = async <A, E>(
  what: string,
  { after, program }: Swept<A, E>,
  { cancel = "native", watchdog = 2_000, young = 0 }: SweepOptions,
  at: ReadonlyArray<number>
): Promise<Ran<A, E>> => {
  let scope: CancelScope.CancelScope | undefined
  let root: AnyFiber | undefined
  const scheduler = new SweepScheduler(at, young, (fiber) => {
    if (cancel === "any") fiber.interruptUnsafe()
    else if (cancel === "scope" && scope !== undefined) Effect.runSync(scope.cancel(sweepReason))
    else root?.interruptUnsafe()
  })
  let live = 0
  const clock = jumpClock(() => scheduler.operations)
  const context = Context.empty().pipe(
    Context.add(Clock.Clock, clock),
    Context.add(Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => {
        live++
      },
      recordFiberEnd: () => {
        live--
      }
    })
  )
  const inScope =
    cancel !== "scope"
      ? program
      : Effect.flatMap(
          CancelScope.run((own) => {
            scope = own
            return program
          }),
          (outcome): Effect.Effect<A> =>
            outcome._tag === "Done"
              ? Effect.succeed(outcome.value)
              : Effect.failCause(toCause(outcome.reason))
        )
  const fiber = Effect.runForkWith(context)(inScope, { scheduler })
  root = fiber
  const exit = await terminated<Exit.Exit<A, E>>(what, watchdog, (resolve) => fiber.addObserver(resolve))
  clock.standing = true
  // What the sweep itself held up by a yield may need that turn to end; nothing else gets one.
  for (let turn = 0; turn < scheduler.sent && live > 0; turn++)
    await new Promise<void>((turned) => setImmediate(turned))
  let left = live
  clock.standing = false
  const info: RunInfo = { cancelled: scheduler.sent > 0, step: at[0] ?? 0 }
  const checked = await explained(what, () => after?.(exit, info))
  if (Effect.isEffect(checked)) {
    // The check may have waited for work that an owner keeps: what counts is what is left after it.
    const check = Effect.runForkWith(context)(checked as Effect.Effect<unknown, unknown>)
    const verdict = await terminated<Exit.Exit<unknown, unknown>>(
      `the check of ${what}`,
      watchdog,
      (resolve) => check.addObserver(resolve)
    )
    if (Exit.isFailure(verdict)) throw new Error(`${what}: ${String(Cause.squash(verdict.cause))}`)
    left = live
  }
  if (left !== 0) throw new Error(`${what}: ${left} fiber(s) still live after the exit`)
  return { exit, sent: scheduler.sent }
}

const terminated = <T>(
  what: string,
  millis: number,
  start: (resolve: (value: T) => void) => void
): Promise<T> =>
  new Promise((resolve, reject) => {
    const watchdog = setTimeout(() => reject(new Error(`${what}: does not terminate`)), millis)
    start((value) => {
      clearTimeout(watchdog)
      resolve(value)
    })
  })

const explained = async <T>(what: string, check: () => T): Promise<T> => {
  try {
    return check()
  } catch (cause) {
    throw new Error(`${what}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}

/** Sweeps a program; throws at the first step that breaks it. Gives the number of steps swept. */
export const sweep = async <A, E>(
  makeProgram: () => Swept<A, E>,
  options: SweepOptions = {}
): Promise<number> => {
  const { fresh = true, twice = false } = options
  const kept = makeProgram()
  let answer: { readonly value: A } | undefined
  const normalRun = async (what: string, swept: Swept<A, E>) => {
    const { exit } = await runOnce(what, swept, options, [])
    if (Exit.isFailure(exit)) throw new Error(`${what}: ended in ${String(exit.cause)}`)
    if (answer === undefined) answer = { value: "answer" in swept ? (swept.answer as A) : exit.value }
    const { value } = answer
    await explained(`${what}: wrong answer`, () => deepStrictEqual(exit.value, value))
  }
  await normalRun("the run before the sweep", fresh ? makeProgram() : kept)
  for (let step = 1; step <= stepsAtMost; step++) {
    let reached = false
    for (const at of twice ? secondCancels.map((later) => [step, step + later]) : [[step]]) {
      const what = `cancelled (${options.cancel ?? "native"}) at operation ${at.join(" and ")}`
      const swept = fresh ? makeProgram() : kept
      const { sent } = await runOnce(what, swept, options, at)
      await normalRun(`the run after the one ${what}`, swept)
      reached ||= sent > 0
    }
    if (!reached) return step - 1
  }
  throw new Error(`The program did not end within ${stepsAtMost} operations.`)
}

/** Every kind of sweep over one program. Gives the number of steps of each. */
export const sweepAll = async <A, E>(makeProgram: () => Swept<A, E>): Promise<ReadonlyArray<number>> => {
  const steps: Array<number> = []
  for (const cancel of ["native", "scope"] as const)
    for (const fresh of [true, false])
      for (const twice of [false, true]) steps.push(await sweep(makeProgram, { cancel, fresh, twice }))
  return steps
}
