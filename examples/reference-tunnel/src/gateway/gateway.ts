import { CancelReason } from "@curfew/reason"
import { TunnelService } from "@curfew/tunnel"
import { Client, credentials } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Sentence } from "../cli/Sentence.ts"
import { forward } from "../grpc/forward.ts"
import { hashFinder } from "../grpc/hashFinder.ts"
import { countCalls } from "../grpc/interceptors.ts"
import { listenOn } from "../grpc/server.ts"
import { observe } from "../grpc/tunnelEvents.ts"
import { closingReason, shutDown } from "../process/ladder.ts"
import { Process } from "../process/Process.ts"
import { resource } from "../process/resource.ts"
import type { LastWords } from "../process/runProcess.ts"

/**
 * Accepts reverse tunnels on one port and ordinary gRPC calls on another; each call goes through a tunnel.
 *
 * The two ports are two servers, because they end differently: callers are drained, and the tunnels that their calls
 * run through stay open until that is done.
 */
export const gateway = (options: {
  readonly port: number
  readonly tunnelPort: number
}): Effect.Effect<LastWords, Sentence, Process> =>
  Effect.scoped(
    Effect.gen(function* () {
      const process = yield* Process
      const labels = new Labels()
      let unnamed = 0
      // A server waits for the tunnels on it, and tunnels do not end by themselves: their scope closes before it does.
      const scope = yield* Scope.make()
      const closeScope = Scope.close(scope, Exit.void)
      yield* Effect.addFinalizer(() => closeScope)
      const tunnels = yield* Scope.provide(
        TunnelService.make({ observer: observe(process, () => labels.take()).observer }),
        scope
      )
      const agents = yield* listenOn("the port for agents", {
        port: options.tunnelPort,
        flag: "--tunnel-port",
        register: tunnels.addTo
      })
      let reason = CancelReason.Shutdown({ phase: "drain" })
      // One by one and not by their scope, which would not know that the shutdown has been an orderly one.
      const closeEach = Effect.flatMap(tunnels.reverse.list, (open) =>
        Effect.forEach(open, (tunnel) => tunnel.close(reason), { concurrency: "unbounded", discard: true })
      )
      yield* resource("the tunnels", Effect.void, () => Effect.andThen(closeEach, closeScope))
      const calls = yield* resource(
        "the way into the tunnel",
        Effect.sync(
          () =>
            new Client("reverse", credentials.createInsecure(), {
              channelOverride: tunnels.reverse.channel(),
              interceptors: [countCalls(process.meter)]
            })
        ),
        (client) => Effect.sync(() => client.close())
      )
      const forwarding = yield* forward(hashFinder, calls, {
        name: () => `g${++unnamed}`,
        onCall: (label) => labels.add(label)
      })
      const callers = yield* listenOn("the port for callers", {
        port: options.port,
        flag: "--port",
        register: (server) => server.addService(forwarding.definition, forwarding.implementation)
      })
      yield* process.ready({
        port: callers.port,
        tunnelPort: agents.port,
        text: `The gateway takes calls on 127.0.0.1:${callers.port} and agents on 127.0.0.1:${agents.port}. Ctrl-C ends it.`
      })
      yield* process.stop.requested
      yield* tunnels.refuseNew
      const report = yield* shutDown({
        calls: forwarding.calls,
        refuse: callers.refuse,
        force: callers.force
      })
      yield* process.stopped(report)
      reason = closingReason(report)
      return () => 0
    })
  )

/**
 * Tells which stream is whose: streams open in the order in which their calls go out. A call that gets no stream, for
 * want of a tunnel, takes its label along when it ends.
 */
class Labels {
  readonly #waiting = new Set<{ readonly label: string }>()

  add(label: string): () => void {
    const entry = { label }
    this.#waiting.add(entry)
    return () => this.#waiting.delete(entry)
  }

  take(): string | undefined {
    const [first] = this.#waiting
    if (first !== undefined) this.#waiting.delete(first)
    return first?.label
  }
}
