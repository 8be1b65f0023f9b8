import type { TunnelChannel } from "./TunnelChannel.ts"

/**
 * A tunnel that calls are spread over.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface LoadedTunnel extends TunnelChannel {
  /** How many calls run in it now. */
  readonly streams: number
}

/**
 * A call that needs a tunnel.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CallToPlace {
  /** `/package.Service/Method`; empty where no call is placed and a tunnel itself is asked for. */
  readonly method: string
  /** The host that the call asked for, or the channel's target. */
  readonly host: string
}

/**
 * How a tunnel is chosen for a call: in turn, the one with the fewest calls, or by a function of one's own, which is
 * given the tunnels that can take a call, at least one, and may take none.
 *
 * **Guarantees**
 *
 * - **Only those that can**: a tunnel that has ended, drains, or has as many streams as it may, is not among them.
 *
 * **Gotchas**
 *
 * Called synchronously, and again for a waiting call whenever something changed. A function that throws refuses the
 * call with `INTERNAL`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type Policy<T extends LoadedTunnel = LoadedTunnel> =
  | "roundRobin"
  | "leastLoaded"
  | ((tunnels: ReadonlyArray<T>, call: CallToPlace) => T | undefined)
