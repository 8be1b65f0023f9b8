import type { TaskScope } from "@curfew/scope"
import type * as Duration from "effect/Duration"

/**
 * What shared work can be told, for one piece of work and for a map alike.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SharedOptions {
  /**
   * What happens to a run that nobody observes any more. `cancel` (the default) cancels it with the last observer that
   * leaves; `{ linger }` does so that much later, unless a new observer comes; `keep` lets it end by itself.
   */
  readonly whenUnobserved?: "keep" | "cancel" | { readonly linger: Duration.Input } | undefined
  /**
   * Whether a new run waits for the clean-up of the one before. `exclusive` (the default): at most one of a key at any
   * time. `overlap`: it starts at once.
   */
  readonly generations?: "exclusive" | "overlap" | undefined
  /**
   * `isolated` (the default): nothing connects a run with its observers. `linked`: a run has a span of its own, and that
   * span and those of the observers link to each other. In both, the services come from where the work was made.
   */
  readonly context?: "isolated" | "linked" | undefined
  /** Answers for the runs. Default: the surrounding `Owner`. */
  readonly owner?: TaskScope.TaskScope | undefined
}

/**
 * The state of shared work at one moment, and counts since it was made.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface SharedStatistics {
  /** Fibers that wait for a result now. */
  readonly observers: number
  /** Generations whose start waits for the clean-up of the one before. */
  readonly waiting: number
  /** Runs at work. */
  readonly running: number
  /** Cancelled runs that have not ended yet. */
  readonly cleaningUp: number
  /** Cancelled runs that overran the clean-up budget and have not ended since. */
  readonly stuck: number
  /** Exits that are held for later observers. */
  readonly retained: number
  /** Runs started so far. */
  readonly started: number
  /** Observers so far that joined a generation which was there already. */
  readonly joined: number
  /** Observers so far that were answered with a retained exit. */
  readonly hits: number
}
