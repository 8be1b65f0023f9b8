import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Finding } from "./Finding.ts"
import { defaults } from "./internal/defaults.ts"
import { type Exploring, exploring, runSchedule } from "./internal/exploring.ts"
import { type Sweepable, toSubject } from "./Subject.ts"

/**
 * How schedules are explored. Every option has a default.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ExploreOptions {
  /** Stands in the report. Default: the subject's own. */
  readonly name?: string | undefined
  /** `random`: one schedule per seed. `exhaustive`: all of them, for small programs. Default: `random`. */
  readonly mode?: "random" | "exhaustive" | undefined
  /** The first seed; the others follow. Default: 1. */
  readonly seed?: number | undefined
  /** How many schedules at most. Default: 300 by seeds, 100,000 exhaustively. */
  readonly schedules?: number | undefined
  /**
   * Where fibers can be made to yield: `yields` only where they suspend by themselves, `operations` before every
   * primitive operation while others are runnable. Default: `operations`.
   */
  readonly preempt?: "yields" | "operations" | undefined
  /** How many forced yields one schedule has at most, when exhaustive. Default: 2. */
  readonly preemptions?: number | undefined
  /** How likely a forced yield is at each operation, when random. Default: 0.1. */
  readonly probability?: number | undefined
  /**
   * How many operations at the start of each fiber but the root a forced yield leaves alone: what hands a thing to a
   * new fiber may rely on its first few being one step. Default: none.
   */
  readonly young?: number | undefined
  /** Virtual time that work may go on after its run before it counts as left. Default: none. */
  readonly settle?: Duration.Input | undefined
}

/**
 * A schedule under which something broke: replay it by `schedule`, which is the shortest one found.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface FailingSchedule {
  /** The seed that found it. */
  readonly seed: number | undefined
  /** Which alternative was taken at each decision; 0, as after the end, is what happens by itself. */
  readonly schedule: ReadonlyArray<number>
  /** How long the schedule was before it was made as short as possible. */
  readonly foundAt: number
  readonly findings: ReadonlyArray<Finding>
  /** What ran, turn by turn: the fiber, and where it stood. */
  readonly trace: ReadonlyArray<string>
}

/**
 * What the schedules of a program showed.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ExploreReport {
  readonly name: string | undefined
  readonly ok: boolean
  /** How many schedules were run, those for shrinking not counted. */
  readonly schedules: number
  /** True when there is no other schedule, within the bound on forced yields. */
  readonly complete: boolean
  readonly failure: FailingSchedule | undefined
}

const exploringOf = (
  program: Sweepable<unknown, unknown, unknown, unknown, unknown>,
  options: ExploreOptions,
  context: Context.Context<never>
): Exploring<never> => ({
  subject: toSubject(program) as never,
  context,
  stage: defaults(options),
  mode: options.mode ?? "random",
  seed: options.seed ?? 1,
  schedules: options.schedules ?? (options.mode === "exhaustive" ? 100_000 : 300),
  preemption: (options.preempt ?? "operations") === "operations",
  preemptions: options.preemptions ?? 2,
  probability: options.probability ?? 0.1
})

/**
 * Runs a program under many schedules, and checks each run by the probes of the program. Stops at the first schedule
 * that breaks something, makes it as short as it can, and says how to replay it.
 *
 * **Guarantees**
 *
 * - **Replayable**: the same seed, or the same schedule, is the same run.
 * - **Exhaustive when asked**: every choice among runnable tasks, and every placing of up to `preemptions` forced
 *   yields.
 * - **Shrunk**: no decision of the failing schedule can be put back to its default alone, and none at its end is one.
 *
 * **When cancelled**
 *
 * The run that is under way is abandoned.
 *
 * **Gotchas**
 *
 * A program has to say by a probe what is wrong; without any, only a run that does not end, dies or leaves a fiber is.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Ref from "effect/Ref"
 * import { explore, Probe } from "@curfew/testing"
 *
 * const lostUpdate = {
 *   name: "two increments",
 *   setup: Effect.gen(function* () {
 *     const ref = yield* Ref.make(0)
 *     yield* Probe.invariant("two", () => Effect.map(Ref.get(ref), (n) => n === 2))
 *     const increment = Effect.flatMap(Ref.get(ref), (n) => Ref.set(ref, n + 1)) // wrong: read, then write
 *     return Effect.all([increment, increment], { concurrency: "unbounded" })
 *   })
 * }
 * const report = Effect.runSync(explore(lostUpdate, { mode: "exhaustive" }))
 * report.failure?.findings[0]?.message // => "two does not hold"
 * ```
 *
 * @see sweep for cancels in place of schedules.
 * @stability unstable
 * @since 0.1.0
 */
export const explore = <A, E, R = never, E2 = never, R2 = never>(
  program: Sweepable<A, E, R, E2, R2>,
  options: ExploreOptions = {}
): Effect.Effect<ExploreReport, E2, R | Exclude<R2, Scope.Scope>> => {
  const report = Effect.contextWith((context: Context.Context<never>) =>
    Effect.map(
      exploring(exploringOf(program as never, options, context)),
      ({ complete, failure, schedules }) => ({
        name: options.name ?? toSubject(program).name,
        ok: failure === undefined,
        schedules,
        complete,
        failure
      })
    )
  )
  return report as Effect.Effect<ExploreReport, E2, R | Exclude<R2, Scope.Scope>>
}

/**
 * Runs a program under one schedule, given by itself or by its seed.
 *
 * **When cancelled**
 *
 * The run is abandoned.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { replay } from "@curfew/testing"
 *
 * const program = Effect.all([Effect.yieldNow, Effect.yieldNow], { concurrency: "unbounded" })
 * const once = Effect.runSync(replay(program, { seed: 7 }))
 * const again = Effect.runSync(replay(program, { schedule: once.schedule }))
 * again.trace.join() === once.trace.join() // => true
 * ```
 *
 * @see explore for where the schedule comes from.
 * @stability unstable
 * @since 0.1.0
 */
export const replay = <A, E, R = never, E2 = never, R2 = never>(
  program: Sweepable<A, E, R, E2, R2>,
  by: { readonly seed: number } | { readonly schedule: ReadonlyArray<number> },
  options: ExploreOptions = {}
): Effect.Effect<FailingSchedule, E2, R | Exclude<R2, Scope.Scope>> => {
  const run = Effect.contextWith((context: Context.Context<never>) =>
    runSchedule(exploringOf(program as never, options, context), by)
  )
  return run as Effect.Effect<FailingSchedule, E2, R | Exclude<R2, Scope.Scope>>
}

/**
 * A report as text, for a terminal or the message of a failed test.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { explore, formatExplore } from "@curfew/testing"
 *
 * const report = Effect.runSync(explore(Effect.void, { name: "nothing", mode: "exhaustive" }))
 * formatExplore(report) // => "nothing: 1 schedule, all there are, nothing broken"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const formatExplore = (report: ExploreReport): string => {
  const { complete, failure, name, schedules } = report
  const head = `${name ?? "the program"}: ${schedules} schedule${schedules === 1 ? "" : "s"}${
    complete ? ", all there are" : ""
  }, ${failure === undefined ? "nothing broken" : "broken"}`
  if (failure === undefined) return head
  return [
    head,
    ...failure.findings.map(({ kind, message }) => `  ${kind}: ${message}`),
    `  replay with { schedule: ${JSON.stringify(failure.schedule)} }${
      failure.seed === undefined ? "" : `, or { seed: ${failure.seed} } with the same options`
    }`,
    ...failure.trace.slice(0, 40).map((line) => `    ${line}`)
  ].join("\n")
}
