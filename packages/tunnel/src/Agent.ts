import type { ChannelInterface } from "@grpc/grpc-js"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as internal from "./internal/agent.ts"
import * as calling from "./internal/callingAgent.ts"
import type { LoadedTunnel, Policy } from "./Picking.ts"
import type { Services } from "./Services.ts"
import type { ConnectOptions, Endpoint } from "./Tunnel.ts"
import type { ClientConstructor, TunnelHandle } from "./TunnelChannel.ts"
import type { TunnelOpenError, TunnelsNotReady } from "./TunnelError.ts"
import type { DrainedBy, TunnelEnd, TunnelKind } from "./TunnelEvent.ts"

/**
 * Why an agent has to try again: the tunnel could not be opened, or it has ended.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type AgentFailure =
  | { readonly _tag: "NotOpened"; readonly error: TunnelOpenError }
  | { readonly _tag: "Ended"; readonly end: TunnelEnd }

/**
 * Where an agent stands, or one of its tunnels.
 *
 * | state | meaning |
 * | --- | --- |
 * | `Connecting` | no tunnel is open and one is being opened; `attempt` counts from 1 since a connection that lasted |
 * | `Ready` | so many tunnels are open and take calls |
 * | `Draining` | what is open takes no new calls: the peer drains and the next tunnel is being opened, or the agent stops |
 * | `Waiting` | none is open; the next attempt comes at `until` (milliseconds since 1970), after the `failure`; `attempt` counts those since a connection that lasted |
 * | `Stopped` | the agent was stopped, or gave up on a refusal, which is `failure` then |
 *
 * @stability unstable
 * @since 0.1.0
 */
export type AgentState =
  | { readonly _tag: "Connecting"; readonly attempt: number }
  | { readonly _tag: "Ready"; readonly tunnels: number }
  | { readonly _tag: "Draining"; readonly by: DrainedBy }
  | {
      readonly _tag: "Waiting"
      readonly attempt: number
      readonly until: number
      readonly delay: Duration.Duration
      readonly failure: AgentFailure
    }
  | { readonly _tag: "Stopped"; readonly failure: AgentFailure | undefined }

/**
 * What happens to an agent, as data. `slot` numbers its parallel tunnels from 0.
 *
 * `Refused` is a refusal that cannot heal by itself: `UNAUTHENTICATED`, `PERMISSION_DENIED` or `UNIMPLEMENTED`. It comes
 * before the `Waiting` or the `Stopped` that follows from it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type AgentEvent =
  | { readonly _tag: "StateChanged"; readonly slot: number; readonly state: AgentState }
  | { readonly _tag: "Opened"; readonly slot: number; readonly tunnel: TunnelHandle }
  | {
      readonly _tag: "Closed"
      readonly slot: number
      readonly end: TunnelEnd
      readonly lasted: Duration.Duration
    }
  /** The peer announced it, or sent GOAWAY: the next tunnel is opened now. */
  | { readonly _tag: "PeerDrains"; readonly slot: number; readonly tunnel: TunnelHandle }
  | { readonly _tag: "Refused"; readonly slot: number; readonly error: TunnelOpenError }

/**
 * How long to wait between attempts. The bound grows from `initial` by `factor` to `cap`, and each wait is chosen evenly
 * between a fifth of `initial` and the bound.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface BackoffOptions {
  /** Default 500 milliseconds. */
  readonly initial?: Duration.Input | undefined
  /** Default 2. */
  readonly factor?: number | undefined
  /** Default 30 seconds. */
  readonly cap?: Duration.Input | undefined
  /** A tunnel that was open for so long lets the waits begin anew. Default 10 seconds. */
  readonly lasting?: Duration.Input | undefined
}

/**
 * Options of an agent, all optional.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface AgentOptions extends ConnectOptions {
  /** How many tunnels it keeps open side by side, each over a connection of its own. Default 1. */
  readonly tunnels?: number | undefined
  readonly backoff?: BackoffOptions | undefined
  /**
   * What follows on a refusal that cannot heal by itself. `retry`, the default: another attempt after half the cap of
   * the backoff at least, since keys and servers are replaced while agents run. `stop`: the agent stops.
   */
  readonly onRefused?: "retry" | "stop" | undefined
  /** How long calls may go on when the `Scope` ends, before they are cancelled. Default 10 seconds. */
  readonly drain?: Duration.Input | undefined
  /** How long calls may go on in a tunnel that its peer drains, where the peer does not end it. Default 10 minutes. */
  readonly retire?: Duration.Input | undefined
  /** Called synchronously with what happens. What it throws is reported, and changes nothing. */
  readonly onEvent?: ((event: AgentEvent) => void) | undefined
}

/**
 * Options of an agent that calls.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CallingAgentOptions extends AgentOptions {
  /** Which of several tunnels a call takes. Default: `roundRobin`. */
  readonly pick?: Policy<LoadedTunnel> | undefined
  /**
   * How long a call waits for a tunnel: a time, `true` for as long as its own deadline allows, `false` to fail at once
   * with `UNAVAILABLE`. Default 5 seconds.
   */
  readonly wait?: boolean | Duration.Input | undefined
}

/**
 * The end that dials, and stays connected.
 *
 * **Guarantees**
 *
 * - **Always trying**: from its start to its end each of its tunnels is open, being opened, or has an instant at which it
 *   will be; `state` says which.
 * - **Never spinning**: no attempt follows another one at once, nor one that succeeded and did not last.
 * - **Drained, not cut**: when the peer announces that it drains, or the connection gets a GOAWAY, the next tunnel is
 *   opened while the calls of the old one run to their end.
 * - **Owned**: nothing of it outlives the surrounding `Scope`.
 *
 * **When cancelled**
 *
 * The end of the `Scope` stops it as `stop` does, with the option `drain` as the limit. A cancel of the scope around it
 * cancels its calls at once.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Agent {
  readonly kind: TunnelKind
  /** The best of its tunnels' states: ready when one is. */
  readonly state: Effect.Effect<AgentState>
  /** The state of each of its parallel tunnels. */
  readonly slots: Effect.Effect<ReadonlyArray<AgentState>>
  /** The state now and after each change, until the agent has stopped. A slow reader sees the latest, and skips others. */
  readonly changes: Stream.Stream<AgentState>
  /** Whether a tunnel is open and takes calls. */
  readonly ready: Effect.Effect<boolean>
  /** Waits for that. Fails at the limit, and when the agent has stopped. Default: no limit. */
  readonly awaitReady: (limit?: Duration.Input) => Effect.Effect<void, TunnelsNotReady>
  /** The tunnels that are open, those that drain among them. */
  readonly tunnels: Effect.Effect<ReadonlyArray<TunnelHandle>>
  /**
   * Drains and closes: opens nothing more, tells the peer, waits until the calls in flight have ended, cancels those that
   * have not at the limit, and closes the tunnels. True when every call ended by itself. Default: no limit.
   *
   * **When cancelled**
   *
   * The calls that are left are cancelled.
   */
  readonly stop: (limit?: Duration.Input) => Effect.Effect<boolean>
  /** Waits until the agent has stopped, by `stop` or by a refusal, and gives that refusal. */
  readonly stopped: Effect.Effect<AgentFailure | undefined>
}

/**
 * An agent whose channel survives reconnects: any stub works over it.
 *
 * **Gotchas**
 *
 * A call that was in flight when its tunnel was lost gets `UNAVAILABLE`: nobody knows whether its handler ran.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CallingAgent extends Agent {
  /** For a stub's `channelOverride`. */
  readonly grpc: ChannelInterface
  /** A stub over the agent's tunnels. */
  readonly client: <C>(Client: ClientConstructor<C>) => C
}

/**
 * Serves through reverse tunnels, and stays connected: this end dials, the network server calls.
 *
 * **When cancelled**
 *
 * See {@link Agent}.
 *
 * **Example**
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as grpc from "@grpc/grpc-js"
 * import { Agent, Services } from "@curfew/tunnel"
 *
 * const program = Effect.gen(function* () {
 *   const gateway = { address: "127.0.0.1:1", credentials: grpc.credentials.createInsecure() }
 *   const agent = yield* Agent.serve(gateway, Services.empty, { tunnels: 2 })
 *   return yield* Effect.flip(agent.awaitReady("50 millis")) // nobody listens there
 * })
 * const error = await Effect.runPromise(Effect.scoped(program))
 * error._tag // => "TunnelsNotReady"
 * ```
 *
 * @see serveReverse for one tunnel, without reconnects
 * @stability unstable
 * @since 0.1.0
 */
export const serve = (
  to: Endpoint,
  services: Services,
  options: AgentOptions = {}
): Effect.Effect<Agent, never, Scope.Scope> => internal.serve(to, services, options)

/**
 * Calls through forward tunnels, and stays connected: this end dials and calls.
 *
 * **When cancelled**
 *
 * See {@link Agent}.
 *
 * **Example**
 *
 * ```ts no-run
 * import * as Effect from "effect/Effect"
 * import * as grpc from "@grpc/grpc-js"
 * import { Agent } from "@curfew/tunnel"
 *
 * const program = Effect.gen(function* () {
 *   const agent = yield* Agent.connect({ address: "localhost:50051", credentials: grpc.credentials.createInsecure() })
 *   yield* agent.awaitReady("10 seconds")
 *   return agent.grpc // the channel of every stub, through all reconnects
 * })
 * ```
 *
 * @see openForward for one tunnel, without reconnects
 * @stability unstable
 * @since 0.1.0
 */
export const connect = (
  to: Endpoint,
  options: CallingAgentOptions = {}
): Effect.Effect<CallingAgent, never, Scope.Scope> => calling.connect(to, options)
