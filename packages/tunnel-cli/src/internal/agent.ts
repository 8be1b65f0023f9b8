/**
 * `curfew-tunnel agent`: dials the gateway and passes what comes through to the backend.
 *
 * **Invariants**
 * 1. A backend that is down costs calls, never the tunnel.
 * 2. While it shuts down, the gateway is told, calls that run go on, and no new ones come.
 */
import { Instant, type Owner } from "@curfew/scope"
import { Agent, Services } from "@curfew/tunnel"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { backendChannel, rephrasing } from "./backend.ts"
import type { Desk } from "./desk.ts"
import { logging, stopping } from "./dial.ts"
import type { AgentFlags } from "./flags.ts"
import { makeForwarding } from "./forwarding.ts"
import type { Log } from "./log.ts"
import type { Mistake } from "./mistake.ts"
import { backendCredentials, dialCredentials, hello } from "./secure.ts"

export const agent = (
  flags: AgentFlags,
  desk: Desk,
  log: Log
): Effect.Effect<never, Mistake, Owner | Scope.Scope> =>
  Effect.gen(function* () {
    const { backend, gateway, key, maxMessage, maxStreams, tunnels } = flags
    const credentials = yield* dialCredentials(gateway, flags)
    const channel = yield* backendChannel(backend, yield* backendCredentials(flags), maxMessage)
    const clock = yield* Clock.Clock
    const forwarding = yield* makeForwarding(desk, log)
    const rephrase = rephrasing(
      `The agent is connected, but its backend at ${backend.text} cannot be reached`
    )
    const services = Services.empty.pipe(
      Services.fallback((incoming) => forwarding.take(incoming, { key: "", channel, rephrase }))
    )
    Object.assign(desk.addresses, { gateway: gateway.text, key, backend: backend.text })
    desk.ready = () => [...desk.tunnels.values()].some((tunnel) => tunnel.key === key)
    log.info("agent ready", desk.addresses)
    const dialled = yield* Agent.serve({ address: gateway.text, credentials }, services, {
      metadata: hello(flags.token, key),
      maxMessageSize: maxMessage,
      maxStreams,
      maxHandlers: maxStreams,
      tunnels,
      drain: flags.drain,
      observer: (event) => desk.hear(event, Instant.nowOf(clock)),
      onEvent: logging(log, gateway, ({ id, stats }) => {
        const tunnel = desk.tunnels.get(id)
        if (tunnel !== undefined) Object.assign(tunnel, { key, stats })
      })
    })
    yield* stopping(dialled, "calls of the gateway")
    return yield* Effect.never
  })
