/**
 * Who may open a tunnel.
 *
 * **Invariants**
 * 1. Whoever is refused is told why in a sentence, before a tunnel is made of its call.
 * 2. The secret is compared in constant time, and never logged.
 */
import { AccessRefused, type Authenticate, type TunnelOpening } from "@curfew/tunnel"
import { status as Code, type Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import type { GatewayFlags } from "./flags.ts"
import type { Log } from "./log.ts"
import { agentKey, hasToken } from "./secure.ts"
import * as Values from "./values.ts"

/** The key that an agent says of itself. */
const keyOf = (metadata: Metadata): string => {
  const [key] = metadata.get(agentKey)
  return typeof key === "string" ? key : ""
}

type Asked = Pick<GatewayFlags, "allowKeys" | "token">

const judge = ({ allowKeys, token }: Asked) => {
  const known = token === undefined ? () => true : hasToken(token)
  return ({ kind, metadata }: TunnelOpening): string | AccessRefused => {
    if (!known(metadata)) {
      return AccessRefused.unauthenticated(
        "The gateway asks for a token: start with the same --token as the gateway"
      )
    }
    if (kind === "forward") return ""
    const key = keyOf(metadata)
    if (Values.key(key) instanceof Values.Takes) {
      return AccessRefused.permissionDenied(
        `An agent needs a key of lower-case letters and digits; send it as the metadata "${agentKey}" of the tunnel`
      )
    }
    return allowKeys !== undefined && !allowKeys.includes(key)
      ? AccessRefused.permissionDenied(`The key "${key}" is not one of the gateway's --allow-keys`)
      : key
  }
}

/** Lets a tunnel in and gives the key of its agent, or refuses it and says so in the log. */
export const admitting = (flags: Asked, log: Log): Authenticate<string> => {
  const judged = judge(flags)
  return (opening) =>
    Effect.suspend(() => {
      const key = judged(opening)
      if (typeof key === "string") return Effect.succeed(key)
      const { code, details } = key
      log.warn("tunnel refused", { peer: opening.peer, code: Code[code] ?? "", details })
      return Effect.fail(key)
    })
}
