import type { CancelReason } from "@curfew/reason"
import { CurrentCall } from "@curfew/request/Endpoint"
import type { Transport } from "@curfew/request/OnDisconnect"
import type { Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { GrpcError } from "./GrpcError.ts"
import { callOf } from "./internal/serverCallState.ts"
import type { MetadataInput } from "./internal/serverMetadata.ts"
import type { MethodKind } from "./Service.ts"

/**
 * What a handler may spend before its call is ended: hashes, rows, tokens, in units of its own.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface WorkBudget {
  /** Spends, and cancels the call with `LimitExceeded` when there is not enough left. */
  readonly spend: (units: number) => Effect.Effect<void>
  readonly left: Effect.Effect<number>
}

/**
 * The call that a handler answers.
 *
 * **Guarantees**
 *
 * - **Completed is not cancelled (L40)**: `completed` comes with the answer, `awaitPeerGone` with the peer's leaving;
 *   never both.
 * - **First reason wins (L1)**: `reason` is the first one, from wherever it came.
 *
 * **When cancelled**
 *
 * All of it can be asked in masks, shields and finalizers.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ServerCall {
  readonly id: string
  /** `/package.Service/Method`. */
  readonly method: string
  readonly kind: MethodKind
  readonly transport: Transport
  /** What the client sent with the call. */
  readonly metadata: Metadata
  /** The address of the other end; of a tunnel, the one of its outer call. */
  readonly peer: string
  /** The client's deadline in milliseconds since 1970. It is the scope's deadline as well. */
  readonly deadline: Option.Option<number>
  /** Somebody still waits for the answer. */
  readonly isActive: Effect.Effect<boolean>
  readonly awaitPeerGone: Effect.Effect<CancelReason>
  /** Runs an effect when the peer leaves, as long as the `Scope` is open. */
  readonly onPeerGone: <R>(
    effect: (reason: CancelReason) => Effect.Effect<unknown, never, R>
  ) => Effect.Effect<void, never, R | Scope.Scope>
  /** Waits until the answer has been handed to the transport. */
  readonly completed: Effect.Effect<void>
  /** Why the call is being cancelled, if it is. */
  readonly reason: Effect.Effect<Option.Option<CancelReason>>
  /** Ends the call with a status, for the server's own sake. True iff nothing ended it before. */
  readonly cancel: (status: {
    readonly code: number
    readonly details: string
    readonly metadata?: Metadata | undefined
  }) => Effect.Effect<boolean>
  /** Sends the response headers. They go out by themselves before the first message otherwise. */
  readonly sendHeaders: (headers: MetadataInput) => Effect.Effect<void, GrpcError>
  /** Sets what goes out with the status. A second call replaces the first. */
  readonly setTrailers: (trailers: MetadataInput) => Effect.Effect<void, GrpcError>
  readonly budget: WorkBudget
  /** The call object of grpc-js or of the tunnel, for what is not here. */
  readonly raw: object
}

/**
 * The call that the running work belongs to, if it belongs to one.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { ServerCall } from "@curfew/grpc"
 *
 * Effect.runSync(Effect.map(ServerCall.current, (call) => call._tag)) // => "None"
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const current: Effect.Effect<Option.Option<ServerCall>> = /* @__PURE__ */ Effect.withFiberSucceed(
  (fiber) => {
    const call = fiber.getRef(CurrentCall)
    return call === undefined ? Option.none() : Option.fromUndefinedOr(callOf(call.peer))
  }
)

export type { MetadataInput }
