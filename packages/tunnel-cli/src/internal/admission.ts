/**
 * Who may open a tunnel.
 *
 * **Invariants**
 * 1. Whoever is refused is told why in a sentence, before a tunnel is made of its call.
 * 2. The secret is compared in constant time, and never logged.
 */
import { status as Code, type Metadata, type UntypedServiceImplementation } from "@grpc/grpc-js"
import type { GatewayFlags } from "./flags.ts"
import type { Log } from "./log.ts"
import { type Incoming, refuse } from "./relay.ts"
import { agentKey, hasToken } from "./secure.ts"
import * as Values from "./values.ts"

/** The key that an agent says of itself. */
export const keyOf = ({ metadata }: { readonly metadata: Metadata }): string => {
  const [key] = metadata.get(agentKey)
  return typeof key === "string" ? key : ""
}

type Refusal = readonly [code: number, details: string]

const judge = (flags: Pick<GatewayFlags, "allowKeys" | "token">) => {
  const { allowKeys, token } = flags
  const known = token === undefined ? () => true : hasToken(token)
  return (metadata: Metadata, agent: boolean): Refusal | undefined => {
    if (!known(metadata)) {
      return [
        Code.UNAUTHENTICATED,
        "The gateway asks for a token: start with the same --token as the gateway"
      ]
    }
    if (!agent) return undefined
    const key = keyOf({ metadata })
    if (Values.key(key) instanceof Values.Takes) {
      return [
        Code.INVALID_ARGUMENT,
        `An agent needs a key; send it as the metadata "${agentKey}" of the tunnel`
      ]
    }
    return allowKeys !== undefined && !allowKeys.includes(key)
      ? [Code.PERMISSION_DENIED, `The key "${key}" is not one of the gateway's --allow-keys`]
      : undefined
  }
}

/** The tunnel service, with the door in front of it. */
export const admitting = (
  { OpenReverseTunnel, OpenTunnel }: UntypedServiceImplementation,
  flags: Pick<GatewayFlags, "allowKeys" | "token">,
  log: Log
): UntypedServiceImplementation => {
  const refusal = judge(flags)
  const guarded =
    (open: unknown, agent: boolean) =>
    (call: Incoming): void => {
      const refused = refusal(call.metadata, agent)
      if (refused === undefined) {
        const accept = open as (call: Incoming) => void
        accept(call)
        return
      }
      const [code, details] = refused
      log.warn("tunnel refused", { peer: call.getPeer(), code: Code[code] ?? "", details })
      refuse(call, code, details)
    }
  return { OpenTunnel: guarded(OpenTunnel, false), OpenReverseTunnel: guarded(OpenReverseTunnel, true) }
}
