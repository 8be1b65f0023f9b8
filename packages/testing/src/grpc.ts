import type * as grpc from "@grpc/grpc-js"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { defaults } from "./internal/defaults.ts"
import { remoteOf } from "./internal/grpcCall.ts"
import { openGrpcJs } from "./internal/grpcJs.ts"
import { remoteSweep } from "./internal/remote.ts"
import type { SweepReport } from "./SweepReport.ts"

/**
 * Marks the effect that handles a call: its end is waited for.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Watch = <A, E, R>(handler: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * What services are added to: a `grpc.Server`, or the handling end of a tunnel.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcTarget {
  addService(service: grpc.ServiceDefinition, implementation: grpc.UntypedServiceImplementation): void
}

/**
 * A channel with what carries it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcConnection {
  readonly channel: grpc.ChannelInterface
  /** Destroys what carries the channel, as a lost network does. */
  readonly destroy: () => void
  /** Closes the channel and what carries it, in order. */
  readonly close: () => void
}

/**
 * A server that listens.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcLink {
  /** A new connection. */
  readonly connect: Effect.Effect<GrpcConnection>
  /** How many the server still has. */
  readonly connections: () => number
  /** Resumes when it has none. */
  readonly calm: Effect.Effect<void>
}

/**
 * How a server is started and reached: grpc-js, a tunnel, anything with an `addService` on one side and a channel on
 * the other.
 *
 * @see grpcJs
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcDriver<E = never, R = never> {
  readonly name: string
  /** Adds the services and starts the server, until the scope closes. */
  readonly open: (register: (target: GrpcTarget) => void) => Effect.Effect<GrpcLink, E, R | Scope.Scope>
}

/**
 * What the handlers of a sweep are made with.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcServing {
  readonly watch: Watch
  /** Runs an effect for a call, in a fiber of the server's. `tell`: nobody interrupts it when the call is cancelled. */
  readonly run: (
    call: { readonly cancelled: boolean },
    handler: Effect.Effect<unknown, unknown>,
    options?: { readonly whenGone?: "interrupt" | "tell" | undefined }
  ) => void
}

/**
 * The call that is made, again and again.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcCall {
  /** The method's name in the service definition. */
  readonly method: string
  /** What is sent: one message, or several in a stream. */
  readonly messages: ReadonlyArray<unknown>
  readonly metadata?: grpc.Metadata | undefined
  readonly options?: grpc.CallOptions | undefined
}

/**
 * A service under test, and the call to make.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcSubject<E = never, R = never> {
  readonly service: grpc.ServiceDefinition
  /** Makes the handlers and the probes, once for each server. Its scope closes with the server. */
  readonly handlers: (
    serving: GrpcServing
  ) => Effect.Effect<grpc.UntypedServiceImplementation, E, R | Scope.Scope>
  readonly call: GrpcCall
}

/**
 * What a client got.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcAnswer {
  readonly messages: ReadonlyArray<unknown>
  readonly code: number
  readonly details: string
}

/**
 * How a client leaves. `cancel`: it cancels the call. `disconnect`: its connection is destroyed.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type GrpcWay = "cancel" | "disconnect"

/**
 * How far a sweep over gRPC goes. Every option has a default.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface GrpcSweepOptions {
  /** Stands in the report, and is what `expectSwept` looks for. */
  readonly name?: string | undefined
  /** How the client leaves. `response`: a cancel at each message of the answer. Default: all. */
  readonly modes?: ReadonlyArray<GrpcWay | "response"> | undefined
  /** `fresh`: a server for each run. `kept`: one for all. Default: both. */
  readonly states?: ReadonlyArray<"fresh" | "kept"> | undefined
  /** Virtual time that work may go on after its call before it counts as left. Default: none. */
  readonly settle?: Duration.Input | undefined
  /** Real time to wait before a standstill is called one. Default: half a second. */
  readonly patience?: Duration.Input | undefined
  /** The last step at which the client leaves. Default: 20,000. */
  readonly maxSteps?: number | undefined
  /** Called before each run. */
  readonly onProgress?:
    | ((progress: {
        readonly mode: string
        readonly state: string
        readonly step: number
        readonly of: number
      }) => void)
    | undefined
}

/**
 * Cancels a gRPC call, or destroys its connection, at every step of its handler: makes the same call again and again,
 * and lets the client leave one step of the handler's fibers later each time.
 *
 * **Guarantees**
 *
 * - **Every place**: each operation of each fiber of the call is a step.
 * - **Heard at that step**: nothing of the server runs on until its end of the call knows, for a bounded number of turns.
 * - **Each run is checked**: the handler ends, no fiber and no connection is left, the probes hold, and a normal call on
 *   a new connection afterwards is answered as before.
 *
 * **When cancelled**
 *
 * The run that is under way is abandoned, and none of its fibers runs again.
 *
 * **Gotchas**
 *
 * The timers of grpc-js (its keep-alive, its back-off) are real; those of the handlers are virtual. Needs Node.
 *
 * **Example**
 *
 * ```ts no-run
 * import type { handleUnaryCall, ServiceDefinition } from "@grpc/grpc-js"
 * import * as Effect from "effect/Effect"
 * import { formatSweep } from "@curfew/testing"
 * import { grpcJs, sweepGrpc } from "@curfew/testing/grpc"
 *
 * declare const service: ServiceDefinition
 * declare const look: Effect.Effect<object>
 *
 * const report = await Effect.runPromise(
 *   sweepGrpc(grpcJs, {
 *     service,
 *     handlers: ({ run }) =>
 *       Effect.succeed({
 *         look: ((call, reply) =>
 *           run(call, Effect.map(look, (found) => reply(null, found)))) satisfies handleUnaryCall<object, object>
 *       }),
 *     call: { method: "look", messages: [{}] }
 *   })
 * )
 * console.log(formatSweep(report))
 * ```
 *
 * @see sweep for the same without a connection.
 * @stability unstable
 * @since 0.1.0
 */
export const sweepGrpc = <E, R, E2, R2>(
  driver: GrpcDriver<E, R>,
  subject: GrpcSubject<E2, R2>,
  options: GrpcSweepOptions = {}
): Effect.Effect<SweepReport, E | E2, Exclude<R | R2, Scope.Scope>> => {
  const modes = options.modes ?? (["cancel", "disconnect", "response"] as const)
  const swept = Effect.contextWith((context: Context.Context<never>) =>
    remoteSweep<GrpcWay, E | E2>({
      name: options.name,
      context,
      serve: (watch) => remoteOf(driver as GrpcDriver<E>, subject as GrpcSubject<E2>, watch),
      stage: {
        // A message takes some turns through two connections and HTTP/2.
        ...defaults({ settle: options.settle, patience: 1 }),
        live: true,
        quietTurns: 50,
        deadlockPatience: defaults({ patience: options.patience ?? 500 }).patience
      },
      ways: modes.filter((mode) => mode !== "response"),
      arrivals: modes.includes("response") ? { way: "cancel", mode: "response" } : undefined,
      states: options.states ?? (["fresh", "kept"] as const),
      maxSteps: options.maxSteps ?? 20_000,
      onTrial: (mode, state, step, of) => options.onProgress?.({ mode, state, step, of })
    })
  )
  return swept as Effect.Effect<SweepReport, E | E2, Exclude<R | R2, Scope.Scope>>
}

/**
 * The driver for grpc-js: a server on the loopback device, and for each call a channel with a connection of its own.
 *
 * **When cancelled**
 *
 * Closing the scope destroys the connections and shuts the server down.
 *
 * @stability unstable
 * @since 0.1.0
 */
export const grpcJs: GrpcDriver = { name: "grpc-js", open: openGrpcJs }
