/**
 * `curfew-tunnel gateway`: tunnels come in on one port, calls on another, and each call goes to the agent that it names.
 *
 * **Invariants**
 * 1. Made in this order: the port for tunnels, the tunnels, the port for callers. They end the other way round, so calls
 *    end before the tunnels that carry them, and tunnels say goodbye before their port closes.
 * 2. A call goes to the agent that it names, or is refused with a sentence; it never goes to another.
 */

import type { Health } from "@curfew/grpc"
import { CancelReason } from "@curfew/reason"
import { Instant, type Owner, TaskScope } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import { Services, TunnelService } from "@curfew/tunnel"
import { status as Code, type ServerDuplexStream } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { admitting } from "./admission.ts"
import { backendChannel, rephrasing, withoutTunnel } from "./backend.ts"
import type { Desk } from "./desk.ts"
import { exposed, healthPrefix } from "./exposed.ts"
import type { GatewayFlags } from "./flags.ts"
import { type Forwarding, makeForwarding } from "./forwarding.ts"
import { bind, tunnelServer } from "./listen.ts"
import type { Log } from "./log.ts"
import { type Mistake, mistake } from "./mistake.ts"
import type { Incoming } from "./relay.ts"
import { namesOf } from "./route.ts"
import { backendCredentials, serverCredentials } from "./secure.ts"
import { logClosed } from "./tunnelText.ts"
import type { Address } from "./values.ts"

export const gateway = (
  flags: GatewayFlags,
  desk: Desk,
  log: Log
): Effect.Effect<never, Mistake, Owner | Scope.Scope> =>
  Effect.gen(function* () {
    const { expose, insecure, listen, maxMessage, maxStreams } = flags
    const tunnelTls = { cert: flags.tlsCert, key: flags.tlsKey, ca: flags.tlsCa }
    const callTls = { cert: flags.exposeTlsCert, key: flags.exposeTlsKey, ca: flags.exposeTlsCa }
    const tunnelCredentials = yield* serverCredentials({
      flag: "--listen",
      prefix: "",
      at: listen,
      paths: tunnelTls,
      insecure
    })
    const callCredentials = yield* serverCredentials({
      flag: "--expose",
      prefix: "expose-",
      at: expose,
      paths: callTls,
      insecure
    })
    const clock = yield* Clock.Clock
    const forwarding = yield* makeForwarding(desk, log)
    const server = yield* tunnelServer(TunnelService.serverOptions())
    const { forward } = flags
    const services = forward === undefined ? undefined : yield* forwardTo(forward, flags, forwarding)

    const { allowKeys } = flags
    const tell = yield* TaskScope.makeRuntime(yield* TaskScope.make({ name: "health" }))
    let health: Health.Health | undefined
    /** A key is known to health while an agent has it, and for ever if it is one of the allowed ones. */
    const changed = (key: string): void => {
      if (health === undefined) return
      const here = desk.withKey(key).length > 0
      if (here) tell(health.setStatus(key, "SERVING"))
      else tell(allowKeys?.includes(key) ? health.setStatus(key, "NOT_SERVING") : health.remove(key))
    }
    const service = yield* TunnelService.make({
      ...(services === undefined ? {} : { services }),
      maxMessageSize: maxMessage,
      maxStreams,
      maxHandlers: maxStreams,
      authenticate: admitting(flags, log),
      affinityKey: ({ identity }) => identity,
      onReverseOpen: (key, { grpc, id, peer, stats }) => {
        const tunnel = desk.tunnels.get(id)
        if (tunnel === undefined) return
        Object.assign(tunnel, { key, channel: grpc, stats })
        log.info("tunnel opened", { key, peer })
        changed(key)
      },
      onReverseClose: (key, { id }) => {
        const tunnel = desk.tunnels.get(id)
        if (tunnel !== undefined) tunnel.channel = undefined
        changed(key)
      },
      observer: (event) => {
        if (event._tag === "TunnelOpened" && event.kind === "forward") {
          log.info("forward tunnel opened", { peer: event.peer })
        }
        const tunnel = desk.hear(event, Instant.nowOf(clock))
        if (tunnel !== undefined && event._tag === "TunnelClosed") logClosed(log, tunnel, event)
      }
    })
    service.addTo(server)
    yield* Shutdown.onStop("tunnels on --listen", service.refuseNew)
    // Agents hear of it, and open their next tunnel elsewhere while the calls of this one end.
    yield* Shutdown.onDrain("calls in the tunnels", service.drain())
    // Each by its own, so that every peer hears why.
    yield* Effect.addFinalizer(() =>
      Effect.flatMap(service.reverse.list, (open) =>
        Effect.forEach(open, (tunnel) => tunnel.close(CancelReason.Shutdown({ phase: "drain" })), {
          concurrency: "unbounded",
          discard: true
        })
      )
    )

    const port = yield* bind(server, listen, tunnelCredentials).pipe(
      Effect.mapError((error) => mistake(`--listen: ${error.message}`))
    )

    const pick = flags.pick === "least-loaded" ? "leastLoaded" : "roundRobin"
    const wait = Duration.toMillis(flags.wait) > 0 ? flags.wait : false
    const take = (incoming: Incoming): void => {
      const asked = namesOf(incoming)
      if (asked.metadata === undefined && incoming.getPath().startsWith(healthPrefix)) {
        calls.answerHealth(incoming)
        return
      }
      const key =
        asked.metadata ?? asked.hosts.find((name) => desk.withKey(name).length > 0) ?? flags.defaultKey
      // A tunnel may go to an agent that takes tunnels; without one somebody has dialled the wrong port.
      const astray = incoming.getPath().startsWith("/grpctunnel.v1.TunnelService/")
      if (key === undefined) {
        const [code, details] = astray ? wrongPort : nobody(desk)
        forwarding.refuse(incoming, code, details)
        return
      }
      const absent = astray ? wrongPort[1] : absentText(key)
      if (wait === false && desk.withKey(key).length === 0) {
        forwarding.refuse(incoming, Code.UNAVAILABLE, absent)
        return
      }
      const channel = service.reverse.channel({ key, pick, wait })
      const full = `Every agent with the key "${key}" has as many calls as it may; start another one, or give a larger --max-streams to both ends`
      const rephrase = withoutTunnel(absent, full, () => desk.withKey(key).length > 0)
      forwarding.take(incoming, { key, channel, rephrase })
    }
    const calls = yield* exposed({
      flag: "--expose",
      at: expose,
      credentials: callCredentials,
      maxMessage,
      take
    })
    health = calls.health
    for (const key of allowKeys ?? []) changed(key)
    Object.assign(desk.addresses, {
      listen: `${listen.host}:${port}`,
      expose: `${expose.host}:${calls.port}`,
      ...(forward === undefined ? {} : { forward: forward.text })
    })
    log.info("gateway ready", desk.addresses)
    return yield* Effect.never
  })

const wrongPort = [
  Code.UNAVAILABLE,
  "This port is --expose, for callers; agents and connects dial the gateway's --listen"
] as const

/** What a call is told whose agent is not there. The key is the caller's own: no agent has a longer one. */
const absentText = (key: string): string =>
  key.length > 63
    ? `No agent with the key "${key.slice(0, 63)}…" is connected, and none can be: a key has 63 letters at most`
    : `No agent with the key "${key}" is connected; start one: curfew-tunnel agent --key ${key}`

/** What a call is told that names no agent. */
const nobody = (desk: Desk): readonly [code: number, details: string] =>
  [...desk.tunnels.values()].some(({ channel }) => channel !== undefined)
    ? [
        Code.INVALID_ARGUMENT,
        `The call names no agent: send its key as the metadata "curfew-agent", or call a host name that begins with it`
      ]
    : [
        Code.UNAVAILABLE,
        "No agent is connected; start one: curfew-tunnel agent --gateway … --key … --backend …"
      ]

/** What forward tunnels may call: everything, at the backend. */
const forwardTo = (
  to: Address,
  flags: GatewayFlags,
  forwarding: Forwarding
): Effect.Effect<Services.Services, Mistake, Scope.Scope> =>
  Effect.gen(function* () {
    const channel = yield* backendChannel(to, yield* backendCredentials(flags), flags.maxMessage)
    const rephrase = rephrasing(`The gateway is there, but its backend at ${to.text} cannot be reached`)
    const take = (incoming: ServerDuplexStream<Buffer, Buffer>) =>
      forwarding.take(incoming, { key: "", channel, rephrase })
    return Services.empty.pipe(Services.fallback(take))
  })
