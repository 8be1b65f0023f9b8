import type * as Duration from "effect/Duration"
import type { TunnelEvent } from "./TunnelEvent.ts"

/**
 * HTTP/2 pings on the connection below a tunnel. A peer that is gone is noticed within `time` and `timeout` together.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface KeepaliveOptions {
  /** How long after the last ping the next one is sent. Default 30 seconds. */
  readonly time?: Duration.Input | undefined
  /** How long its answer may take. Default 10 seconds. */
  readonly timeout?: Duration.Input | undefined
}

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
  /** Payload bytes that the peer may send ahead on each new stream. Default 65,536, which is what other peers use. */
  readonly window?: number
  /**
   * Payload bytes that the peer may come to send ahead on a stream that moves much and whose reader keeps up. All that
   * the streams of a tunnel have come to have beyond their `window` is a quarter of `maxBuffered` at most. Not above
   * `window`, windows do not grow. Default 4 MiB.
   */
  readonly maxWindow?: number
  /**
   * Whether streams have windows, where the peer has them too. Default true. Off, a reader that stops does not make its
   * peer stop: its stream ends with `RESOURCE_EXHAUSTED` at `maxUnread`.
   */
  readonly flowControl?: boolean
  /** Bytes of one stream without windows that may wait for their reader. Default 4 MiB. */
  readonly maxUnread?: number
  /** How long the peer may take for its response headers and its settings. Default 10 seconds. */
  readonly openTimeout?: Duration.Input
  /** How long the hooks that let tunnels and calls in may take. Default 5 seconds. */
  readonly authTimeout?: Duration.Input
  /**
   * Whether the credentials of a call may travel although the connection below the tunnel is not encrypted: everybody on
   * the way can read them then. Default false: such a call gets `UNAUTHENTICATED`.
   */
  readonly insecureCredentials?: boolean
  /** Called synchronously with everything that happens. What it throws is reported; when absent, no event is built. */
  readonly observer?: (event: TunnelEvent) => void
}
