import { spawn } from "node:child_process"
import { onDisconnect } from "@curfew/request"
import { CleanupBudget, type Owner } from "@curfew/scope"
import { Shutdown } from "@curfew/shutdown"
import * as grpc from "@grpc/grpc-js"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { GrpcServer, type GrpcServerOptions, Server, type StopReport } from "../src/index.ts"
import { definition as healthDefinition } from "../src/internal/healthProtocol.ts"
import { turns } from "../src/internal/serverBridge.ts"
import {
  Code,
  call,
  definition,
  echo,
  type Handlers,
  inAllKinds,
  type Kind,
  kinds,
  listen,
  metadata,
  notebook,
  run,
  stubTo,
  watching
} from "./support/serving.ts"

/** A server in a scope that the test closes. */
const started = (handlers: Handlers, options: Partial<GrpcServerOptions> = {}) =>
  Effect.gen(function* () {
    const { context, logs } = yield* watching
    const scope = yield* Scope.make()
    const reports: Array<StopReport> = []
    const server = yield* GrpcServer.make({
      services: [Server.make(definition, handlers) as Effect.Effect<Server.Service, never, Owner>],
      address: "127.0.0.1:0",
      onReport: (report) => reports.push(report),
      ...options
    }).pipe(Scope.provide(scope), Effect.provide(context))
    const stub = yield* stubTo(server.address)
    const stop = Effect.provide(Scope.close(scope, Exit.void), context)
    return { server, stub, stop, reports, logs, context }
  })

const health = (address: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const Stub = grpc.makeGenericClientConstructor(
        healthDefinition as unknown as grpc.ServiceDefinition,
        "Health"
      )
      return new Stub(address, grpc.credentials.createInsecure()) as unknown as grpc.Client & {
        Check(request: object, done: grpc.requestCallback<{ status: string }>): void
        List(
          request: object,
          done: grpc.requestCallback<{ statuses: ReadonlyArray<readonly [string, string]> }>
        ): void
        Watch(request: object): grpc.ClientReadableStream<{ status: string }>
      }
    }),
    (stub) => Effect.sync(() => stub.close())
  )

describe("the end of a server", () => {
  test("plain: an open stream holds tryShutdown up, and forceShutdown tells its client CANCELLED", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { address, server } = yield* listen((it) =>
          it.addService(definition, { Bidi: () => book.note("started") } as never)
        )
        const stub = yield* stubTo(address)
        const open = call(stub, "Bidi")
        yield* book.awaits("started")
        server.tryShutdown(() => book.note("shut down"))
        const tunnel = yield* Effect.race(
          Effect.as(book.awaits("shut down"), "ended"),
          Effect.as(turns(50), "held up")
        )
        server.forceShutdown()
        expect([tunnel, (yield* open.answer).code]).toEqual(["held up", Code.CANCELLED])
      })
    ))

  test.each(kinds)("L48 %s: what does not drain is interrupted and told UNAVAILABLE", (kind) =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const handlers = inAllKinds(() =>
          Effect.onInterrupt(Effect.andThen(book.noting("started"), Effect.never), () =>
            book.noting("interrupted")
          )
        )
        const { reports, stop, stub } = yield* started(handlers, { drain: "20 millis" })
        const open = call(stub, kind)
        yield* book.awaits("started")
        yield* stop
        const answer = yield* open.answer
        expect([answer.code, answer.details]).toEqual([Code.UNAVAILABLE, "The server is shutting down"])
        expect(book.seen).toEqual(["started", "interrupted"])
        expect(reports).toEqual([{ drained: 0, cancelled: [`/curfew.test.Words/${kind}`], abandoned: [] }])
      })
    )
  )

  test("calls run to their end while it drains, and new ones are refused", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const handlers = inAllKinds((given) =>
          Effect.as(Effect.andThen(book.noting("started"), book.awaits("go")), `of ${given.kind}`)
        )
        const { reports, server, stop, stub } = yield* started(handlers)
        const open = kinds.map((kind) => call(stub, kind))
        yield* book.awaits("started", 4)
        const stopping = yield* Effect.forkChild(stop, { startImmediately: true })
        // The listener closes in a later turn.
        yield* turns(5)
        const late = yield* stubTo(server.address)
        expect((yield* call(late, "Unary").answer).code).toBe(Code.UNAVAILABLE)
        book.note("go")
        for (const one of open) {
          one.call.end?.()
          expect((yield* one.answer).code).toBe(Code.OK)
        }
        yield* Fiber.await(stopping)
        expect(reports).toEqual([{ drained: 4, cancelled: [], abandoned: [] }])
      })
    ))

  test("L43 a handler that hears nothing is left behind, by name, and does not hold it up", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { logs, reports, stop, stub } = yield* started(
          {
            ...echo,
            ServerStream: () =>
              Stream.fromEffect(
                Effect.uninterruptible(
                  Effect.andThen(book.noting("started"), Effect.as(book.awaits("go"), "x"))
                )
              )
          },
          { drain: "10 millis" }
        )
        const open = call(stub, "ServerStream")
        yield* book.awaits("started")
        yield* Effect.provideService(stop, CleanupBudget, Duration.millis(50))
        expect((yield* open.answer).code).not.toBe(Code.OK)
        expect(reports[0]?.abandoned).toEqual(["/curfew.test.Words/ServerStream"])
        expect(logs.some((line) => line.includes("Left behind: /curfew.test.Words/ServerStream."))).toBe(true)
        book.note("go")
      })
    ))

  test("calls to an implementation from elsewhere are drained, told UNAVAILABLE and limited as well", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const elsewhere = {
          definition,
          implementation: {
            Bidi: (stream: grpc.ServerDuplexStream<string, string>) => {
              book.note("started")
              stream.on("cancelled", () => book.note("cancelled"))
              stream.on("error", () => undefined)
            },
            Unary: (_call: never, callback: grpc.sendUnaryData<string>) => callback(null, "plain")
          } as unknown as grpc.UntypedServiceImplementation
        }
        const { reports, server, stop, stub } = yield* started(echo, {
          services: [elsewhere],
          drain: "10 millis",
          limits: { calls: 1 }
        })
        expect((yield* call(stub, "Unary").answer).messages).toEqual(["plain"])
        yield* server.calls.drain()
        const open = call(stub, "Bidi")
        yield* book.awaits("started")
        expect((yield* call(stub, "Unary").answer).code).toBe(Code.RESOURCE_EXHAUSTED)
        yield* stop
        expect((yield* open.answer).code).toBe(Code.UNAVAILABLE)
        expect(book.seen).toEqual(["started", "cancelled"])
        expect(reports).toEqual([{ drained: 0, cancelled: ["/curfew.test.Words/Bidi"], abandoned: [] }])
      })
    ))

  test("an address that is taken is a typed error that says what to do", () =>
    run(
      Effect.gen(function* () {
        const { server } = yield* started(echo)
        const { context } = yield* watching
        const error = yield* Effect.flip(
          Effect.provide(GrpcServer.make({ services: [], address: server.address }), context)
        )
        expect([error._tag, error.message]).toEqual(["BindError", expect.stringContaining("choose another")])
      })
    ))

  test("a client that does not read does not hold it up", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { reports, stop, stub } = yield* started(
          {
            ...echo,
            ServerStream: () =>
              Stream.forever(Stream.tap(Stream.make("x".repeat(100_000)), () => book.noting("sent")))
          },
          { drain: "10 millis" }
        )
        const stream = stub.ServerStream("q", metadata(), {})
        stream.on("error", () => undefined)
        yield* book.awaits("sent", 2)
        yield* Effect.provideService(stop, CleanupBudget, Duration.millis(200))
        expect(reports[0]?.cancelled).toEqual(["/curfew.test.Words/ServerStream"])
      })
    ))
})

describe("inside a staged shutdown", () => {
  test("L43 it stops, drains, forces and reports with it", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const reports: Array<StopReport> = []
        const handlers = inAllKinds((given) =>
          given.kind === "unary"
            ? Effect.as(Effect.andThen(book.noting("started"), book.awaits("draining")), "drained")
            : Effect.onInterrupt(Effect.andThen(book.noting("started"), Effect.never), () =>
                book.noting("interrupted")
              )
        )
        let answers: ReadonlyArray<readonly [Kind, Effect.Effect<{ readonly code: number }>]> = []
        const outer = yield* Effect.scope
        const main = Effect.gen(function* () {
          const server = yield* GrpcServer.make({
            name: "words",
            services: [Server.make(definition, handlers) as Effect.Effect<Server.Service, never, Owner>],
            address: "127.0.0.1:0",
            onReport: (report) => reports.push(report)
          })
          const stub = yield* Scope.provide(stubTo(server.address), outer)
          answers = (["Unary", "Bidi"] as const).map((kind) => [kind, call(stub, kind).answer] as const)
          yield* book.awaits("started", 2)
          yield* Shutdown.onDrain("test", book.noting("draining"))
          yield* Shutdown.begin
          return yield* Effect.never
        })
        const { report } = yield* Shutdown.run(Effect.scoped(main), {
          drain: "200 millis",
          force: "4 seconds"
        })
        const codes: Array<unknown> = []
        for (const [kind, answer] of answers) codes.push([kind, (yield* answer).code])
        expect(codes).toEqual([
          ["Unary", Code.OK],
          ["Bidi", Code.UNAVAILABLE]
        ])
        expect(book.seen).toEqual(["started", "started", "draining", "interrupted"])
        const fates = Object.fromEntries(report.items.map((item) => [`${item.kind} ${item.name}`, item.fate]))
        expect(fates["task /curfew.test.Words/Unary"]).toBe("drained")
        expect(fates["task /curfew.test.Words/Bidi"]).toBe("cancelled")
        expect(report.items.filter((item) => item.fate === "abandoned")).toEqual([])
        expect(report.phases.at(-1)?.endedBy).toBe("done")
        expect(reports).toEqual([{ drained: 1, cancelled: ["/curfew.test.Words/Bidi"], abandoned: [] }])
      })
    ))
})

describe("health", () => {
  test("follows the stages: SERVING, NOT_SERVING at the stop, and watches end once they have said so", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { context, reports, server, stop, stub } = yield* started(
          inAllKinds(() => Effect.as(Effect.andThen(book.noting("started"), book.awaits("go")), "ok"))
        )
        const probe = yield* health(server.address)
        const check = (service: string) =>
          Effect.callback<string>((resume) =>
            probe.Check({ service }, (error, answer) =>
              resume(Effect.succeed(error ? String(error.code) : String(answer?.status)))
            )
          )
        expect(yield* check("")).toBe("SERVING")
        expect(yield* check("curfew.test.Words")).toBe("SERVING")
        expect(yield* check("nobody")).toBe(String(Code.NOT_FOUND))
        const listed = yield* Effect.callback<unknown>((resume) =>
          probe.List({}, (_error, answer) => resume(Effect.succeed(answer?.statuses)))
        )
        expect(listed).toEqual([
          ["", "SERVING"],
          ["curfew.test.Words", "SERVING"]
        ])
        for (const service of ["curfew.test.Words", "nobody"]) {
          const watch = probe.Watch({ service })
          watch.on("data", ({ status }: { status: string }) => book.note(`${service} ${status}`))
          watch.on("error", (error: grpc.ServiceError) => book.note(`${service} ${error.code}`))
        }
        yield* book.awaits("curfew.test.Words SERVING")
        yield* book.awaits("nobody SERVICE_UNKNOWN")
        yield* server.health.setStatus("curfew.test.Words", "NOT_SERVING")
        yield* book.awaits("curfew.test.Words NOT_SERVING")
        yield* server.health.setStatus("curfew.test.Words", "SERVING")
        yield* book.awaits("curfew.test.Words SERVING", 2)
        const open = call(stub, "Unary")
        yield* book.awaits("started")
        const stopping = yield* Effect.forkChild(Effect.provide(stop, context), { startImmediately: true })
        yield* book.awaits(`curfew.test.Words ${Code.UNAVAILABLE}`)
        yield* book.awaits(`nobody ${Code.UNAVAILABLE}`)
        expect(book.seen.filter((it) => it === "curfew.test.Words NOT_SERVING")).toHaveLength(2)
        book.note("go")
        expect((yield* open.answer).code).toBe(Code.OK)
        yield* Fiber.await(stopping)
        expect(reports[0]?.abandoned).toEqual([])
      })
    ))

  test("a watch whose client leaves is left by everybody", () =>
    run(
      Effect.gen(function* () {
        const { server } = yield* started(echo)
        const probe = yield* health(server.address)
        const watch = probe.Watch({ service: "" })
        watch.on("error", () => undefined)
        yield* Effect.callback<void>((resume) => void watch.once("data", () => resume(Effect.void)))
        expect((yield* server.calls.live).map((it) => it.method)).toEqual(["/grpc.health.v1.Health/Watch"])
        watch.cancel()
        yield* server.calls.drain()
        expect(yield* server.calls.inFlight).toBe(0)
      })
    ))
})

describe("a peer in a process of its own", () => {
  const withPeer = (kind: Kind, signal: "SIGKILL" | "SIGSTOP") =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const handlers = inAllKinds(
          (given) =>
            Effect.gen(function* () {
              yield* given.onPeerGone((reason) => book.noting(`gone ${reason._tag}`))
              yield* book.noting("started")
              return yield* Effect.onInterrupt(Effect.never, () => book.noting("interrupted"))
            }),
          onDisconnect("cancel")
        )
        const { server } = yield* started(handlers, {
          // Long enough for a peer that only waits for its turn on a busy machine.
          options: { "grpc.keepalive_time_ms": 300, "grpc.keepalive_timeout_ms": 3_000 }
        })
        const child = yield* Effect.acquireRelease(
          Effect.sync(() =>
            spawn(
              process.execPath,
              [
                "-C",
                "@curfew/source",
                new URL("./fixtures/peer.ts", import.meta.url).pathname,
                server.address,
                kind
              ],
              { stdio: ["ignore", "inherit", "inherit"] }
            )
          ),
          (it) =>
            Effect.callback<void>((resume) => {
              it.once("exit", () => resume(Effect.void))
              it.kill("SIGKILL")
              if (it.exitCode !== null || it.signalCode !== null) resume(Effect.void)
            })
        )
        yield* book.awaits("started")
        child.kill(signal)
        yield* book.awaits("interrupted")
        yield* book.awaits("gone ClientGone")
        yield* server.calls.drain()
        expect([...book.seen].sort()).toEqual(["gone ClientGone", "interrupted", "started"])
      })
    )

  test("is noticed when it is killed", () => withPeer("Bidi", "SIGKILL"))

  test("is noticed when it freezes, by the keepalive", () => withPeer("Unary", "SIGSTOP"))
})

describe("as layers", () => {
  test("a server and services that are added to it", () =>
    run(
      Effect.gen(function* () {
        const { context } = yield* watching
        class Prefix extends Context.Service<Prefix, string>()("test/Prefix") {}
        const words = GrpcServer.serve(
          Server.make(definition, {
            ...echo,
            Unary: (request: string) => Effect.map(Prefix, (prefix) => `${prefix} ${request}`)
          })
        )
        const layer = words.pipe(
          Layer.provideMerge(GrpcServer.layer({ services: [], address: "127.0.0.1:0" })),
          Layer.provide(Layer.succeed(Prefix, "hello"))
        )
        const services = yield* Effect.provide(Layer.build(layer), context)
        const server = Context.get(services, GrpcServer)
        const stub = yield* stubTo(server.address)
        expect((yield* call(stub, "Unary", { request: "you" }).answer).messages).toEqual(["hello you"])
      })
    ))
})
