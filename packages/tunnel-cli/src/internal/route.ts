/**
 * Which agent a call names, and which of several tunnels with its key gets it.
 *
 * **Invariants**
 * 1. The metadata wins over the host: who sets it means it.
 * 2. An address in numbers names nobody.
 * 3. A tunnel that has begun to close is not picked.
 */
import type { ChannelInterface } from "@grpc/grpc-js"
import type { Desk, LiveTunnel } from "./desk.ts"
import type { Incoming } from "./relay.ts"
import { agentKey } from "./secure.ts"

export interface Names {
  readonly metadata: string | undefined
  /** Keys that the host could mean, the longer one first. */
  readonly hosts: ReadonlyArray<string>
}

/** `home.example.com:8080` could mean the key `home.example.com` or the key `home`. */
const hostNames = (authority: string): ReadonlyArray<string> => {
  const host = authority.replace(/:\d+$/, "").toLowerCase()
  if (host === "" || host.startsWith("[") || /^[\d.]+$/.test(host)) return []
  const [label = ""] = host.split(".")
  return label === host ? [host] : [host, label]
}

export const namesOf = (incoming: Incoming): Names => {
  const [named] = incoming.metadata.get(agentKey)
  return {
    metadata: typeof named === "string" && named !== "" ? named : undefined,
    hosts: hostNames(incoming.getHost())
  }
}

/** Chooses a tunnel of a key for the next call. */
export const picking = (
  how: "round-robin" | "least-loaded",
  desk: Desk
): ((key: string) => ChannelInterface | undefined) => {
  let turn = 0
  return (key) => {
    const tunnels = desk.withKey(key)
    if (how === "round-robin") return tunnels[turn++ % tunnels.length]?.channel
    const least = tunnels.reduce<LiveTunnel | undefined>(
      (best, tunnel) => (best === undefined || tunnel.streams < best.streams ? tunnel : best),
      undefined
    )
    return least?.channel
  }
}
