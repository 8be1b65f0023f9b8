/**
 * What follows from an agent's slots, and from how a tunnel failed.
 *
 * **Invariants**
 * 1. An agent is as good as the best of its slots.
 */
import { status as Code } from "@grpc/grpc-js"
import type { AgentState } from "../Agent.ts"
import type { TunnelEnd } from "../TunnelEvent.ts"

const ranks: Readonly<Record<AgentState["_tag"], number>> = {
  Ready: 0,
  Draining: 1,
  Connecting: 2,
  Waiting: 3,
  Stopped: 4
}

const better = (one: AgentState, other: AgentState): AgentState => {
  if (one._tag === "Ready" && other._tag === "Ready") {
    return { _tag: "Ready", tunnels: one.tunnels + other.tunnels }
  }
  if (one._tag === "Waiting" && other._tag === "Waiting") return other.until < one.until ? other : one
  return ranks[other._tag] < ranks[one._tag] ? other : one
}

export const best = (states: ReadonlyArray<AgentState>): AgentState => states.reduce(better)

/** Refusals that another attempt meets as well, until somebody changes something. */
export const isPermanent = (code: number): boolean =>
  code === Code.UNAUTHENTICATED || code === Code.PERMISSION_DENIED || code === Code.UNIMPLEMENTED

/** How grpc-js tells of an HTTP/2 `ENHANCE_YOUR_CALM`, which is a server's answer to too many pings. */
export const tooManyPings = (end: TunnelEnd): boolean =>
  end._tag === "Lost" && end.error.code === Code.RESOURCE_EXHAUSTED
