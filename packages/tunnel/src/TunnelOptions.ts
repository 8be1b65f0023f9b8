import type * as Duration from "effect/Duration"
import type { TunnelEvent } from "./TunnelEvent.ts"

/**
 * Limits and observation of a tunnel. Everything is optional and every limit has a bounded default.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelOptions {
  /** Bytes of one received message. A longer one ends its call with `RESOURCE_EXHAUSTED`. Default 4 MiB. */
  readonly maxMessageSize?: number
  /** Streams of one tunnel at the same time. One more is refused with `RESOURCE_EXHAUSTED`. Default 1,024. */
  readonly maxStreams?: number
  /**
   * Handlers that one tunnel may run at the same time, those among them that did not end when they were cancelled and
   * were left behind. One more call is refused with `RESOURCE_EXHAUSTED`. Default 1,024.
   */
  readonly maxHandlers?: number
  /**
   * Payload bytes that one tunnel may hold, of all its streams and both directions together: what came and waits for
   * a reader, and what waits to be sent. Above it the call that holds most ends with `RESOURCE_EXHAUSTED`. Default 64
   * MiB, or twice `maxMessageSize` if that is more.
   */
  readonly maxBuffered?: number
  /** Bytes of one block of metadata. A larger one ends its call with `RESOURCE_EXHAUSTED`. Default 64 KiB. */
  readonly maxMetadataSize?: number
  /** Payload bytes that the peer may send ahead on each stream. Default 65,536, which is what other peers use. */
  readonly window?: number
  /**
   * Whether streams have windows, where the peer has them too. Default true. Off, a reader that stops does not make its
   * peer stop: its stream ends with `RESOURCE_EXHAUSTED` at `maxUnread`.
   */
  readonly flowControl?: boolean
  /** Bytes of one stream without windows that may wait for their reader. Default 4 MiB. */
  readonly maxUnread?: number
  /** How long the peer may take for its response headers and its settings. Default 10 seconds. */
  readonly openTimeout?: Duration.Input
  /** Called synchronously with everything that happens. What it throws is reported; when absent, no event is built. */
  readonly observer?: (event: TunnelEvent) => void
}
