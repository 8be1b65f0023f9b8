import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { defaults } from "./internal/defaults.ts"
import { explain } from "./internal/explain.ts"
import { sweeping } from "./internal/sweeping.ts"
import { swept } from "./internal/swept.ts"
import { type Sweepable, toSubject } from "./Subject.ts"
import type { SweepReport } from "./SweepReport.ts"

/**
 * How far a sweep goes. Every option has a default.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SweepOptions {
  /** Stands in the report. Default: the subject's own. */
  readonly name?: string | undefined
  /**
   * Who is cancelled, and how often. `root`: the program's own fiber. `any`: the fiber that is at the step, when it
   * is not the root. `twice`: the root, and again later, at each later step. `finalizers`: the root, and then the
   * fiber that is at a later step, in the clean-up. Default: all but `any`, which also cancels fibers inside of
   * libraries that nobody else could reach: use it where the program's own fibers can be cancelled by others.
   */
  readonly modes?: ReadonlyArray<"root" | "any" | "twice" | "finalizers"> | undefined
  /**
   * `fresh`: the setup runs for every run. `kept`: it runs once, and the runs follow each other on its state. They
   * find different bugs. Default: both (`twice` and `finalizers` only with fresh state).
   */
  readonly states?: ReadonlyArray<"fresh" | "kept"> | undefined
  /** How the victim is cancelled. Default: it is interrupted. */
  readonly cancel?: ((victim: Fiber.Fiber<unknown, unknown>) => void) | undefined
  /** Virtual time that work may go on after its run before it counts as left. Default: none. */
  readonly settle?: Duration.Input | undefined
  /** Real time to wait for an event from outside, such as of a socket. Default: some turns of the event loop. */
  readonly patience?: Duration.Input | undefined
  /** Runs for each of the modes with two cancels; above it they move in strides. Default: 5,000. */
  readonly maxRuns?: number | undefined
  /** The last step at which a run is cancelled. Default: 20,000. */
  readonly maxSteps?: number | undefined
  /**
   * How many operations at the start of each fiber but the root are no steps. A scheduler holds a fiber up only after
   * thousands of operations, and what hands a thing to a new fiber may rely on its first few being one step.
   * Default: none.
   */
  readonly young?: number | undefined
  /** Called before each run, or group of runs. */
  readonly onProgress?: ((progress: SweepProgress) => void) | undefined
}

/**
 * Where a sweep is.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SweepProgress {
  readonly mode: "root" | "any" | "twice" | "finalizers"
  readonly state: "fresh" | "kept"
  readonly step: number
  /** How many steps there are, as far as known: a cancelled run can have more. */
  readonly of: number
}

/**
 * Cancels a program at every step: runs it again and again, cancelled one step later each time, until a run ends
 * without having got there. Says what each cancel broke.
 *
 * Effect asks its scheduler before every primitive operation whether to yield. A step is such a question; at step n
 * the answer is yes, and the cancel comes before anything else runs, as it would from the event loop. Time is virtual:
 * it jumps to the next sleeper when nothing is runnable.
 *
 * **Guarantees**
 *
 * - **Every place**: each operation of each fiber of the run is a step, clean-up included.
 * - **No impossible window**: a cancel comes only where a real one can, while the fiber waits for its turn. The first
 *   operation after a fiber was resumed is no step: Effect goes on there at once.
 * - **Deterministic**: the same program gives the same steps and the same findings, unless it waits for the outside.
 * - **Each run is checked**: it terminates, leaves no fiber, satisfies the probes, and is followed by a normal run with
 *   the right answer.
 *
 * **When cancelled**
 *
 * The run that is under way is abandoned, and none of its fibers runs again.
 *
 * **Gotchas**
 *
 * A loop that never yields to Effect cannot be ended. Work inside `Effect.promise` is one operation: it is cancelled
 * before or during it, not at its inner awaits.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { Probe, sweep } from "@curfew/testing"
 *
 * const handler = {
 *   name: "GET /report",
 *   setup: Effect.map(Probe.resource("connection"), (connection) =>
 *     Effect.scoped(Effect.andThen(connection.scoped, Effect.sleep("1 second")))
 *   )
 * }
 * const report = Effect.runSync(sweep(handler))
 * report.ok // => true
 * ```
 *
 * @see explore for schedules in place of cancels.
 * @stability unstable
 * @since 0.1.0
 */
export const sweep = <A, E, R = never, E2 = never, R2 = never>(
  program: Sweepable<A, E, R, E2, R2>,
  options: SweepOptions = {}
): Effect.Effect<SweepReport, E2, R | Exclude<R2, Scope.Scope>> => {
  const subject = toSubject(program)
  const name = options.name ?? subject.name
  const swept_ = Effect.contextWith((context: Context.Context<never>) => {
    const self = {
      subject: subject as never,
      context,
      stage: defaults(options),
      modes: options.modes ?? (["root", "twice", "finalizers"] as const),
      states: options.states ?? (["fresh", "kept"] as const),
      maxRuns: options.maxRuns ?? 5_000,
      maxSteps: options.maxSteps ?? 20_000,
      cancel: options.cancel ?? ((fiber: Fiber.Fiber<unknown, unknown>) => fiber.interruptUnsafe()),
      onTrial: (mode: SweepProgress["mode"], state: SweepProgress["state"], step: number, of: number) =>
        options.onProgress?.({ mode, state, step, of })
    }
    return Effect.flatMap(sweeping<E2>(self), ({ baseline, complete, raw, runs }) =>
      Effect.map(explain(raw, self), (findings) => {
        const report: SweepReport = {
          name,
          ok: findings.length === 0,
          steps: baseline.steps,
          runs,
          complete,
          findings
        }
        if (name !== undefined) swept.set(name, report)
        return report
      })
    )
  })
  return swept_ as Effect.Effect<SweepReport, E2, R | Exclude<R2, Scope.Scope>>
}
