/**
 * `curfew-tunnel agent`: dials the gateway and passes what comes through to the backend.
 *
 * **Invariants**
 * 1. A backend that is down costs calls, never the tunnel.
 * 2. While it shuts down, calls that run go on and new ones are refused.
 */
import { Instant, type Owner } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import { Services, serveReverse } from "@curfew/tunnel"
import { status as Code } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { backendChannel, rephrasing } from "./backend.ts"
import type { Desk } from "./desk.ts"
import { stayConnected } from "./dial.ts"
import type { AgentFlags } from "./flags.ts"
import { makeForwarding } from "./forwarding.ts"
import type { Log } from "./log.ts"
import type { Mistake } from "./mistake.ts"
import type { Incoming } from "./relay.ts"
import { backendCredentials, dialCredentials, hello } from "./secure.ts"
import { logClosed } from "./tunnelText.ts"

export const agent = (
  flags: AgentFlags,
  desk: Desk,
  log: Log
): Effect.Effect<never, Mistake, Owner | Scope.Scope> =>
  Effect.gen(function* () {
    const { backend, gateway, key, maxMessage } = flags
    const credentials = yield* dialCredentials(gateway, flags)
    const channel = yield* backendChannel(backend, yield* backendCredentials(flags), maxMessage)
    const clock = yield* Clock.Clock
    const forwarding = yield* makeForwarding(desk, log)
    const rephrase = rephrasing(
      `The agent is connected, but its backend at ${backend.text} cannot be reached`
    )
    let stopping = false
    const take = (incoming: Incoming): void => {
      if (stopping) forwarding.refuse(incoming, Code.UNAVAILABLE, "The agent is shutting down")
      else forwarding.take(incoming, { key: "", channel, rephrase })
    }
    const services = Services.empty.pipe(Services.fallback(take))
    Object.assign(desk.addresses, { gateway: gateway.text, key, backend: backend.text })
    desk.ready = () => !stopping && [...desk.tunnels.values()].some((tunnel) => tunnel.key === key)
    yield* Shutdown.onStop(
      "new calls",
      Effect.sync(() => (stopping = true))
    )
    log.info("agent ready", desk.addresses)
    return yield* stayConnected({
      at: gateway,
      log,
      open: serveReverse({ address: gateway.text, credentials }, services, {
        metadata: hello(flags.token, key),
        maxMessageSize: maxMessage,
        observer: (event) => {
          const tunnel = desk.hear(event, Instant.nowOf(clock))
          if (tunnel?.key === key && event._tag === "TunnelClosed") logClosed(log, tunnel, event)
        }
      }),
      whileOpen: ({ id, peer, stats }) =>
        Effect.sync(() => {
          const tunnel = desk.tunnels.get(id)
          if (tunnel === undefined) return
          Object.assign(tunnel, { key, stats })
          log.info("tunnel opened", { key, peer })
        })
    })
  })
