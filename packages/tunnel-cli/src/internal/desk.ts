/**
 * What a running command knows of itself: tunnels, calls in flight, and what became of the others.
 *
 * **Invariants**
 * 1. started = in flight + completed + failed + cancelled, at any moment.
 * 2. A call is counted once, when both of its legs have ended.
 * 3. What callers choose (methods, keys) is held only while it is in use; the totals have a bounded number of names.
 */
import type { Side, TunnelEvent, TunnelKind, TunnelStats } from "@curfew/tunnel"
import { type ChannelInterface, status as Code } from "@grpc/grpc-js"
import type * as Effect from "effect/Effect"
import type { Bytes, RelayEnd } from "./relay.ts"

export interface LiveTunnel {
  readonly id: number
  readonly kind: TunnelKind
  /** Which end of the tunnel this is: `client` calls, `server` is called. */
  readonly side: Side
  readonly peer: string
  /** Monotonic milliseconds. */
  readonly openedAt: number
  /** Empty for a forward tunnel, and until the tunnel can be picked. */
  key: string
  /** For the end that calls. */
  channel: ChannelInterface | undefined
  stats: Effect.Effect<TunnelStats> | undefined
  /** Streams that are open. */
  streams: number
  opened: number
  cancelled: number
}

export interface LiveCall {
  readonly method: string
  readonly key: string
  readonly peer: string
  readonly bytes: Bytes
  readonly startedAt: number
}

export interface Totals {
  started: number
  completed: number
  failed: number
  /** Refused before they began: nobody was there to take them. */
  refused: number
  readonly codes: Map<string, number>
  readonly cancelled: Map<string, number>
  readonly bytes: Bytes
  tunnelsOpened: number
  tunnelsClosed: number
}

const bump = (counts: Map<string, number>, name: string): void => {
  counts.set(name, (counts.get(name) ?? 0) + 1)
}

export class Desk {
  readonly role: "gateway" | "agent" | "connect"
  readonly startedAt: number
  readonly tunnels = new Map<number, LiveTunnel>()
  readonly calls = new Set<LiveCall>()
  readonly totals: Totals = {
    started: 0,
    completed: 0,
    failed: 0,
    refused: 0,
    codes: new Map(),
    cancelled: new Map(),
    bytes: { requests: 0, responses: 0 },
    tunnelsOpened: 0,
    tunnelsClosed: 0
  }
  /** Where it listens and what it dials, by flag. */
  readonly addresses: Record<string, string> = {}
  /** Whether calls can be served now. */
  ready: () => boolean = () => true

  constructor(role: Desk["role"], startedAt: number) {
    this.role = role
    this.startedAt = startedAt
  }

  begin(call: LiveCall): void {
    this.totals.started++
    this.calls.add(call)
  }

  end(call: LiveCall, { cancelled, code }: RelayEnd): void {
    if (!this.calls.delete(call)) return
    const { bytes, codes, cancelled: reasons } = this.totals
    bytes.requests += call.bytes.requests
    bytes.responses += call.bytes.responses
    bump(codes, Code[code] ?? "UNKNOWN")
    if (cancelled !== undefined) bump(reasons, cancelled._tag)
    else if (code === Code.OK) this.totals.completed++
    else this.totals.failed++
  }

  /** Payload bytes so far, of calls in flight as well. */
  get bytes(): Bytes {
    const sum = { ...this.totals.bytes }
    for (const { bytes } of this.calls) {
      sum.requests += bytes.requests
      sum.responses += bytes.responses
    }
    return sum
  }

  /** Keeps the book of tunnels from their events; gives a tunnel that has just closed. */
  hear(event: TunnelEvent, now: number): LiveTunnel | undefined {
    if (event._tag === "TunnelOpened") {
      const { kind, peer, side, tunnel } = event
      this.totals.tunnelsOpened++
      this.tunnels.set(tunnel, {
        id: tunnel,
        kind,
        side,
        peer,
        openedAt: now,
        key: "",
        channel: undefined,
        stats: undefined,
        streams: 0,
        opened: 0,
        cancelled: 0
      })
      return undefined
    }
    const tunnel = this.tunnels.get(event.tunnel)
    if (tunnel === undefined) return undefined
    if (event._tag === "StreamOpened") {
      tunnel.streams++
      tunnel.opened++
    } else if (event._tag === "StreamClosed") tunnel.streams--
    else if (event._tag === "StreamCancelled") tunnel.cancelled++
    else if (event._tag === "TunnelClosed") {
      this.totals.tunnelsClosed++
      this.tunnels.delete(event.tunnel)
      return tunnel
    }
    return undefined
  }

  /** The tunnels of a key that calls can go through. */
  withKey(key: string): ReadonlyArray<LiveTunnel> {
    return [...this.tunnels.values()].filter((tunnel) => tunnel.key === key && tunnel.channel !== undefined)
  }
}
