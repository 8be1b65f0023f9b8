/**
 * `curfew-tunnel connect`: a local port whose calls all go to one server, through forward tunnels.
 *
 * **Invariants**
 * 1. The port is open before the tunnel is, and stays open while the tunnel is opened again: calls wait for it, and are
 *    refused with a sentence when they have waited long enough.
 */
import { Instant, type Owner } from "@curfew/scope"
import { Agent } from "@curfew/tunnel"
import { ServerCredentials } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { withoutTunnel } from "./backend.ts"
import type { Desk } from "./desk.ts"
import { logging, stopping } from "./dial.ts"
import { exposed } from "./exposed.ts"
import type { ConnectFlags } from "./flags.ts"
import { makeForwarding } from "./forwarding.ts"
import type { Log } from "./log.ts"
import { type Mistake, mistake } from "./mistake.ts"
import { dialCredentials, hello } from "./secure.ts"
import { isLoopback } from "./values.ts"

export const connect = (
  flags: ConnectFlags,
  desk: Desk,
  log: Log
): Effect.Effect<never, Mistake, Owner | Scope.Scope> =>
  Effect.gen(function* () {
    const { gateway, insecure, listen, maxMessage, maxStreams, tunnels, wait } = flags
    const credentials = yield* dialCredentials(gateway, flags)
    if (!isLoopback(listen) && !insecure) {
      return yield* mistake(
        `--listen ${listen.text} would let other machines into the tunnel in plain text: use 127.0.0.1, or --insecure if that is meant.`
      )
    }
    const clock = yield* Clock.Clock
    const forwarding = yield* makeForwarding(desk, log)
    desk.ready = () => [...desk.tunnels.values()].some((tunnel) => tunnel.channel !== undefined)
    const dialled = yield* Agent.connect(
      { address: gateway.text, credentials },
      {
        metadata: hello(flags.token),
        maxMessageSize: maxMessage,
        maxStreams,
        tunnels,
        wait: Duration.toMillis(wait) > 0 ? wait : false,
        drain: flags.drain,
        observer: (event) => desk.hear(event, Instant.nowOf(clock)),
        onEvent: logging(log, gateway, ({ id, stats }) => {
          const tunnel = desk.tunnels.get(id)
          if (tunnel !== undefined) Object.assign(tunnel, { channel: dialled.grpc, stats })
        })
      }
    )
    yield* stopping(dialled, "calls in the tunnel")
    const rephrase = withoutTunnel(
      `There is no tunnel to ${gateway.text}: see that the gateway runs, has --forward, and lets this end in`,
      `Every tunnel to ${gateway.text} has as many calls as it may; give more --tunnels, or a larger --max-streams to both ends`,
      () => desk.ready()
    )
    const calls = yield* exposed({
      flag: "--listen",
      at: listen,
      credentials: ServerCredentials.createInsecure(),
      maxMessage,
      take: (incoming) => forwarding.take(incoming, { key: "", channel: dialled.grpc, rephrase })
    })
    Object.assign(desk.addresses, { gateway: gateway.text, listen: `${listen.host}:${calls.port}` })
    log.info("connect ready", desk.addresses)
    return yield* Effect.never
  })
