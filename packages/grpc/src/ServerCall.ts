import type { PeerCertificate } from "node:tls"
import type { CancelReason } from "@curfew/reason"
import { CurrentCall } from "@curfew/request/Endpoint"
import type { Transport } from "@curfew/request/OnDisconnect"
import type { Instant } from "@curfew/scope"
import type { Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { GrpcError } from "./GrpcError.ts"
import type { MetadataInput } from "./internal/metadata.ts"
import { callOf } from "./internal/server/handlerCall.ts"
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
  /**
   * Spends what is left, at most so many units, and gives how many: never zero. When nothing is left it cancels the call
   * with `LimitExceeded` and ends interrupted, in a mask too. For work that is done in portions.
   */
  readonly take: (upTo: number) => Effect.Effect<number>
  readonly left: Effect.Effect<number>
}

/**
 * A tunnel of `@curfew/tunnel` as the handlers of its calls see it: who opened it, and how.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CallTunnel {
  /** `forward` where the caller opened it, `reverse` where this end did. */
  readonly kind: "forward" | "reverse"
  /** The address of the other end of the outer call. */
  readonly peer: string
  /** What that end said on opening: its request headers, or its response headers. */
  readonly metadata: Metadata
  readonly secure: boolean
  /** Its certificate, where TLS verified one. */
  readonly certificate?: PeerCertificate | undefined
  /** What the hook `authenticate` found out about it. */
  readonly identity?: unknown
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
  /** The tunnel that it came through, if it did. */
  readonly tunnel: Option.Option<CallTunnel>
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
  /** When that reason came, if one did: clean-up can say how long ago by `Instant.now`. */
  readonly cancelledAt: Effect.Effect<Option.Option<Instant.Instant>>
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
  /**
   * The call object of grpc-js or of the tunnel, for what is not here. That of a tunnel has the events and the methods
   * that all call objects share, and neither stream: those are the handler's.
   */
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
