import { CancelReason } from "@curfew/reason"
import { Services, serveReverse } from "@curfew/tunnel"
import { Client, status as Code, credentials, type StatusObject } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { endWith, type Sentence } from "../cli/Sentence.ts"
import { forward } from "../grpc/forward.ts"
import { hashFinder } from "../grpc/hashFinder.ts"
import { countCalls } from "../grpc/interceptors.ts"
import { observe } from "../grpc/tunnelEvents.ts"
import { closingReason, shutDown } from "../process/ladder.ts"
import { Process } from "../process/Process.ts"
import { plantError } from "../process/plants.ts"
import { resource } from "../process/resource.ts"
import type { LastWords } from "../process/runProcess.ts"

/** Dials the gateway and offers, through that one connection, what it forwards from the backend. */
export const agent = (options: {
  readonly gateway: string
  readonly backend: string
  readonly plant: boolean
}): Effect.Effect<LastWords, Sentence, Process> =>
  Effect.scoped(
    Effect.gen(function* () {
      const process = yield* Process
      const toBackend = yield* resource(
        "the connection to the backend",
        Effect.sync(
          () =>
            new Client(options.backend, credentials.createInsecure(), {
              interceptors: [countCalls(process.meter)]
            })
        ),
        (client) => Effect.sync(() => client.close())
      )
      const events = observe(process)
      const forwarding = yield* forward(hashFinder, toBackend, {
        onArrival: events.name,
        rephrase: (status) =>
          isUnreachable(status) ? { ...status, details: unreachable(options.backend) } : status
      })
      const services = Services.empty.pipe(Services.add(forwarding.definition, forwarding.implementation))
      const to = { address: options.gateway, credentials: credentials.createInsecure() }
      const tunnel = yield* serveReverse(to, services, { observer: events.observer }).pipe(
        Effect.catch((error) =>
          endWith(
            error.code === Code.UNAVAILABLE
              ? `No gateway can be reached at ${options.gateway}; start one with: npm run reference -- gateway`
              : `The gateway at ${options.gateway} does not take this agent: ${error.details}.`
          )
        )
      )
      if (options.plant) yield* plantError
      yield* process.ready({
        text: `The agent offers the hash finder of ${options.backend} through a tunnel to ${options.gateway}. Ctrl-C ends it.`
      })
      const ended = yield* Effect.raceFirst(Effect.as(process.stop.requested, undefined), tunnel.closed)
      const report = yield* shutDown({
        calls: forwarding.calls,
        refuse: Effect.void,
        force: tunnel.close(CancelReason.Shutdown({ phase: "force" }))
      })
      yield* process.stopped(report)
      // Here, and not left to the scope, which would not know that the shutdown has been an orderly one.
      yield* tunnel.close(closingReason(report))
      if (ended === undefined || process.supervised) return () => 0
      return yield* endWith(`The gateway at ${options.gateway} has closed the tunnel, so the agent ends.`)
    })
  )

const isUnreachable = ({ code, details }: StatusObject): boolean =>
  code === Code.UNAVAILABLE && /^(No connection established|Name resolution failed)/.test(details)

const unreachable = (backend: string): string =>
  `The agent is connected, but its backend at ${backend} cannot be reached.`
