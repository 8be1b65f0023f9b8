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
import { definition as healthDefinition } from "../src/internal/server/healthProtocol.ts"
import { turns } from "../src/internal/turns.ts"
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

  test("what runs on without its client, and ends by force alone, is told as cancelled", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const handlers = inAllKinds(
          (given) =>
            Effect.gen(function* () {
              yield* given.onPeerGone(() => book.noting("gone"))
              yield* book.noting("started")
              return yield* Effect.onInterrupt(Effect.never, () => book.noting("interrupted"))
            }),
          onDisconnect("detach")
        )
        const { reports, stop, stub } = yield* started(handlers, { drain: "10 millis" })
        const left = call(stub, "Unary")
        yield* book.awaits("started")
        left.call.cancel()
        yield* book.awaits("gone")
        yield* stop
        expect(book.seen.at(-1)).toBe("interrupted")
        expect(reports).toEqual([{ drained: 0, cancelled: ["/curfew.test.Words/Unary"], abandoned: [] }])
      })
    ))

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

  test("calls to an implementation from elsewhere that an interceptor ends hold no place", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        let go = (): void => undefined
        const keeper: grpc.ServerInterceptor = (_definition, call) =>
          new grpc.ServerInterceptingCall(
            call,
            new grpc.ResponderBuilder()
              .withStart((next) => {
                if (book.seen.length > 0) go = next
                else call.sendStatus({ code: Code.UNAUTHENTICATED, details: "who are you?", metadata: null })
                book.note("asked")
              })
              .build()
          )
        const elsewhere = {
          definition,
          implementation: {
            Unary: (_call: never, callback: grpc.sendUnaryData<string>) => callback(null, "plain")
          } as unknown as grpc.UntypedServiceImplementation
        }
        const { reports, server, stop, stub } = yield* started(echo, {
          services: [elsewhere],
          options: { interceptors: [keeper] }
        })
        expect((yield* call(stub, "Unary").answer).code).toBe(Code.UNAUTHENTICATED)
        expect(yield* server.calls.live).toEqual([])
        // Its client leaves while the interceptor still thinks about it.
        const left = call(stub, "Unary")
        yield* book.awaits("asked", 2)
        left.call.cancel()
        yield* left.answer
        const last = call(stub, "Unary")
        const gone = go
        yield* book.awaits("asked", 3)
        gone()
        expect(yield* server.calls.live).toEqual([])
        go()
        expect((yield* last.answer).messages).toEqual(["plain"])
        yield* stop
        expect(reports).toEqual([{ drained: 0, cancelled: [], abandoned: [] }])
      })
    ))

  test("a status of a limit that throws refuses calls to implementations from elsewhere as well", () =>
    run(
      Effect.gen(function* () {
        const elsewhere = {
          definition,
          implementation: {
            Unary: (_call: never, callback: grpc.sendUnaryData<string>) => callback(null, "plain")
          } as unknown as grpc.UntypedServiceImplementation
        }
        const { logs, stub } = yield* started(echo, {
          services: [elsewhere],
          limits: { calls: 0 },
          limitStatus: () => {
            throw new Error("no status")
          }
        })
        expect((yield* call(stub, "Unary").answer).code).toBe(Code.RESOURCE_EXHAUSTED)
        expect(logs).toContainEqual(expect.stringContaining("limitStatus threw"))
      })
    ))

  test("an address that is taken is a typed error that says what to do", () =>
    run(
      Effect.gen(function* () {
        const { server } = yield* started(echo)
        const { context, logs } = yield* watching
        const reports: Array<StopReport> = []
        const bind = (address: string) =>
          Effect.flip(
            Effect.scoped(
              Effect.provide(
                GrpcServer.make({ services: [], address, onReport: (report) => reports.push(report) }),
                context
              )
            )
          )
        const taken = yield* bind(server.address)
        expect([taken._tag, taken.message]).toEqual([
          "BindError",
          `The server could not listen on ${server.address} because the address is in use; free it, or choose another.`
        ])
        expect((yield* bind("192.0.2.1:1")).message).toBe(
          "The server could not listen on 192.0.2.1:1 because this machine does not have the address; choose one of its own, or 0.0.0.0 for all of them."
        )
        for (const address of ["http://x", ""]) {
          expect((yield* bind(address)).message).toBe(
            `The server could not listen on ${address || "an empty address"} because the address cannot be resolved; write it as host and port, such as 127.0.0.1:50051.`
          )
        }
        // What never listened has not stopped.
        expect([reports, logs.filter((line) => line.includes("has stopped"))]).toEqual([[], []])
      })
    ))

  test("port 0 stands in the log and in the report of a shutdown as the port that was bound", () =>
    run(
      Effect.gen(function* () {
        const { context, logs } = yield* watching
        let address = ""
        const main = Effect.gen(function* () {
          ;({ address } = yield* GrpcServer.make({ services: [], address: "127.0.0.1:0" }))
        })
        const { report } = yield* Effect.provide(Shutdown.run(Effect.scoped(main)), context)
        expect(address).toMatch(/^127\.0\.0\.1:[1-9]\d*$/)
        expect(logs.join()).toContain(`The server on ${address} has stopped: 0 drained`)
        const { report: later } = yield* Effect.provide(
          Shutdown.run(Effect.scoped(Effect.andThen(main, Effect.andThen(Shutdown.begin, Effect.never)))),
          context
        )
        expect(report.items.map(({ name }) => name)).toEqual(["main"])
        expect(later.items.map(({ name }) => name)).toContain(`gRPC ${address}`)
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
  test("its report has one row for each server and one for each call, whatever becomes of them", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { context } = yield* watching
        const handlers = inAllKinds((given) =>
          given.kind === "unary"
            ? Effect.as(Effect.andThen(book.noting("started"), book.awaits("meanwhile")), "drained")
            : given.kind === "bidi"
              ? Effect.uninterruptible(
                  Effect.as(Effect.andThen(book.noting("started"), book.awaits("go")), "late")
                )
              : Effect.andThen(book.noting("started"), Effect.never)
        )
        const outer = yield* Effect.scope
        let send: (signal: string) => void = () => undefined
        const main = Effect.gen(function* () {
          const server = yield* GrpcServer.make({
            name: "words",
            services: [Server.make(definition, handlers) as Effect.Effect<Server.Service, never, Owner>],
            address: "127.0.0.1:0",
            lameDuck: "1 minute"
          })
          const stub = yield* Scope.provide(stubTo(server.address), outer)
          const unary = [call(stub, "Unary")]
          call(stub, "ClientStream")
          call(stub, "Bidi")
          yield* book.awaits("started", 3)
          send("SIGTERM")
          // Two that begin and end while the server stops stand in one row.
          unary.push(call(stub, "Unary"), call(stub, "Unary"))
          yield* book.awaits("started", 5)
          book.note("meanwhile")
          for (const { answer } of unary) yield* answer
          send("SIGINT")
          return yield* Effect.never
        })
        const { report } = yield* Effect.provide(
          Shutdown.run(Effect.scoped(main), {
            drain: "1 minute",
            force: "400 millis",
            signals: {
              subscribe: (listener) => {
                send = listener
                return () => undefined
              }
            }
          }),
          context
        )
        book.note("go")
        const rows = report.items.map(({ count, fate, kind, name }) => `${kind} ${name} ×${count} ${fate}`)
        expect(rows.toSorted()).toEqual([
          "hook words ×1 cancelled",
          "main main ×1 cancelled",
          "task /curfew.test.Words/Bidi ×1 abandoned",
          "task /curfew.test.Words/ClientStream ×1 cancelled",
          "task /curfew.test.Words/Unary ×1 drained",
          "task /curfew.test.Words/Unary ×2 drained"
        ])
      })
    ))

  test("a second signal ends the lame duck, and no call is lost from the report", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { context } = yield* watching
        const reports: Array<StopReport> = []
        let send: (signal: string) => void = () => undefined
        let listening = ""
        const program = Effect.scoped(
          Effect.gen(function* () {
            const server = yield* GrpcServer.make({
              services: [
                Server.make(
                  definition,
                  inAllKinds(() => Effect.andThen(book.noting("started"), Effect.never))
                ) as Effect.Effect<Server.Service, never, Owner>
              ],
              address: "127.0.0.1:0",
              lameDuck: "1 hour",
              onReport: (report) => reports.push(report)
            })
            listening = server.address
            book.note("listening")
            return yield* Effect.never
          })
        )
        const running = yield* Effect.forkChild(
          Effect.provide(
            Shutdown.run(program, {
              drain: "2 hours",
              force: "8 seconds",
              secondSignal: "force",
              signalWindow: 0,
              signals: {
                subscribe: (heard) => {
                  send = heard
                  return () => undefined
                }
              }
            }),
            context
          )
        )
        yield* book.awaits("listening")
        const stub = yield* stubTo(listening)
        const open = call(stub, "Unary")
        yield* book.awaits("started")
        send("SIGTERM")
        yield* turns(2)
        send("SIGTERM")
        expect((yield* open.answer).code).toBe(Code.UNAVAILABLE)
        yield* Fiber.await(running)
        expect(reports).toEqual([{ drained: 0, cancelled: ["/curfew.test.Words/Unary"], abandoned: [] }])
      })
    ))

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

  test("L43 a lame duck that outlasts the shutdown is cut short, and its calls are in the report", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const reports: Array<StopReport> = []
        const handlers = inAllKinds(() => Effect.andThen(book.noting("started"), Effect.never))
        const outer = yield* Effect.scope
        let answer: Effect.Effect<{ readonly code: number }> | undefined
        const main = Effect.gen(function* () {
          const server = yield* GrpcServer.make({
            services: [Server.make(definition, handlers) as Effect.Effect<Server.Service, never, Owner>],
            address: "127.0.0.1:0",
            lameDuck: "1 hour",
            onReport: (report) => reports.push(report)
          })
          const stub = yield* Scope.provide(stubTo(server.address), outer)
          answer = call(stub, "Bidi").answer
          yield* book.awaits("started")
          yield* Shutdown.begin
          return yield* Effect.never
        })
        yield* Shutdown.run(Effect.scoped(main), { drain: "100 millis", force: "4 seconds" })
        expect((yield* answer ?? Effect.die("no call")).code).toBe(Code.UNAVAILABLE)
        expect(reports).toEqual([{ drained: 0, cancelled: ["/curfew.test.Words/Bidi"], abandoned: [] }])
      })
    ))

  test.each(kinds)(
    "%s: a force that comes while it stops closes the listener, and tells the call as cancelled",
    (kind) =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const { context, logs } = yield* watching
          const reports: Array<StopReport> = []
          const handlers = inAllKinds(() => Effect.andThen(book.noting("started"), Effect.never))
          const outer = yield* Effect.scope
          let codes: Effect.Effect<number> = Effect.succeed(-1)
          const main = Effect.gen(function* () {
            const server = yield* GrpcServer.make({
              services: [Server.make(definition, handlers) as Effect.Effect<Server.Service, never, Owner>],
              address: "127.0.0.1:0",
              onReport: (report) => reports.push(report)
            })
            const stub = yield* Scope.provide(stubTo(server.address), outer)
            codes = Effect.map(call(stub, kind).answer, ({ code }) => code)
            yield* book.awaits("started")
            yield* Shutdown.begin
            return yield* Effect.never
          })
          yield* Effect.provide(Shutdown.run(Effect.scoped(main), { drain: 0, force: "4 seconds" }), context)
          expect(yield* codes).toBe(Code.UNAVAILABLE)
          expect(reports).toEqual([{ drained: 0, cancelled: [`/curfew.test.Words/${kind}`], abandoned: [] }])
          expect(logs.join("\n")).toContain("has stopped: 0 drained, 1 cancelled, 0 abandoned.")
        })
      )
  )
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
