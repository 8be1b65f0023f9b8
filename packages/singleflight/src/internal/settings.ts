/**
 * What one piece of shared work, or one map of them, was made with.
 *
 * Invariants
 * 1. The context of a run is the maker's, without what belongs to the maker's own call: its scope, its span, its log
 *    spans and its cell. Nothing of an observer gets in.
 * 2. Time is the maker's clock: observers with another one share the same exit for the same time.
 * 3. `linger` is in milliseconds; zero cancels with the last observer, infinity keeps.
 */
import { CurrentCell } from "@curfew/reason/CancelCell"
import { CleanupBudget, type TaskScope } from "@curfew/scope"
import { millisUnsafe } from "@curfew/scope/Argument"
import * as Instant from "@curfew/scope/Instant"
import { ownerOfUnsafe } from "@curfew/scope/Owner"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import type { SharedOptions } from "../SharedOptions.ts"
import { InRun } from "./waits.ts"

export interface Settings<K, A, E> {
  readonly lookup: (key: K) => Effect.Effect<A, E, Scope.Scope>
  readonly nameOf: (key: K) => string
  readonly retain: ((exit: Exit.Exit<A, E>, key: K) => Duration.Input) | undefined
  readonly owner: TaskScope.TaskScope
  readonly context: Context.Context<never>
  readonly clock: Clock.Clock
  readonly budget: Duration.Duration
  readonly linger: number
  readonly exclusive: boolean
  readonly linked: boolean
  /** What statistics cannot count by looking. */
  readonly counts: { started: number; joined: number; hits: number; stuck: number }
}

export const makeSettings = <K, A, E>(
  made: Context.Context<never>,
  lookup: (key: K) => Effect.Effect<A, E, never>,
  nameOf: (key: K) => string,
  retain: ((exit: Exit.Exit<A, E>, key: K) => Duration.Input) | undefined,
  options: SharedOptions | undefined
): Settings<K, A, E> => {
  const whenUnobserved = options?.whenUnobserved ?? "cancel"
  return {
    lookup,
    nameOf,
    retain,
    owner: options?.owner ?? ownerOfUnsafe(made),
    context: strip(made),
    clock: Context.get(made, Clock.Clock),
    budget: Context.get(made, CleanupBudget),
    linger:
      whenUnobserved === "keep"
        ? Number.POSITIVE_INFINITY
        : whenUnobserved === "cancel"
          ? 0
          : Math.max(0, millisUnsafe("the linger of the shared work", whenUnobserved.linger)),
    exclusive: options?.generations !== "overlap",
    linked: options?.context === "linked",
    counts: { started: 0, joined: 0, hits: 0, stuck: 0 }
  }
}

/** The present instant, in monotonic milliseconds. */
export const nowOf = ({ clock }: { readonly clock: Clock.Clock }): number => Instant.nowOf(clock)

const strip = (made: Context.Context<never>): Context.Context<never> =>
  Context.omit(
    Scope.Scope,
    Tracer.ParentSpan
  )(made as Context.Context<Scope.Scope>).pipe(
    Context.add(References.CurrentLogSpans, []),
    Context.add(CurrentCell, undefined),
    Context.add(InRun, true)
  ) as Context.Context<never>
