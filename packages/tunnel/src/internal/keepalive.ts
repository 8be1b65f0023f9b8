/**
 * HTTP/2 pings: what notices a peer that is frozen or cut off, in the words of grpc-js.
 *
 * **Invariants**
 * 1. A peer that is gone is noticed within `time` and `timeout` together, from either end, also with nothing to send.
 */
import { millisUnsafe } from "@curfew/scope/Argument"
import type * as Duration from "effect/Duration"
import type { KeepaliveOptions } from "../TunnelOptions.ts"

// grpc-js hands these to Node's timers, which end at 31 bits.
const longest = 0x7fff_ffff

const timer = (name: string, input: Duration.Input): number =>
  Math.min(longest, Math.max(1, Math.ceil(millisUnsafe(`the ${name} of a keepalive`, input))))

export const keepaliveOptions = ({ time = "30 seconds", timeout = "10 seconds" }: KeepaliveOptions = {}) => ({
  "grpc.keepalive_time_ms": timer("time", time),
  "grpc.keepalive_timeout_ms": timer("timeout", timeout)
})

/** The same pings, so many times as rare. */
export const millisOfKeepalive = (keepalive: KeepaliveOptions = {}, times: number): KeepaliveOptions => ({
  ...keepalive,
  time: Math.min(longest, keepaliveOptions(keepalive)["grpc.keepalive_time_ms"] * times)
})
