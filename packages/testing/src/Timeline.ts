import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Finding } from "./Finding.ts"
import { defaults } from "./internal/defaults.ts"
import { record } from "./internal/recorder.ts"
import { type Sweepable, toSubject } from "./Subject.ts"
import type { SweepOptions } from "./sweep.ts"

/**
 * One thing that happened in a run.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TimelineEvent {
  /** The operation of the run that was under way, from 1 on. */
  readonly step: number
  /** Virtual milliseconds since the run began. */
  readonly at: number
  /** The number of the fiber; 0 for what no fiber did. */
  readonly fiber: number
  readonly kind: "operation" | "fork" | "end" | "cancel" | "probe" | "jump"
  /** The operation's name, the fiber's exit, what a probe saw. */
  readonly what: string
  /** The function of the operation, shortened, when it is code of the program. */
  readonly code: string | undefined
  /** `file:line:column` of the innermost code of the program. */
  readonly source: string | undefined
  /** True while the fiber is in an uninterruptible region. */
  readonly masked: boolean
  /** For a probe: what became of it, and its name. */
  readonly probe: { readonly name: string; readonly what: string; readonly detail: string } | undefined
}

/**
 * Everything that happened in one run that was cancelled at one step.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Timeline {
  readonly name: string | undefined
  readonly finding: Finding | undefined
  readonly fibers: ReadonlyArray<{
    readonly index: number
    readonly parent: number | undefined
    readonly born: number
    readonly forkedAt: string | undefined
    /** Where it stands, when it has not ended. */
    readonly left: string | undefined
  }>
  readonly events: ReadonlyArray<TimelineEvent>
  /** How the run ended. */
  readonly exit: string
  /** What was broken by it, one sentence each. */
  readonly broken: ReadonlyArray<string>
}

/**
 * Runs a program once more, cancelled where a finding says, and records everything that happens.
 *
 * **Guarantees**
 *
 * - **The same run**: a deterministic program takes the same steps as in the sweep, as long as its state is fresh.
 *
 * **When cancelled**
 *
 * The run is abandoned.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { timeline } from "@curfew/testing"
 *
 * const recorded = Effect.runSync(timeline(Effect.yieldNow, { step: 1, mode: "root", second: undefined }))
 * recorded.events.some(({ kind }) => kind === "cancel") // => true
 * ```
 *
 * @see sweep for the findings.
 * @stability unstable
 * @since 0.1.0
 */
export const timeline = <A, E, R = never, E2 = never, R2 = never>(
  program: Sweepable<A, E, R, E2, R2>,
  where: Finding | Pick<Finding, "step" | "mode" | "second">,
  options: Pick<SweepOptions, "name" | "cancel" | "settle" | "patience"> = {}
): Effect.Effect<Timeline, E2, R | Exclude<R2, Scope.Scope>> => {
  const subject = toSubject(program)
  const recorded = Effect.contextWith((context: Context.Context<never>) =>
    Effect.map(
      record<E2>(
        subject as never,
        context,
        defaults(options),
        where,
        options.cancel ?? ((fiber: Fiber.Fiber<unknown, unknown>) => fiber.interruptUnsafe())
      ),
      (run): Timeline => ({
        ...run,
        name: options.name ?? subject.name,
        finding: "kind" in where ? where : undefined
      })
    )
  )
  return recorded as Effect.Effect<Timeline, E2, R | Exclude<R2, Scope.Scope>>
}
