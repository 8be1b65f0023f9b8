import type { OnDisconnect } from "@curfew/request/OnDisconnect"
import type * as Duration from "effect/Duration"
import type { EdgeRecord, EdgeRequest } from "./EdgeRecord.ts"
import type { UnreadBody } from "./internal/body.ts"

export type { UnreadBody }

/**
 * A client's own deadline.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ClientDeadline {
  /** The header that carries it: a number of milliseconds, or one with a unit, `250ms`, `5s`. Anything else is a 400. */
  readonly header: string
  /** What a client gets at most. A longer wish is cut to it. */
  readonly max: Duration.Input
}

/**
 * Signs of life that a client is asked for while its handler computes.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface Heartbeat {
  /** Between two of them. */
  readonly every: Duration.Input
  /** How long a client of HTTP/2 may take to answer a PING. Default: as long as `every`. HTTP/1 has no answers. */
  readonly within?: Duration.Input | undefined
}

/**
 * What can be said about one handler; what is not said there is taken from its edge.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface HandlerOptions {
  /** `/orders/:id`. Stands with the method in reports and counters. Default: the method alone, which has few values. */
  readonly route?: string | undefined
  /** Default: the handler's mark, then that of the edge, then `DefaultOnDisconnect`. */
  readonly policy?: OnDisconnect | undefined
  /** Whether the client waits for one answer or takes in a stream. Default: `request`. */
  readonly kind?: "request" | "stream" | undefined
  /** How long the handler may take; then 504. Default: no limit. */
  readonly deadline?: Duration.Input | undefined
  /** Default: clients have no say. */
  readonly clientDeadline?: ClientDeadline | undefined
  /** Default: read ahead up to 1 MiB, which is what a body may have, unless `bodyBytes` says more. */
  readonly body?: UnreadBody | undefined
  /** The most that a body may have; over it 413. Default: 1 MiB. */
  readonly bodyBytes?: number | undefined
  /** What a client means that sends its FIN and would still read. Default: `gone`, as node has it. */
  readonly halfClose?: "gone" | "stays" | undefined
  /** Default: none. */
  readonly heartbeat?: Heartbeat | undefined
  /** The status and the words for what a handler fails with. Default: 500, and no words of the failure's. */
  readonly mapError?: ((error: unknown) => ErrorAnswer | undefined) | undefined
}

/**
 * What a failure is answered with.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface ErrorAnswer {
  readonly status: number
  readonly message: string
}

/**
 * What holds for all handlers of an edge.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface EdgeOptions extends Omit<HandlerOptions, "route" | "kind"> {
  /** Stands in reports. Default: `http`. */
  readonly name?: string | undefined
  /** How many requests may be under way; more are answered 503. Default: 10,000. */
  readonly requests?: number | undefined
  /** Is told of each request when it starts, also of one that is refused. Each has its record later. What it throws is logged. */
  readonly onStart?: ((request: EdgeRequest) => void) | undefined
  /** Is given the record of each request. What it throws is logged. */
  readonly onRecord?: ((record: EdgeRecord) => void) | undefined
  /** A use of the request after its end: a defect in tests, counted in production, or nothing. Default: `count`. */
  readonly afterEnd?: "die" | "count" | "ignore" | undefined
}
