/**
 * How the end of a tunnel is told.
 *
 * **Invariants**
 * 1. A peer that leaves is expected: one line, no stack.
 */
import { describe } from "@curfew/reason"
import type { TunnelEnd, TunnelEvent } from "@curfew/tunnel"
import * as Duration from "effect/Duration"
import type { LiveTunnel } from "./desk.ts"
import type { Log } from "./log.ts"

export const endText = (end: TunnelEnd): string => {
  switch (end._tag) {
    case "ClosedHere":
      return `closed here: ${describe(end.reason)}`
    case "ClosedByPeer":
      return "closed by the peer"
    case "Lost":
    case "Violated":
      return end.error.message
  }
}

export const logClosed = (
  log: Log,
  { key, kind, opened, peer }: LiveTunnel,
  { duration, end }: Extract<TunnelEvent, { readonly _tag: "TunnelClosed" }>
): void =>
  log.info(kind === "forward" ? "forward tunnel closed" : "tunnel closed", {
    ...(key === "" ? {} : { key }),
    peer,
    calls: opened,
    ms: Math.round(Duration.toMillis(duration)),
    reason: endText(end)
  })
