/**
 * Cancel at every step, by `@curfew/testing`: a program, a check that throws, and an answer made a subject of its
 * sweep. What a sweep of the kit finds is thrown as its report.
 */
import { deepStrictEqual } from "node:assert"
import { type CancelReason, toCause } from "@curfew/reason"
import { CancelScope } from "@curfew/scope"
import * as Testing from "@curfew/testing"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { repeats } from "./seed.ts"

export interface Swept<A, E> {
  /** Is run several times over; what one run needs for itself it makes inside. */
  readonly program: Effect.Effect<A, E>
  /** Throws, or fails, when the run left the program's world in disorder. */
  readonly after?: (exit: Exit.Exit<A, E>, run: RunInfo) => unknown
  /** What a run without a cancel gives. Default: whatever the first such run gives. */
  readonly answer?: A
}

interface RunInfo {
  /** Whether the cancel was sent in this run. */
  readonly cancelled: boolean
}

export interface SweepOptions {
  /**
   * Who is cancelled. `native`: the root fiber is interrupted. `scope`: the program runs in a cancel scope, and that
   * is cancelled with a reason. `any`: the fiber that reached the operation is interrupted, whichever it is.
   * Default: `native`.
   */
  readonly cancel?: "native" | "scope" | "any"
  /** Cancels a second time at later operations, in the finalizers of the first too. */
  readonly twice?: boolean
  /** Makes the program anew for every step (the default), or once for the whole sweep: they find different bugs. */
  readonly fresh?: boolean
  /**
   * How many first operations of each fiber are left alone. Default: none. A scheduler holds a fiber up only after
   * thousands of operations; what hands ownership to a fiber relies on its first few being one step.
   */
  readonly young?: number
}

/** The reason that `cancel: "scope"` sends. */
export const sweepReason: CancelReason = { _tag: "Requested", message: "cancelled by the sweep" }

/** The program in a cancel scope, which is given out so that it can be cancelled. */
const inScope = <A, E>(
  program: Effect.Effect<A, E>,
  give: (scope: CancelScope.CancelScope) => void
): Effect.Effect<A, E> =>
  Effect.flatMap(
    CancelScope.run((own) => {
      give(own)
      return program
    }),
    (outcome): Effect.Effect<A> =>
      outcome._tag === "Done" ? Effect.succeed(outcome.value) : Effect.failCause(toCause(outcome.reason))
  )

/** The check as an answer: true, or what it threw. */
const verdict = (check: () => unknown): Effect.Effect<true | string> =>
  Effect.suspend(() => {
    const checked = check()
    return Effect.isEffect(checked) ? (checked as Effect.Effect<unknown, unknown>) : Effect.succeed(checked)
  }).pipe(
    Effect.as(true as const),
    Effect.catchCause((cause) => Effect.succeed(`its check says: ${String(cause)}`))
  )

const twoCancels = () => 120 * repeats

/** Sweeps a program; throws the report when a step breaks it. Gives the number of steps swept. */
export const sweep = async <A, E>(
  makeProgram: () => Swept<A, E>,
  { cancel = "native", fresh = true, twice = false, young = 0 }: SweepOptions = {}
): Promise<number> => {
  let scope: CancelScope.CancelScope | undefined
  const modes = cancel === "any" ? (["root", "any"] as const) : (["root"] as const)
  // The fibers of a clean-up are inside of the primitives: nobody else could cancel them, other than with `any`.
  const two = cancel === "any" ? (["finalizers"] as const) : (["twice"] as const)
  const report = await Effect.runPromise(
    Testing.sweep(
      {
        setup: Effect.gen(function* () {
          const made = makeProgram()
          yield* Testing.Probe.invariant("the run", ({ cancelled, exit }) =>
            verdict(() => {
              const run = exit as Exit.Exit<A, E>
              if (!cancelled && Exit.isFailure(run)) throw new Error(`ended in ${String(run.cause)}`)
              if (!cancelled && Exit.isSuccess(run) && "answer" in made)
                deepStrictEqual(run.value, made.answer, "wrong answer")
              return made.after?.(run, { cancelled })
            })
          )
          return cancel === "scope"
            ? inScope(made.program, (own) => {
                scope = own
              })
            : made.program
        })
      },
      {
        modes: twice ? two : modes,
        states: twice || fresh ? ["fresh"] : ["kept"],
        maxRuns: twoCancels(),
        young,
        ...(cancel === "scope"
          ? {
              cancel: (victim: Fiber.Fiber<unknown, unknown>) =>
                scope === undefined ? victim.interruptUnsafe() : Effect.runSync(scope.cancel(sweepReason))
            }
          : {})
      }
    )
  )
  // With which exit a cancelled run may end is said by its check: some of this work dies by itself.
  const findings = report.findings.filter(({ kind }) => kind !== "Defect")
  if (findings.length > 0) throw new Error(Testing.formatSweep({ ...report, findings }))
  return report.steps
}

/** Every kind of sweep over one program. Gives the number of steps of each. */
export const sweepAll = async <A, E>(makeProgram: () => Swept<A, E>): Promise<ReadonlyArray<number>> => {
  const steps: Array<number> = []
  for (const cancel of ["native", "scope"] as const)
    for (const options of [{ fresh: true }, { fresh: false }, { twice: true }])
      steps.push(await sweep(makeProgram, { cancel, ...options }))
  return steps
}
