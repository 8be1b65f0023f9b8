/**
 * The limits of a tunnel with their defaults filled in.
 *
 * **Invariants**
 * 1. Every limit is finite.
 */
import * as Duration from "effect/Duration"
import type { TunnelOptions } from "../TunnelOptions.ts"
import { defaultWindow, maxUint32, type Revision, revisionOne, revisionZero } from "./frame.ts"

export interface Limits {
  readonly maxMessageSize: number
  readonly maxStreams: number
  readonly maxMetadataSize: number
  readonly window: number
  readonly maxUnread: number
  /** In ascending order; never empty. */
  readonly revisions: ReadonlyArray<Revision>
  readonly openTimeout: Duration.Duration
  readonly authTimeout: Duration.Duration
  readonly insecureCredentials: boolean
}

const whole = (value: number | undefined, fallback: number, max: number): number =>
  value === undefined || Number.isNaN(value) ? fallback : Math.max(1, Math.min(Math.floor(value), max))

export const limitsOf = (options: TunnelOptions): Limits => ({
  maxMessageSize: whole(options.maxMessageSize, 4 * 1024 * 1024, maxUint32),
  maxStreams: whole(options.maxStreams, 1024, Number.MAX_SAFE_INTEGER),
  maxMetadataSize: whole(options.maxMetadataSize, 65_536, maxUint32),
  window: whole(options.window, defaultWindow, 0x7fff_ffff),
  maxUnread: whole(options.maxUnread, 4 * 1024 * 1024, Number.MAX_SAFE_INTEGER),
  revisions: options.flowControl === false ? [revisionZero] : [revisionZero, revisionOne],
  openTimeout: Duration.fromInputUnsafe(options.openTimeout ?? "10 seconds"),
  authTimeout: Duration.fromInputUnsafe(options.authTimeout ?? "5 seconds"),
  insecureCredentials: options.insecureCredentials === true
})
