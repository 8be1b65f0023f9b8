import * as Data from "effect/Data"
import { adviceOn, oneLine } from "./internal/advice.ts"

/**
 * A tunnel could not be opened: the outer call failed, or the two ends have no protocol revision in common.
 *
 * `code` is the gRPC status code of the failure.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class TunnelOpenError extends /* @__PURE__ */ Data.TaggedError("TunnelOpenError")<{
  readonly code: number
  readonly details: string
}> {
  override get message(): string {
    const { advice } = this
    const said = `The tunnel could not be opened: ${oneLine(this.details)}.`
    return advice === undefined ? said : `${said} ${advice}.`
  }

  /**
   * What to do about it, where the details are known to mean something: TLS that does not fit, an address where nobody
   * listens.
   *
   * @since 0.1.0
   */
  get advice(): string | undefined {
    return adviceOn(this.details)
  }
}

/**
 * The connection below a tunnel ended with an error. Calls that were in flight end with `UNAVAILABLE`.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class TunnelLost extends /* @__PURE__ */ Data.TaggedError("TunnelLost")<{
  readonly code: number
  readonly details: string
}> {
  override get message(): string {
    return `The tunnel's connection was lost: ${this.details}.`
  }
}

/**
 * The rules whose violation ends a whole tunnel. Every other mistake of a peer ends the one call it belongs to.
 *
 * @stability unstable
 * @since 0.1.0
 */
export type TunnelRule =
  /** A frame whose bytes do not even tell which stream they belong to. */
  | "unreadable-frame"
  /** The first frame of a tunnel server is its settings, on the id −1. */
  | "settings-first"
  /** The ids of new streams increase strictly and are not negative. */
  | "ids-increase"
  /** A frame speaks of a stream that was never opened. */
  | "stream-unknown"
  /** The peer provokes answers without reading them. */
  | "answers-unread"

/**
 * The peer broke a rule that the whole tunnel rests on.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class ProtocolViolation extends /* @__PURE__ */ Data.TaggedError("ProtocolViolation")<{
  readonly rule: TunnelRule
  readonly detail: string
  readonly streamId: number | undefined
}> {
  override get message(): string {
    return `The peer broke the tunnel protocol: ${this.detail}.`
  }
}

/**
 * What a write gets whose peer has left: the call was cancelled, its deadline passed, or the tunnel ended.
 *
 * It is a value. A handler's pending write callback receives it; nothing throws it and nothing logs it as an error.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class PeerGone extends /* @__PURE__ */ Data.TaggedError("PeerGone")<{
  readonly streamId: number
  readonly method: string
}> {
  override get message(): string {
    return `The peer of ${this.method} has left.`
  }
}

/**
 * No tunnel could take a call within the limit.
 *
 * @stability unstable
 * @since 0.1.0
 */
export class TunnelsNotReady extends /* @__PURE__ */ Data.TaggedError("TunnelsNotReady")<{
  /** What was waited for: the key, or what the agent calls itself. */
  readonly what: string
}> {
  override get message(): string {
    return `${this.what} was not ready in time: see that the other end runs, can be reached, and is let in.`
  }
}
