/**
 * What the functions of this package share: options in, an effect started, a promise out.
 *
 * Invariants
 * 1. Every error of the options is a rejection: a function that gives a promise does not throw.
 * 2. Receivers are promise functions like any other work: what they throw is told by the mechanism that called them.
 */
import { type CancelReason, fromAbort, toCause } from "@curfew/reason"
import { CleanupBudget, OnUnhandled, Owner } from "@curfew/scope"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { Cancelled, isCancelled } from "../Cancelled.ts"
import type * as Options from "../Options.ts"
import { rejected, toPromise } from "./bridge.ts"
import { durationOf } from "./durations.ts"
import { errorOf, resultOf } from "./errors.ts"
import type * as Light from "./light.ts"
import { lightly } from "./light.ts"
import { contextAt, isFree, type Start, startUnsafe } from "./place.ts"
import { checkWork, type SettleOptions, settle } from "./settle.ts"

/** How a named owner is found, without the module that makes its values. */
export const contextOfOwner = /* @__PURE__ */ new WeakMap<object, Context.Context<never>>()

export const startOf = (options: Options.WorkOptions | undefined): Start => ({
  signal: options?.signal,
  owner: options?.owner === undefined ? undefined : contextOfOwner.get(options.owner),
  name: options?.name
})

export const launch = <A>(
  make: () => Effect.Effect<A, unknown, Owner>,
  options: Options.WorkOptions | undefined
): Promise<A> => {
  try {
    const started = startUnsafe(make(), startOf(options))
    return started._tag === "Refused" ? rejected(new Cancelled(started.reason)) : toPromise(started.fiber)
  } catch (error) {
    return rejected(error)
  }
}

/** Starts without a fiber what nothing but an owner and a signal of others has to do with. */
export const launchLightly = <A>(
  options: Options.WorkOptions | undefined,
  begin: (start: Light.Start) => Promise<A> | undefined
): Promise<A> | undefined => {
  const start = startOf(options)
  const { name, signal } = start
  if (!isFree(signal)) return undefined
  const context = contextAt(start)
  return begin({ tasks: Context.get(context as Context.Context<Owner>, Owner), context, name, signal })
}

/**
 * The same for one work, which has no fiber unless it takes one. `around` is what is done with it, and ends as the work
 * does where nothing is cancelled.
 */
export const launchWork = <A>(
  work: Options.Work<A>,
  settling: SettleOptions<A>,
  options: Options.WorkOptions | undefined,
  around?: Light.Around<A>,
  limit = Number.POSITIVE_INFINITY
): Promise<A> => {
  try {
    checkWork(work)
    const light = launchLightly(options, ({ context, name, signal, tasks }) =>
      // Not by spreading: what that makes looks new to the engine after each full collection.
      lightly({ tasks, context, name, signal, work, settling, around, limit })
    )
    if (light !== undefined) return light
  } catch (error) {
    return rejected(error)
  }
  return launch(() => {
    const settled = settle(work, settling)
    return around === undefined ? settled : around(settled, limit)
  }, options)
}

/** The same for work under a time limit. */
export const launchTimed = <A extends B, B = A>(
  work: Options.Work<A>,
  limit: Duration.Input,
  options: (Options.WorkOptions & { readonly onLate?: Options.OnLate<A> | undefined }) | undefined,
  around: Light.Around<B>
): Promise<B> => {
  try {
    const millis = Duration.toMillis(durationOf("time limit", limit))
    const late = lateOf(options?.onLate) as SettleOptions<B>["late"]
    return launchWork<B>(work, { name: options?.name, late }, options, around, millis)
  } catch (error) {
    return rejected(error)
  }
}

/** A receiver of late results as the effect that the mechanism wants. */
export const lateOf = <A>(onLate: Options.OnLate<A> | undefined) =>
  onLate === undefined
    ? undefined
    : (result: PromiseSettledResult<A>): Effect.Effect<unknown> =>
        Effect.orDie(settle(() => onLate(result), { name: "onLate" }))

/** The same for a mechanism that hands over exits. An exit that is only the abort of the work is nothing late. */
export const lateExitOf = <A>(onLate: Options.OnLate<A> | undefined) => {
  const late = lateOf(onLate)
  return late === undefined ? undefined : (exit: Exit.Exit<A, unknown>) => late(resultOf(exit))
}

/** The services that options stand for. */
export const servicesOf = (options: {
  readonly budget?: Duration.Input | undefined
  readonly onUnhandled?: Options.OnUnhandled | undefined
}): ((context: Context.Context<never>) => Context.Context<never>) => {
  const { onUnhandled } = options
  const budget = options.budget === undefined ? undefined : durationOf("clean-up budget", options.budget)
  return (context) => {
    let adapted = context
    if (budget !== undefined) adapted = Context.add(adapted, CleanupBudget, budget)
    if (onUnhandled !== undefined) {
      adapted = Context.add(adapted, OnUnhandled, ({ cause, name, origin, reason }) =>
        Effect.orDie(settle(() => onUnhandled({ origin, name, error: errorOf(cause), reason })))
      )
    }
    return adapted
  }
}

/** What somebody cancels with, as a reason. */
export const reasonOf = (reason: unknown, otherwise: CancelReason): CancelReason =>
  reason === undefined ? otherwise : fromAbort(reason)

/** What code that notices an aborted signal throws. */
export const cancelledBy = (signal: AbortSignal): Cancelled =>
  isCancelled(signal.reason) ? signal.reason : new Cancelled(fromAbort(signal.reason))

export const interrupted = (reason: CancelReason): Effect.Effect<never> => Effect.failCause(toCause(reason))
