/**
 * Which agent a call names.
 *
 * **Invariants**
 * 1. The metadata wins over the host: who sets it means it.
 * 2. An address in numbers names nobody.
 */
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
