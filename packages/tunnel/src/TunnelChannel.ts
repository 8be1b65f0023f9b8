import type { CancelReason } from "@curfew/reason"
import type * as Grpc from "@grpc/grpc-js"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { DrainedBy, TunnelEnd, TunnelKind } from "./TunnelEvent.ts"

/**
 * What a tunnel has carried so far.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelStats {
  /** Streams whose tasks run now. */
  readonly streams: number
  /** Deadlines that are armed now: never more than streams. */
  readonly deadlines: number
  /** Streams that have something to send and no credit for it: their readers at the other end have stopped. */
  readonly blocked: number
  /** Payload bytes of all streams that wait, for a reader here or to be sent: never more than `maxBuffered`. */
  readonly held: number
  readonly opened: number
  readonly cancelled: number
  readonly refused: number
  readonly lateWrites: number
  /** Payload bytes, of messages alone. */
  readonly sentBytes: number
  readonly receivedBytes: number
}

/**
 * What both ends of a tunnel have.
 *
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelHandle {
  /** Names the tunnel in the events of this process. */
  readonly id: number
  readonly kind: TunnelKind
  /** The address of the other end of the outer call. */
  readonly peer: string
  /** What the peer said when the outer call was opened: its request headers, or its response headers. */
  readonly metadata: Grpc.Metadata
  /** Waits until the tunnel has ended and everything in it has been cleaned up. */
  readonly closed: Effect.Effect<TunnelEnd>
  /** Cancels what runs with the reason, waits for it, and closes the outer call. */
  readonly close: (reason?: CancelReason) => Effect.Effect<void>
  /**
   * Opens and takes no new streams on this tunnel from now on, says so to a peer of this library, and waits until what
   * is in flight has ended and the last of it is written: true, or false when the limit passed first. A new call over
   * the tunnel gets `UNAVAILABLE`, from either end. Without a limit it waits for as long as the calls take.
   *
   * **When cancelled**
   *
   * Stops waiting; the tunnel stays as it is and takes no new streams.
   */
  readonly drain: (limit?: Duration.Input) => Effect.Effect<boolean>
  /** Whether one of the two ends drains: no new stream can be opened. */
  readonly draining: Effect.Effect<boolean>
  /** Waits until one of the two ends drains, and tells which. */
  readonly awaitDraining: Effect.Effect<DrainedBy>
  readonly stats: Effect.Effect<TunnelStats>
}

/** The constructor of a grpc-js stub. */
export type ClientConstructor<C> = new (
  address: string,
  credentials: Grpc.ChannelCredentials,
  options?: Partial<Grpc.ClientOptions>
) => C

/**
 * The calling end of a tunnel: any grpc-js stub works over it.
 *
 * **Guarantees**
 *
 * - **One status**: each call gets exactly one, after all its messages, and never inside one of the stub's own calls.
 * - **Cancel crosses**: a cancelled call or a passed deadline reaches the handler at the other end.
 * - **No call outlives its tunnel**: when the tunnel ends, what is in flight gets `UNAVAILABLE`.
 *
 * **When cancelled**
 *
 * `close` and the end of the surrounding scope cancel every stream with a reason and wait for each, within the
 * clean-up budget.
 *
 * **Gotchas**
 *
 * Closing a stub leaves the tunnel open. `close` from inside a call of the same tunnel waits for that call.
 *
 * @see openForward, and `TunnelService` for the calling end of reverse tunnels
 * @stability unstable
 * @since 0.1.0
 */
export interface TunnelChannel extends TunnelHandle {
  /** For a stub's `channelOverride`. */
  readonly grpc: Grpc.ChannelInterface
  /** A stub over this tunnel. */
  readonly client: <C>(Client: ClientConstructor<C>) => C
}
