/**
 * What an agent of the library does, in log lines, and how it stops with the program.
 *
 * **Invariants**
 * 1. One line for each tunnel that opens or closes and for each failure to open one; disconnects that heal are no errors.
 * 2. The drain of the shutdown is the agent's own: it tells the peer, and waits for the calls.
 */
import { Shutdown } from "@curfew/shutdown"
import type { Agent, TunnelHandle, TunnelOpenError } from "@curfew/tunnel"
import { status as Code } from "@grpc/grpc-js"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Log } from "./log.ts"
import { endText } from "./tunnelText.ts"
import type { Address } from "./values.ts"

const why = ({ advice, details }: TunnelOpenError): string => {
  const [line = ""] = details.split("\n")
  return advice === undefined ? line : `${line}. ${advice}`
}

/** Logs what happens to an agent, and tells of the tunnels that open. */
export const logging = (
  log: Log,
  gateway: Address,
  opened: (tunnel: TunnelHandle) => void
): ((event: Agent.AgentEvent) => void) => {
  const at = { gateway: gateway.text }
  return (event) => {
    switch (event._tag) {
      case "Opened":
        opened(event.tunnel)
        log.info("tunnel opened", at)
        return
      case "Closed":
        log.info("tunnel closed", {
          ...at,
          ms: Math.round(Duration.toMillis(event.lasted)),
          reason: endText(event.end)
        })
        return
      case "PeerDrains":
        log.info("the gateway drains; opening the next tunnel", at)
        return
      case "Refused":
        log.warn("the gateway refuses the tunnel", {
          ...at,
          code: Code[event.error.code] ?? "",
          reason: event.error.details
        })
        return
      case "StateChanged": {
        const { state } = event
        if (state._tag !== "Waiting") return
        const { attempt, delay, failure } = state
        const again = { ...at, attempt, againInMs: Math.round(Duration.toMillis(delay)) }
        if (failure._tag === "Ended") log.debug("connecting again", again)
        else log.warn("not connected", { ...again, reason: why(failure.error) })
      }
    }
  }
}

/** Stops an agent with the program. */
export const stopping = (agent: Agent.Agent, name: string): Effect.Effect<void, never, Scope.Scope> =>
  Shutdown.onDrain(name, agent.stop())
