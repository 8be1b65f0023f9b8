/**
 * `curfew-tunnel connect`: a local port whose calls all go to one server, through one forward tunnel.
 *
 * **Invariants**
 * 1. The port is open before the tunnel is, and stays open while the tunnel is opened again: calls are refused with a
 *    sentence meanwhile.
 */
import { Instant, type Owner } from "@curfew/scope"
import { openForward, type TunnelChannel } from "@curfew/tunnel"
import { status as Code } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Desk } from "./desk.ts"
import { stayConnected } from "./dial.ts"
import { exposed } from "./exposed.ts"
import type { ConnectFlags } from "./flags.ts"
import { makeForwarding } from "./forwarding.ts"
import type { Log } from "./log.ts"
import type { Mistake } from "./mistake.ts"
import type { Incoming } from "./relay.ts"
import { dialCredentials, hello, serverCredentials } from "./secure.ts"
import { logClosed } from "./tunnelText.ts"

const none = { cert: undefined, key: undefined, ca: undefined }

export const connect = (
  flags: ConnectFlags,
  desk: Desk,
  log: Log
): Effect.Effect<never, Mistake, Owner | Scope.Scope> =>
  Effect.gen(function* () {
    const { gateway, insecure, listen, maxMessage } = flags
    const credentials = yield* dialCredentials(gateway, flags)
    const own = yield* serverCredentials({ flag: "--listen", prefix: "", at: listen, paths: none, insecure })
    const clock = yield* Clock.Clock
    const forwarding = yield* makeForwarding(desk, log)
    const tunnels = () => [...desk.tunnels.values()]
    const take = (incoming: Incoming): void => {
      const channel = tunnels().find((tunnel) => tunnel.channel !== undefined)?.channel
      if (channel !== undefined) forwarding.take(incoming, { key: "", channel, rephrase: (status) => status })
      else
        forwarding.refuse(
          incoming,
          Code.UNAVAILABLE,
          `There is no tunnel to ${gateway.text}; it is being opened again`
        )
    }
    desk.ready = () => tunnels().some((tunnel) => tunnel.channel !== undefined)
    const calls = yield* exposed({ flag: "--listen", at: listen, credentials: own, maxMessage, take })
    Object.assign(desk.addresses, { gateway: gateway.text, listen: `${listen.host}:${calls.port}` })
    log.info("connect ready", desk.addresses)
    return yield* stayConnected({
      at: gateway,
      log,
      open: openForward(
        { address: gateway.text, credentials },
        {
          metadata: hello(flags.token),
          maxMessageSize: maxMessage,
          observer: (event) => {
            const tunnel = desk.hear(event, Instant.nowOf(clock))
            if (tunnel?.stats !== undefined && event._tag === "TunnelClosed") logClosed(log, tunnel, event)
          }
        }
      ),
      whileOpen: (handle) =>
        Effect.sync(() => {
          const { grpc, id, peer, stats } = handle as TunnelChannel
          const tunnel = desk.tunnels.get(id)
          if (tunnel === undefined) return
          Object.assign(tunnel, { channel: grpc, stats })
          log.info("forward tunnel opened", { peer })
        })
    })
  })
