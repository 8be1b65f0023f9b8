/** Handlers swept over real connections: the client leaves at each step of all that the server does for a call. */
import { cancellable } from "@curfew/request"
import { Owner, TaskScope } from "@curfew/scope"
import { formatSweep, Probe, type SweepReport } from "@curfew/testing"
import {
  type GrpcDriver,
  type GrpcServing,
  type GrpcSubject,
  type GrpcSweepOptions,
  type GrpcTarget,
  relay,
  relayedChannel,
  sweepGrpc
} from "@curfew/testing/grpc"
import { openForward, Services, TunnelService } from "@curfew/tunnel"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { Server, type ServerCall } from "../src/index.ts"
import { definition, type Handlers, type Kind, kinds, listen, type Requests } from "./support/serving.ts"

/** What a handler does between its call and its answer. */
type Body = (held: Probe.Resource) => Effect.Effect<void>
type Mark = <H extends (...args: never) => unknown>(handler: H) => H

const pause = Effect.andThen(Effect.yieldNow, Effect.sleep("1 second"))
const soundly: Body = (held) => held.around(pause)
const wrongly: Body = (held) => Effect.andThen(held.acquire, Effect.andThen(pause, held.release))

const handlersOf = (body: Body, mark: Mark, { watch }: GrpcServing, held: Probe.Resource): Handlers => {
  const step = (text: string): Effect.Effect<string> => watch(Effect.as(body(held), text))
  return {
    Unary: mark((request: string) => step(request)),
    ClientStream: mark((requests: Requests) =>
      Effect.flatMap(Stream.runCollect(requests), (all) => step(all.join("")))
    ),
    ServerStream: mark((request: string, _call: ServerCall.ServerCall) =>
      Stream.mapEffect(Stream.fromIterable(request), step)
    ),
    Bidi: mark((requests: Requests) => Stream.mapEffect(requests, step))
  }
}

/** A service whose definition is known once its handlers are made, and the call to make. */
const subject = (kind: Kind, body: Body, mark: Mark) => {
  let service: Server.Service | undefined
  const swept: GrpcSubject = {
    service: definition as grpc.ServiceDefinition,
    handlers: (serving) =>
      Effect.gen(function* () {
        const owner = yield* TaskScope.make({ name: "server" })
        const held = yield* Probe.resource("row lock")
        const handlers = handlersOf(body, mark, serving, held)
        const made = Server.make(definition, handlers) as Effect.Effect<Server.Service, never, Owner>
        service = yield* Effect.provideService(made, Owner, owner)
        return service.implementation
      }),
    call: {
      method: kind,
      messages: kind === "Unary" ? ["one"] : kind === "ServerStream" ? ["ab"] : ["a", "b"]
    }
  }
  /** Registers under the definition that goes with the implementation, whatever definition is given. */
  const under = (target: GrpcTarget): GrpcTarget => ({
    addService: (_, implementation) => {
      if (service === undefined) throw new Error("The handlers are made before the server.")
      target.addService(service.definition, implementation)
    }
  })
  return { swept, under }
}

type Under = (target: GrpcTarget) => GrpcTarget

const grpcJs = (under: Under): GrpcDriver => ({
  name: "grpc-js",
  open: (register) =>
    Effect.gen(function* () {
      const { address } = yield* listen((server) => register(under(server)))
      const ways = yield* relay(Number(address.split(":")[1]))
      return { connect: relayedChannel(ways), connections: ways.connections, calm: ways.calm }
    })
})

const tunnel = (under: Under): GrpcDriver => ({
  name: "a tunnel",
  open: (register) =>
    Effect.gen(function* () {
      let services = Services.empty
      register(
        under({
          addService: (definition, implementation) => {
            services = services.pipe(Services.add(definition, implementation))
          }
        })
      )
      const service = yield* TunnelService.make({ services })
      const { address } = yield* listen(service.addTo)
      const ways = yield* relay(Number(address.split(":")[1]))
      const connect = Effect.flatMap(ways.open, (way) =>
        // The client's end belongs to the client: its fibers are no steps, and its time is real.
        Effect.callback<{ channel: grpc.ChannelInterface; destroy: () => void; close: () => void }>(
          (resume) => {
            const own = Scope.makeUnsafe()
            const to = { address: `127.0.0.1:${way.port}`, credentials: grpc.credentials.createInsecure() }
            const opened = Scope.provide(openForward(to), own)
            Effect.runFork(opened).addObserver((exit) => {
              if (Exit.isFailure(exit)) return resume(Effect.die(exit.cause))
              const close = () => {
                way.close()
                Effect.runFork(Scope.close(own, Exit.void))
              }
              resume(Effect.succeed({ channel: exit.value.grpc, destroy: way.destroy, close }))
            })
          }
        )
      )
      return { connect, connections: ways.connections, calm: ways.calm }
    })
})

const asItIs: Mark = (handler) => handler

const sweep = (
  driver: (under: Under) => GrpcDriver,
  kind: Kind,
  body: Body,
  options: GrpcSweepOptions & { readonly mark?: Mark } = {}
): Promise<SweepReport> => {
  const { swept, under } = subject(kind, body, options.mark ?? (cancellable as Mark))
  return Effect.runPromise(sweepGrpc(driver(under), swept, options))
}

// A run takes 20 to 60 ms, most of it for the connection. What is left out here is swept in the long gate.
const long = process.env["CURFEW_RUNS"] !== undefined
const modes = long ? (["cancel", "disconnect", "response"] as const) : (["cancel"] as const)

const cases = [
  {
    name: "grpc-js",
    driver: grpcJs,
    sound: kinds,
    unmarked: ["Unary", ...(long ? (["ClientStream"] as const) : [])],
    wrong: long ? kinds : (["Unary"] as const)
  },
  {
    name: "a tunnel",
    driver: tunnel,
    sound: long ? kinds : (["Bidi"] as const),
    unmarked: long ? (["Unary", "ClientStream"] as const) : [],
    wrong: long ? kinds : []
  }
] as const satisfies ReadonlyArray<{
  readonly name: string
  readonly driver: (under: Under) => GrpcDriver
  readonly sound: ReadonlyArray<Kind>
  readonly unmarked: ReadonlyArray<Kind>
  readonly wrong: ReadonlyArray<Kind>
}>

describe.each(cases)("L39: swept over $name", { timeout: 300_000 }, ({ driver, sound, unmarked, wrong }) => {
  for (const kind of sound) {
    test(`a cancellable ${kind} handler leaves nothing behind, wherever its client leaves`, async () => {
      const report = await sweep(driver, kind, soundly, { states: ["kept"], modes })
      expect(formatSweep(report)).toContain("nothing broken")
      expect(report).toMatchObject({ ok: true, complete: true })
      expect(report.steps).toBeGreaterThan(30)
    })
  }

  for (const kind of unmarked) {
    test(`an unmarked ${kind} handler runs to its end, wherever its client leaves`, async () => {
      // What would leave its lock behind when it is interrupted leaves none when it never is.
      const report = await sweep(driver, kind, wrongly, { states: ["kept"], modes, mark: asItIs })
      expect(formatSweep(report)).toContain("nothing broken")
    })
  }

  for (const kind of wrong) {
    test(`what a cancellable ${kind} handler leaves behind is found`, async () => {
      const report = await sweep(driver, kind, wrongly, { states: ["kept"], modes: ["cancel"] })
      expect(new Set(report.findings.map(({ kind, probe }) => `${kind} ${probe}`))).toEqual(
        new Set(["NotReleased row lock"])
      )
    })
  }
})
