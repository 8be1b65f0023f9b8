import type { ChannelInterface } from "@grpc/grpc-js"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type { LoadedTunnel, Policy } from "./Picking.ts"
import type { TunnelsNotReady } from "./TunnelError.ts"

/**
 * A reverse tunnel at the network server, which calls over it.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ReverseTunnel<out I = unknown> extends LoadedTunnel {
  /** What `affinityKey` said. */
  readonly key: string
  /** Who opened it: what `authenticate` gave. */
  readonly identity: I
}

/**
 * Which tunnels a channel calls over, how it picks one, and what happens while there is none.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ReverseChannelOptions<in out I = unknown> {
  /** Only tunnels with this key. Default: all as one. */
  readonly key?: string | undefined
  /** Default: `roundRobin`. */
  readonly pick?: Policy<ReverseTunnel<I>> | undefined
  /**
   * Whether a call waits for a tunnel that can take it, or for how long at most. It never waits longer than its own
   * deadline, and a cancelled call stops waiting. Default false: the call gets `UNAVAILABLE` at once, or
   * `RESOURCE_EXHAUSTED` where every tunnel has as many streams as it may.
   */
  readonly wait?: boolean | Duration.Input | undefined
}

/**
 * What became of a reverse tunnel: it can be picked from now on, it takes no new calls, it can no longer be picked.
 *
 * `sequence` counts the changes of a service from 1.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ReverseChange<out I = unknown> {
  readonly _tag: "Opened" | "Draining" | "Closed"
  readonly sequence: number
  readonly key: string
  readonly tunnel: ReverseTunnel<I>
}

/**
 * The reverse tunnels of a `TunnelService` that are open. Without a key every tunnel counts.
 *
 * **Guarantees**
 *
 * - **Only those that can**: neither a pick nor a channel gives a tunnel that has ended, drains, or has as many streams as
 *   it may.
 * - **Nothing kept**: a key without tunnels and without waiters occupies no memory.
 *
 * **When cancelled**
 *
 * Who waits stops waiting, and is forgotten.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ReverseTunnels<in out I = unknown> {
  readonly list: Effect.Effect<ReadonlyArray<ReverseTunnel<I>>>
  /** The keys that occupy memory: those of open tunnels, and those that somebody waits for. */
  readonly keys: Effect.Effect<ReadonlyArray<string>>
  /** The next tunnel in turn. */
  readonly pick: (key?: string) => Effect.Effect<Option.Option<ReverseTunnel<I>>>
  /** Waits until there is one, then the next in turn. */
  readonly awaitReverse: (key?: string) => Effect.Effect<ReverseTunnel<I>>
  /** Whether a call could be placed now. */
  readonly ready: (key?: string) => Effect.Effect<boolean>
  /** Waits until a call can be placed. Default: no limit. */
  readonly awaitReady: (key?: string, limit?: Duration.Input) => Effect.Effect<void, TunnelsNotReady>
  /** A channel that picks a tunnel for each call. */
  readonly channel: (options?: ReverseChannelOptions<I>) => ChannelInterface
  /** Whether new reverse tunnels are taken. */
  readonly accepting: Effect.Effect<boolean>
  /**
   * Takes new reverse tunnels, or answers them `UNAVAILABLE`, from now on. Those that are open stay as they are. Where the
   * service was made with `reverse: false` they are answered `UNIMPLEMENTED` in any case.
   */
  readonly setAccepting: (accepting: boolean) => Effect.Effect<void>
  /**
   * What happens from now on, until the service ends. A reader that is more than 1,024 changes behind misses the oldest
   * of them, and a gap in `sequence` tells it so.
   */
  readonly changes: Stream.Stream<ReverseChange<I>>
}
