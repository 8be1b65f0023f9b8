/**
 * The limits of a tunnel with their defaults filled in.
 *
 * **Invariants**
 * 1. Every limit is finite, infinity included: it stands for the most that the protocol or a number can mean.
 * 2. A number that means nothing is `IllegalArgument`, before any work starts.
 */
import { countUnsafe, millisUnsafe } from "@curfew/scope/Argument"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { TunnelOptions } from "../TunnelOptions.ts"
import { defaultWindow, maxUint32, type Revision, revisionOne, revisionZero } from "./frame.ts"

export interface Limits {
  readonly maxMessageSize: number
  readonly maxStreams: number
  readonly maxMetadataSize: number
  readonly window: number
  readonly maxWindow: number
  readonly maxUnread: number
  readonly maxBuffered: number
  readonly maxHandlers: number
  /** In ascending order; never empty. */
  readonly revisions: ReadonlyArray<Revision>
  readonly openTimeout: Duration.Duration
  readonly authTimeout: Duration.Duration
  readonly insecureCredentials: boolean
}

const whole = (name: string, value: number | undefined, fallback: number, max: number): number =>
  value === undefined ? fallback : Math.min(countUnsafe(`the ${name} of a tunnel`, value, 1), max)

const sizes = (options: TunnelOptions): Pick<Limits, "maxMessageSize" | "maxBuffered"> => {
  const maxMessageSize = whole("maxMessageSize", options.maxMessageSize, 4 * 1024 * 1024, maxUint32)
  const enough = Math.max(64 * 1024 * 1024, 2 * maxMessageSize)
  return {
    maxMessageSize,
    maxBuffered: whole("maxBuffered", options.maxBuffered, enough, Number.MAX_SAFE_INTEGER)
  }
}

/** What a peer may send ahead on a connection: more than a link of 50 ms at 1 Gbit/s has room for. */
export const connectionWindow = 8 * 1024 * 1024

const longestWindow = 0x7fff_ffff

const windows = (options: TunnelOptions): Pick<Limits, "window" | "maxWindow"> => {
  const window = whole("window", options.window, defaultWindow, longestWindow)
  const maxWindow = whole("maxWindow", options.maxWindow, 4 * 1024 * 1024, longestWindow)
  return { window, maxWindow: Math.max(window, maxWindow) }
}

/** Handlers of all tunnels of a service. */
export const serviceHandlers = (most: number | undefined): number =>
  whole("maxServiceHandlers", most, 16_384, Number.MAX_SAFE_INTEGER)

/** Looks at the limits before any work starts. */
export const checkLimits = (options: TunnelOptions): Effect.Effect<void> =>
  Effect.sync(() => {
    limitsOf(options)
  })

export const limitsOf = (options: TunnelOptions): Limits => ({
  ...sizes(options),
  maxStreams: whole("maxStreams", options.maxStreams, 1024, Number.MAX_SAFE_INTEGER),
  maxHandlers: whole("maxHandlers", options.maxHandlers, 1024, Number.MAX_SAFE_INTEGER),
  maxMetadataSize: whole("maxMetadataSize", options.maxMetadataSize, 65_536, maxUint32),
  ...windows(options),
  maxUnread: whole("maxUnread", options.maxUnread, 4 * 1024 * 1024, Number.MAX_SAFE_INTEGER),
  revisions: options.flowControl === false ? [revisionZero] : [revisionZero, revisionOne],
  openTimeout: Duration.millis(
    millisUnsafe("the openTimeout of a tunnel", options.openTimeout ?? "10 seconds")
  ),
  authTimeout: Duration.millis(
    millisUnsafe("the authTimeout of a tunnel", options.authTimeout ?? "5 seconds")
  ),
  insecureCredentials: options.insecureCredentials === true
})
