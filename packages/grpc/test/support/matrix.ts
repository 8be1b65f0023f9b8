/** The drivers of the disconnect matrix: services of this package over grpc-js and over a tunnel. */
import type { EventEmitter } from "node:events"
import { fileURLToPath } from "node:url"
import { guard } from "@curfew/guard"
import { CancelReason, currentReason } from "@curfew/reason"
import { cancellable, onDisconnect } from "@curfew/request"
import { inspect, Owner, TaskScope } from "@curfew/scope"
import { type Relay, relay, relayedChannel } from "@curfew/testing/grpc"
import type {
  GrpcMatrixCall,
  GrpcMatrixDriver,
  GrpcMatrixEndpoint,
  GrpcMatrixLink
} from "@curfew/testing/grpcDisconnects"
import { openForward, Services, TunnelService } from "@curfew/tunnel"
import * as grpc from "@grpc/grpc-js"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { GrpcServer, Server, type ServerCall, ServerCalls } from "../../src/index.ts"
import type { RequestStream } from "../../src/Server.ts"

type Call = ServerCall.ServerCall
type Handler = <H extends (...args: never) => unknown>(handler: H) => H

/** How an endpoint becomes a service. */
export type Make = (
  endpoint: GrpcMatrixEndpoint,
  calls: ServerCalls.ServerCalls
) => Effect.Effect<Server.Service, never, Owner>

const asMatrixCall = (call: Call, requests?: RequestStream<string>): GrpcMatrixCall => ({
  requests,
  peerGone: Effect.map(call.awaitPeerGone, ({ _tag }) => _tag),
  onPeerGone: (told) => call.onPeerGone(({ _tag }) => told(_tag)),
  guard: (cleanup) => Effect.asVoid(guard(({ _tag }) => cleanup(_tag))),
  completed: call.completed,
  reason: Effect.map(
    currentReason,
    Option.match({ onNone: () => "none", onSome: ({ _tag }) => _tag as string })
  ),
  raw: call.raw as EventEmitter
})

const markOf = ({ column, grace }: GrpcMatrixEndpoint): Handler =>
  column === "cancellable"
    ? cancellable
    : column === "grace"
      ? (onDisconnect({ grace }) as Handler)
      : column === "detached"
        ? (onDisconnect("detach") as Handler)
        : (handler) => handler

/** What a program does with this package. */
export const made: Make = (endpoint, calls) => {
  const { answer, answers, definition, stock, timeLimit } = endpoint
  if (endpoint.column === "stock")
    return Effect.succeed({ definition: definition as grpc.ServiceDefinition, implementation: stock })
  const mark = markOf(endpoint)
  return Server.make(
    definition,
    {
      unary: mark((_: string, call: Call) => answer(asMatrixCall(call))),
      clientStream: mark((requests: RequestStream<string>, call: Call) =>
        answer(asMatrixCall(call, requests))
      ),
      serverStream: mark((_: string, call: Call) => answers(asMatrixCall(call))),
      bidi: mark((requests: RequestStream<string>, call: Call) => answers(asMatrixCall(call, requests)))
    },
    { calls, ...(timeLimit === undefined ? {} : { limits: { time: timeLimit } }) }
  )
}

const quiet = Effect.provideService(References.MinimumLogLevel, "None")

const optionsOf = ({ keepalive }: GrpcMatrixEndpoint): grpc.ServerOptions =>
  keepalive === undefined
    ? {}
    : {
        "grpc.keepalive_time_ms": Duration.toMillis(keepalive.time),
        "grpc.keepalive_timeout_ms": Duration.toMillis(keepalive.timeout)
      }

const script = fileURLToPath(new URL("elsewhere.ts", import.meta.url))
const argumentsFor =
  (transport: string, relay: Relay): GrpcMatrixLink["elsewhere"] =>
  (path, kind) =>
    Effect.map(relay.open, ({ port }) => ["-C", "@curfew/source", script, transport, `${port}`, path, kind])

/** Something that is closed once: by a stop, or by the end of the scope around it. */
const stoppable = <A, E, R>(effect: Effect.Effect<A, E, R | Scope.Scope>) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const stop = Scope.close(scope, Exit.void)
    yield* Effect.addFinalizer(() => stop)
    return { value: yield* Scope.provide(effect, scope), stop }
  })

const left: Effect.Effect<ReadonlyArray<string>> = Effect.map(inspect, ({ roots, stuck }) => [
  ...roots.map(({ kind, name }) => `${kind} ${name}`),
  ...stuck.map(({ name }) => `stuck ${name}`)
])

const owned = Effect.map(TaskScope.make({ name: "server" }), (owner) => Context.make(Owner, owner))

const tell = () => {
  const reasons: Array<string> = []
  return { reasons, onCancelled: ({ reason }: ServerCalls.CallCancelled) => void reasons.push(reason._tag) }
}

const overGrpcJs =
  (make: Make): GrpcMatrixDriver["open"] =>
  (endpoint) =>
    Effect.gen(function* () {
      const context = yield* owned
      const { onCancelled, reasons } = tell()
      const serving = Effect.gen(function* () {
        const server = yield* GrpcServer.make({
          services: [],
          address: "127.0.0.1:0",
          drain: endpoint.drain,
          options: optionsOf(endpoint),
          onCancelled
        })
        yield* server.add(yield* make(endpoint, server.calls))
        return server
      })
      const { stop, value: server } = yield* Effect.provide(stoppable(Effect.orDie(serving)), context)
      const ways = yield* relay(server.port)
      return {
        connect: relayedChannel(ways),
        connections: ways.connections,
        calm: ways.calm,
        inFlight: server.calls.inFlight,
        cancellations: () => reasons,
        stop,
        elsewhere: argumentsFor("grpc", ways)
      }
    }).pipe(quiet)

const overTunnel =
  (make: Make): GrpcMatrixDriver["open"] =>
  (endpoint) =>
    Effect.gen(function* () {
      const context = yield* owned
      const { onCancelled, reasons } = tell()
      const server = yield* Effect.provide(
        Effect.orDie(
          GrpcServer.make({ services: [], address: "127.0.0.1:0", drain: 0, options: optionsOf(endpoint) })
        ),
        context
      )
      const calls = yield* ServerCalls.make({ onCancelled })
      const serving = Effect.gen(function* () {
        const service = yield* Effect.provide(make(endpoint, calls), context)
        const tunnels = yield* TunnelService.make({
          services: Services.empty.pipe(Services.add(service.definition, service.implementation))
        })
        yield* server.add(tunnels)
        return tunnels
      })
      const { stop: close, value: tunnels } = yield* stoppable(serving)
      const ways = yield* relay(server.port)
      const open = new Set<Effect.Effect<number>>()
      const scope = yield* Effect.scope
      const connect = Effect.gen(function* () {
        const way = yield* ways.open
        const own = yield* Scope.fork(scope)
        const to = { address: `127.0.0.1:${way.port}`, credentials: grpc.credentials.createInsecure() }
        const tunnel = yield* Effect.orDie(Scope.provide(openForward(to), own))
        const streams = Effect.map(tunnel.stats, ({ deadlines, streams }) => deadlines + streams)
        open.add(streams)
        return {
          channel: tunnel.grpc,
          destroy: way.destroy,
          close: () => {
            way.close()
            Effect.runFork(Scope.close(own, Exit.void))
          }
        }
      })
      return {
        connect,
        connections: ways.connections,
        calm: ways.calm,
        inFlight: Effect.map(Effect.all([calls.inFlight, ...open]), (counts) =>
          counts.reduce((sum, count) => sum + count, 0)
        ),
        cancellations: () => reasons,
        stop: Effect.gen(function* () {
          yield* tunnels.refuseNew
          if (!(yield* tunnels.drain(endpoint.drain))) {
            const running = yield* calls.inFlight
            yield* calls.cancel(CancelReason.Shutdown({ phase: "force" }))
            // Not `calls.drain`: an answer has to be on the wire before its tunnel ends.
            if (running > 0) yield* tunnels.drain("10 seconds")
          }
          yield* close
        }),
        elsewhere: argumentsFor("tunnel", ways)
      }
    }).pipe(quiet)

const answered = (departure: string): boolean =>
  ["cancelled after the answer", "half-closed: no more requests", "server drains"].includes(departure)

const details = (departure: string): string | undefined => {
  if (departure.startsWith("cancelled") && !answered(departure)) return "Cancelled on client"
  if (departure === "time limit of the server") return "The call took longer than 100ms"
  return departure === "server stops by force" ? "The server is shutting down" : undefined
}

/** `make` can be one that is wrong. */
export const drivers = (make: Make = made): ReadonlyArray<GrpcMatrixDriver> => [
  {
    name: "grpc-js",
    open: overGrpcJs(make),
    left,
    // It says "cancelled" after every answer, and ends the requests of a call that was cancelled as if they were whole.
    stock: (departure, kind) =>
      departure.startsWith("cancelled") &&
      !answered(departure) &&
      (kind === "clientStream" || kind === "bidi")
        ? ["cancelled", "end"]
        : ["cancelled"],
    details
  },
  {
    name: "a tunnel",
    open: overTunnel(make),
    left,
    stock: (departure) => (answered(departure) ? [] : ["cancelled"]),
    // A stock handler does not end by itself, and the tunnel ends under it.
    details: (departure, column) =>
      departure === "server stops by force" && column === "stock" ? "The tunnel ended" : details(departure)
  }
]
