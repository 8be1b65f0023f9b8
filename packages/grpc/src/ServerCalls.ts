import type { CancelReason } from "@curfew/reason"
import type { Transport } from "@curfew/request/OnDisconnect"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import { CallTable } from "./internal/serverCallTable.ts"
import type { ConcurrencyLimits, LimitStatus } from "./ServerLimits.ts"

/**
 * A call was cancelled.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CallCancelled {
  readonly id: string
  readonly method: string
  readonly transport: Transport
  readonly reason: CancelReason
  /** Before the handler ran, while it ran, or when part of the response was out. */
  readonly phase: "waiting" | "running" | "responding"
}

/**
 * A call that runs.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface LiveCall {
  readonly id: string
  readonly method: string
  readonly peer: string
  readonly transport: Transport
}

/**
 * How the calls of a server are counted and watched.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ServerCallsOptions {
  readonly limits?: ConcurrencyLimits | undefined
  /** Default: `RESOURCE_EXHAUSTED`. */
  readonly limitStatus?: LimitStatus | undefined
  /** Called synchronously with every cancellation. What it throws is logged. */
  readonly onCancelled?: ((event: CallCancelled) => void) | undefined
  /** Events that wait for a slow reader of `cancellations`. Default: 1,024; what does not fit is counted as lost. */
  readonly eventBuffer?: number | undefined
}

/**
 * The calls of one server, over all of its services and transports.
 *
 * **Guarantees**
 *
 * - **Counted to the end**: a call stands here until its answer is out, its handler has ended, and nobody
 *   leases its request.
 * - **Refused before it begins**: over a limit, or after `refuse`, nothing of a call runs.
 *
 * @see GrpcServer which makes one; make one yourself to share it between a server and a tunnel.
 * @stability unstable
 * @since 0.1.0
 */
export interface ServerCalls {
  readonly live: Effect.Effect<ReadonlyArray<LiveCall>>
  readonly inFlight: Effect.Effect<number>
  readonly cancellations: Stream.Stream<CallCancelled>
  /** New calls are answered `UNAVAILABLE` from now on. */
  readonly refuse: Effect.Effect<void>
  /** Waits until no call runs: true, or false when the limit passed first. */
  readonly drain: (limit?: Duration.Input) => Effect.Effect<boolean>
  /** Cancels every call that runs, whatever its policy. Does not wait. */
  readonly cancel: (reason: CancelReason) => Effect.Effect<void>
}

/**
 * The calls that services made here belong to; without it each service has calls of its own.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const CurrentServerCalls: Context.Reference<ServerCalls | undefined> =
  /* @__PURE__ */ Context.Reference("@curfew/grpc/CurrentServerCalls", {
    defaultValue: (): ServerCalls | undefined => undefined
  })

/**
 * Makes the calls of a server.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { ServerCalls } from "@curfew/grpc"
 *
 * const calls = Effect.runSync(ServerCalls.make({ limits: { calls: 100 } }))
 * Effect.runSync(calls.inFlight) // => 0
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
export const make = (options: ServerCallsOptions = {}): Effect.Effect<ServerCalls> =>
  Effect.contextWith((context: Context.Context<never>) => CallTable.make(options, context))
