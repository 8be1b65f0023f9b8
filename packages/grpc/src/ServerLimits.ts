import type * as Duration from "effect/Duration"

/**
 * What one call may use. Every limit has a bounded default; a call that passes one is cancelled with `LimitExceeded`,
 * whatever its policy, and answered `RESOURCE_EXHAUSTED` or the status of choice.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface CallLimits {
  /** Messages of a request stream. Default: 1,000,000. */
  readonly requests?: number | undefined
  /** Encoded bytes of all requests together. Default: 1 GiB. */
  readonly requestBytes?: number | undefined
  /** Messages of a response stream. Default: 10,000,000. */
  readonly responses?: number | undefined
  /** Encoded bytes of all responses together. Default: 4 GiB. */
  readonly responseBytes?: number | undefined
  /** From the call's arrival to its answer, whatever the client's deadline. Default: 1 day. */
  readonly time?: Duration.Input | undefined
  /** What the handler may spend of its {@link WorkBudget}, in units of its own. Default: 1,000,000,000. */
  readonly work?: number | undefined
}

/**
 * How many calls may run at the same time. One more is refused with `RESOURCE_EXHAUSTED` before anything of it runs; a
 * call counts until its request has ended, handler and all, so clients that leave early make no room.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ConcurrencyLimits {
  /** On the whole server. Default: 10,000. */
  readonly calls?: number | undefined
  /** Of each method. Default: 10,000. */
  readonly perMethod?: number | ((method: string) => number) | undefined
  /** Of each peer: a connection, or a tunnel. Default: 1,000. */
  readonly perPeer?: number | ((peer: string) => number) | undefined
}

/**
 * The names of the limits, as they stand in `LimitExceeded`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type LimitName =
  | keyof CallLimits
  | "concurrent calls"
  | "concurrent calls of the method"
  | "concurrent calls of the peer"

/**
 * The status code of a call that passed a limit. Default: `RESOURCE_EXHAUSTED` for all.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type LimitStatus = (limit: LimitName) => number
