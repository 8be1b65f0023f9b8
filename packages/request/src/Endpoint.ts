import type { CancelReason } from "@curfew/reason"
import type { Instant, Owner, TaskScope } from "@curfew/scope"
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Metric from "effect/Metric"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { CurrentCall as currentCall, droppedTotal } from "./internal/currentCall.ts"
import { runCall } from "./internal/runCall.ts"
import type { CallInfo, OnDisconnect } from "./OnDisconnect.ts"
import type { PeerSignal } from "./PeerSignal.ts"

/**
 * What the edge does next.
 *
 * | answer | meaning | the edge |
 * | --- | --- | --- |
 * | `Value` | the handler's value | sends it |
 * | `Failure` | the handler's failure or defect, or an interrupt that was not its own | maps it; `statusOfAnswer` knows the last |
 * | `Cancelled` | a deadline, a limit, a shutdown | sends `statusOf(reason)` |
 * | `Dropped` | the peer has gone | sends nothing; `exit` is the handler's, once it is known, for the log alone |
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Answer<A, E> =
  | { readonly _tag: "Value"; readonly value: A }
  | { readonly _tag: "Failure"; readonly cause: Cause.Cause<E> }
  | { readonly _tag: "Cancelled"; readonly reason: CancelReason }
  | {
      readonly _tag: "Dropped"
      readonly reason: CancelReason
      readonly exit: Option.Option<Exit.Exit<A, E>>
    }

/**
 * What an edge says about a call.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EndpointOptions<A, E, R2 = never> extends CallInfo {
  /** What the edge tells about the other end. */
  readonly peer: PeerSignal
  /** Default: the handler's mark, then {@link DefaultOnDisconnect}. */
  readonly policy?: OnDisconnect | undefined
  /** Answers for the handler. Default: the surrounding {@link Owner}. */
  readonly owner?: TaskScope.TaskScope | undefined
  /** For authors of edges: the place that the owner has given the call already, for which it answers in any case. */
  readonly place?: TaskScope.Place | undefined
  /** For authors of edges: calls back at an instant unless it was disarmed, in place of a timer for this call alone. */
  readonly timer?: ((at: number, fire: () => void) => () => void) | undefined
  /** When the handler is cancelled with `Deadline`. Default: never. */
  readonly deadline?: Instant.Instant | undefined
  /** Whose the deadline is. Default: `local`. */
  readonly deadlineOrigin?: "local" | "remote" | undefined
  /** What an interrupt of the edge's own fiber means, where it carries no reason. `ClientGone` follows the policy. */
  readonly classify?: ((cause: Cause.Cause<never>) => CancelReason | undefined) | undefined
  /**
   * Receives an exit that no edge takes any more. Masked, within the clean-up budget. Default: a failure reaches
   * `OnUnhandled`, a value is dropped.
   */
  readonly onDropped?: ((exit: Exit.Exit<A, E>) => Effect.Effect<unknown, never, R2>) | undefined
}

/**
 * The call that the running work belongs to.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Call extends CallInfo {
  readonly peer: PeerSignal
  readonly policy: OnDisconnect
  /**
   * Observes the work on behalf of somebody else than its peer, until the `Scope` closes: a client that came back with
   * a token, say. While it is observed the grace does not run; it begins anew when the last observer leaves. False
   * when the work has ended or is being cancelled.
   */
  readonly observe: Effect.Effect<boolean, never, Scope.Scope>
}

/**
 * The call that the running work belongs to, if any.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const CurrentCall: Context.Reference<Call | undefined> = currentCall

/**
 * How many answers had nobody to go to, by the attributes `method` and `transport`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const answersDropped: Metric.Counter<number> = droppedTotal

/**
 * Runs a handler for a call and says what to answer: the one mechanism behind all edges.
 *
 * **Guarantees**
 *
 * - **The policy governs the peer's leaving (L39)**: and is the same whatever the transport.
 * - **Everything else interrupts (L39)**: deadline, limit, forced shutdown. Under `shield` and `detach` the answer goes
 *   out at once; under `cancel` and `grace` after the clean-up. Either way the clean-up is bounded by the budget.
 * - **Always able to ask (L39)**: the handler, shielded or not, knows whether its peer is there.
 * - **Completed is not cancelled (L40)**: `complete` interrupts nothing.
 * - **One receiver**: the edge gets the handler's exit, or `onDropped` does, and then it is counted.
 * - **The first cause stands**: a value that was there before the peer left, or before a cancel, is a `Value`.
 * - **No start (L5)**: with a deadline in the past, a call stopped already, or under `cancel` a peer that has gone, the
 *   handler does not start.
 * - **Leased (L38)**: the handler holds the current request from its start to its end.
 * - **A closed owner takes no work (L46)**: then the handler runs attached to the edge, `detach` behaves as `shield`,
 *   and that is counted once.
 *
 * **When cancelled**
 *
 * An interrupt of the edge with `ClientGone`, or one that `classify` says is that, is the peer's leaving: the policy
 * applies, and the edge waits as long as it would have. Any other interrupts the handler. In a mask no interrupt
 * comes through (L44); the peer's signal does.
 *
 * **Gotchas**
 *
 * A handler without a mark still runs when its answer has gone out at a deadline: resources that the edge releases then
 * are gone for its clean-up. Under `detach` the handler's `Scope` is its own, so nothing in its value may hang by it.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { CancelReason } from "@curfew/reason"
 * import { cancellable, Endpoint, PeerSignal, statusOfAnswer } from "@curfew/request"
 * import { Owner } from "@curfew/scope"
 *
 * const peer = PeerSignal.makeUnsafe()
 * const call = { method: "GET /search", kind: "request", transport: "http1", peer } as const
 * const leaves = Effect.sync(() => peer.goneUnsafe(CancelReason.ClientGone({ transport: "http1" })))
 *
 * const program = Endpoint.run(cancellable(Effect.andThen(leaves, Effect.never)), call)
 * const answer = await Effect.runPromise(Effect.provide(program, Owner.layer()))
 * answer._tag // => "Dropped"
 * statusOfAnswer(answer) // => { http: 499, grpc: 1 }
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const run = <A, E, R, R2 = never>(
  handler: Effect.Effect<A, E, R>,
  options: EndpointOptions<A, E, R2>
): Effect.Effect<Answer<A, E>, never, R | NoInfer<R2> | Owner> => runCall(handler, options)
