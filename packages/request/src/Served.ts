import type { CancelReason } from "@curfew/reason"
import type { Cell } from "@curfew/reason/CancelCell"
import type { Instant, Owner } from "@curfew/scope"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { Answer } from "./Endpoint.ts"
import { makeRequest, type RequestState, type StateOptions } from "./internal/requestContext.ts"
import { check } from "./internal/runCall.ts"
import { makeServed } from "./internal/served.ts"
import { type CallInfo, DefaultOnDisconnect, type OnDisconnect } from "./OnDisconnect.ts"
import type { PeerSignal } from "./PeerSignal.ts"
import type { RequestContext } from "./RequestContext.ts"

/**
 * What goes on with a call's answer. Effects that these give are run masked; where there is nothing to run they give
 * `undefined`, and no fiber takes a step for it.
 *
 * @stability internal
 * @since 0.1.0
 */
export interface Edge<A, E> {
  /** Receives the answer, once. `early` is true when the handler still runs. */
  readonly answer: (answer: Answer<A, E>, early: boolean) => Effect.Effect<void> | undefined
  /** Nothing of the handler has run: its fiber was interrupted before its first operation. */
  readonly neverStarted: () => Effect.Effect<void> | undefined
  /** Told in the turn of a cancel of the handler, whoever sent it. */
  readonly cancelled: (reason: CancelReason) => void
  /** Receives an exit that the edge no longer takes, within the clean-up budget. */
  readonly dropped: (exit: Exit.Exit<A, E>) => Effect.Effect<unknown>
}

/**
 * What a call is served with.
 *
 * @stability internal
 * @since 0.1.0
 */
export interface ServedOptions<A, E> extends CallInfo {
  readonly edge: Edge<A, E>
  readonly peer: PeerSignal
  readonly policy: OnDisconnect
  readonly owner: Owner["Service"]
  /** What the handler runs in. */
  readonly context: Context.Context<never>
  /** The remote deadline. */
  readonly deadline?: Instant.Instant | undefined
  /** The transport stops the call at the deadline, until its peer has gone: no timer is needed before that. */
  readonly deadlineKept?: boolean | undefined
  readonly request?: RequestContext | undefined
  /** The deadline was set in this very turn, and lies ahead: nobody asks at the start whether it is over. */
  readonly deadlineAhead?: boolean | undefined
  /** The clock of the deadline. Default: the context's. */
  readonly clock?: Clock.Clock | undefined
  /** Whose the deadline is. Default: `remote`. */
  readonly deadlineOrigin?: "local" | "remote" | undefined
  /**
   * Takes in what the handler acquires: it closes with a handler that was interrupted, and is the edge's to close after any
   * other. Default: a scope of the call's own, which closes before the edge is told.
   */
  readonly scope?: Scope.Closeable | undefined
  /** Where the handler finds out what becomes of its edge, which does not reach it. */
  readonly outer?: Cell | undefined
}

/**
 * `Endpoint.run` for an edge that is told instead of waiting: the handler's fiber, under its owner, is the only one of
 * an ordinary call. False when the owner takes no work; nothing has run then, and the edge hears nothing.
 *
 * @stability internal
 * @since 0.1.0
 */
export const startUnsafe = <A, E>(handler: Effect.Effect<A, E>, options: ServedOptions<A, E>): boolean =>
  makeServed(options, options.request as RequestState | undefined).start(handler)

/**
 * The policy of a call: the mark of its handler, or what {@link DefaultOnDisconnect} says, which is a function of the
 * program's and may throw. What is none is an `IllegalArgument`.
 *
 * @stability internal
 * @since 0.1.0
 */
export const policyUnsafe = (
  mark: OnDisconnect | undefined,
  context: Context.Context<never>,
  call: CallInfo
): OnDisconnect => {
  const policy = mark ?? Context.get(context, DefaultOnDisconnect)(call)
  check(policy)
  return policy
}

/**
 * A request for such a call. It is finished by `finishUnsafe`, whose effect, if it gives one, has to be run masked.
 *
 * @stability internal
 * @since 0.1.0
 */
export const requestUnsafe = (
  options: StateOptions,
  context: Context.Context<never>
): RequestContext & { readonly finishUnsafe: () => Effect.Effect<void> | undefined } =>
  // Without a receiver of its record a request reads no clock.
  makeRequest(options, context, (options.onEnd && Context.get(context, Clock.Clock)) as Clock.Clock)

export type { StateOptions }
