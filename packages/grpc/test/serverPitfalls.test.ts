/** What grpc-js gets wrong, pinned with a plain handler, and put right by the same handler served here. */
import { cancellable, onDisconnect } from "@curfew/request"
import { Owner } from "@curfew/scope"
import * as grpc from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import { GrpcServer, Server } from "../src/index.ts"
import { turns } from "../src/internal/turns.ts"
import {
  Code,
  call,
  definition,
  echo,
  inAllKinds,
  kinds,
  listen,
  metadata,
  notebook,
  run,
  serving,
  stubTo,
  transports
} from "./support/serving.ts"

type Implementation = Record<string, (call: never, callback: never) => unknown>

/** A stub to a server with plain grpc-js handlers. */
const plain = (handlers: Implementation, options?: grpc.ServerOptions) =>
  Effect.gen(function* () {
    const { address, server } = yield* listen(
      (it) => it.addService(definition, handlers as grpc.UntypedServiceImplementation),
      options
    )
    return { stub: yield* stubTo(address), server }
  })

/** Takes over an event of the process that would end it, or fail the test run, while a test looks at it. */
const onProcess = (event: "uncaughtException" | "unhandledRejection") =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const seen = Deferred.makeUnsafe<Error>()
      const listeners = process.listeners(event as "uncaughtException")
      process.removeAllListeners(event)
      process.on(event as "uncaughtException", (error) => Deferred.doneUnsafe(seen, Effect.succeed(error)))
      return { seen: Deferred.await(seen), listeners }
    }),
    ({ listeners }) =>
      Effect.sync(() => {
        process.removeAllListeners(event)
        for (const listener of listeners) process.on(event as "uncaughtException", listener)
      })
  )

describe("a cancel looks like the end of the requests", () => {
  const uploads = 30

  test("plain: an upload that was cut off is committed as complete", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { stub } = yield* plain({
          ClientStream: async (upload: grpc.ServerReadableStream<string, string>) => {
            try {
              for await (const part of upload) book.note(`got ${part}`)
              book.note(`committed, cancelled ${upload.cancelled}`)
            } catch {
              book.note("cut off")
            }
          }
        })
        for (let i = 1; i <= uploads; i++) {
          const started = call(stub, "ClientStream", { request: "part" })
          yield* book.awaits("got part", i)
          started.call.cancel()
          yield* book.until(() => book.seen.filter((it) => it !== "got part").length >= i)
        }
        expect(book.seen.filter((it) => it === "committed, cancelled false").length).toBeGreaterThan(0)
      })
    ))

  test.each(transports)(
    "here, over %s: it fails, also for a handler that goes on without its peer",
    (transport) =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const { idle, stub } = yield* serving(transport, {
            ...echo,
            ClientStream: (requests) =>
              Stream.runForEach(requests, (part) => book.noting(`got ${part}`)).pipe(
                Effect.tap(() => book.noting("committed")),
                Effect.tapError((error) =>
                  Effect.flatMap(requests.completeness, (how) => book.noting(`${error.code} ${how}`))
                ),
                Effect.as("stored")
              )
          })
          for (let i = 1; i <= uploads; i++) {
            const started = call(stub, "ClientStream", { request: "part" })
            yield* book.awaits("got part", i)
            started.call.cancel()
            yield* book.awaits(`${Code.CANCELLED} cut off`, i)
          }
          yield* idle
          expect(book.seen).not.toContain("committed")
        })
      )
  )

  test("here: messages that the handler had not read do not hide the cancel", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { idle, stub } = yield* serving("grpc", {
          ...echo,
          Bidi: onDisconnect("shield")((requests, given) =>
            Stream.fromEffect(
              Effect.gen(function* () {
                yield* book.noting("started")
                yield* given.awaitPeerGone
                const exit = yield* Effect.exit(Stream.runDrain(requests))
                yield* book.noting(exit._tag)
                return "late"
              })
            )
          )
        })
        const started = call(stub, "Bidi")
        for (let i = 0; i < 40; i++) started.call.write?.("x".repeat(10_000))
        yield* book.awaits("started")
        started.call.cancel()
        yield* started.answer
        yield* idle
        expect(book.seen).toEqual(["started", "Failure"])
      })
    ))
})

describe("a write that waits when the client leaves", () => {
  const large = "x".repeat(200_000)

  test("plain: is never called back, and drain never comes", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { stub } = yield* plain({
          ServerStream: (stream: grpc.ServerWritableStream<string, string>) => {
            let more = true
            while (more) more = stream.write(large, () => book.note("called back"))
            book.note("full")
            stream.on("drain", () => book.note("drain"))
            stream.on("close", () => book.note("close"))
          }
        })
        const stream = stub.ServerStream("q", new grpc.Metadata(), {})
        stream.on("error", () => undefined)
        yield* book.awaits("full")
        // The first message is in the client's window; what comes behind it waits.
        const before = book.seen.length
        stream.cancel()
        yield* book.awaits("close")
        yield* turns(20)
        expect(book.seen.slice(before)).not.toContain("drain")
        expect(book.seen.filter((it) => it === "called back").length).toBeLessThan(16)
      })
    ))

  test.each(transports)(
    "L41 here, over %s: the stream goes on or is closed, as its policy says",
    (transport) =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const source = (name: string) =>
            Stream.range(1, 60).pipe(
              Stream.map(() => large),
              Stream.tap(() => book.noting(name)),
              Stream.onExit((exit) => book.noting(`${name} ${exit._tag}`))
            )
          const { idle, logs, stub } = yield* serving(transport, {
            ...echo,
            ServerStream: () => source("closed"),
            Bidi: onDisconnect("shield")(() => source("shielded"))
          })
          for (const kind of ["ServerStream", "Bidi"] as const) {
            const stream =
              kind === "Bidi" ? stub.Bidi(metadata(), {}) : stub.ServerStream("q", metadata(), {})
            stream.on("error", () => undefined)
            const name = kind === "Bidi" ? "shielded" : "closed"
            if (kind === "Bidi") (stream as grpc.ClientDuplexStream<string, string>).write("q")
            yield* book.awaits(name)
            yield* turns(20)
            expect(book.seen.filter((it) => it === name).length, "real backpressure").toBeLessThan(60)
            stream.cancel()
            yield* idle
          }
          expect(book.seen).toContain("closed Failure")
          expect(book.seen).toContain("shielded Success")
          expect(book.seen.filter((it) => it === "shielded")).toHaveLength(60)
          expect(logs.filter((line) => line.includes("Nobody is there to send this to"))).toHaveLength(1)
        })
      )
  )
})

describe("a promise that is rejected", () => {
  test("plain: is unhandled, and the client waits for its deadline", () =>
    run(
      Effect.gen(function* () {
        const { seen } = yield* onProcess("unhandledRejection")
        const { stub } = yield* plain({ Unary: () => Promise.reject(new Error("no database")) })
        const started = call(stub, "Unary", { call: { deadline: Date.now() + 1_000 } })
        expect((yield* seen).message).toBe("no database")
        expect((yield* started.answer).code).toBe(Code.DEADLINE_EXCEEDED)
      })
    ))

  test.each(transports)("here, over %s: is a status, and the signal has the reason", (transport) =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { logs, stub } = yield* serving(transport, {
          ...echo,
          Unary: cancellable(
            Server.fromPromise(async (request: string, { signal }) => {
              if (request === "plain") throw new Error("no database")
              if (request === "status")
                throw Object.assign(new Error("x"), { code: 5, details: "no such order" })
              if (request === "ok") return "fine"
              book.note("started")
              await new Promise((resolve) => signal.addEventListener("abort", resolve))
              book.note(`aborted ${signal.reason._tag}`)
              throw signal.reason
            })
          )
        })
        const ask = (request: string) => call(stub, "Unary", { request })
        expect((yield* ask("ok").answer).messages).toEqual(["fine"])
        const unforeseen = yield* ask("plain").answer
        expect([unforeseen.code, unforeseen.details]).toEqual([Code.UNKNOWN, "The handler failed"])
        const spoken = yield* ask("status").answer
        expect([spoken.code, spoken.details]).toEqual([Code.NOT_FOUND, "no such order"])
        const left = ask("wait")
        yield* book.awaits("started")
        left.call.cancel()
        yield* book.awaits("aborted ClientGone")
        expect(logs.filter((line) => line.startsWith("Error"))).toEqual([
          "Error: The handler failed (/curfew.test.Words/Unary). | Fail @ curfew.test.Words/Unary"
        ])
      })
    )
  )

  test.each(transports)(
    "over %s: after a cancel, an abort is no failure, and anything else has a receiver",
    (transport) =>
      run(
        Effect.gen(function* () {
          const book = notebook()
          const { idle, stub, unhandled } = yield* serving(transport, {
            ...echo,
            Unary: cancellable(
              Server.fromPromise(async (request: string, { signal }) => {
                book.note("started")
                await new Promise((resolve) => signal.addEventListener("abort", resolve))
                if (request === "reason") throw signal.reason
                if (request === "abort") throw new DOMException("aborted", "AbortError")
                throw new Error("the rollback failed")
              })
            )
          })
          for (const request of ["reason", "abort", "rollback"]) {
            const left = call(stub, "Unary", { request })
            yield* book.awaits("started")
            book.seen.length = 0
            left.call.cancel()
            yield* left.answer
            yield* idle
          }
          expect(unhandled.map(({ cause, origin }) => [origin, Cause.squash(cause)])).toEqual([
            ["abandoned work", new Error("the rollback failed")]
          ])
        })
      )
  )
})

describe("trailers that HTTP/2 forbids", () => {
  const forbidden = () => {
    const trailers = new grpc.Metadata()
    trailers.set("connection", "close")
    return trailers
  }

  test("plain: end the process", () =>
    run(
      Effect.gen(function* () {
        const { seen } = yield* onProcess("uncaughtException")
        const { stub } = yield* plain({
          ServerStream: (stream: grpc.ServerWritableStream<string, string>) => {
            stream.write("one")
            stream.end(forbidden())
          }
        })
        const started = call(stub, "ServerStream")
        expect((yield* seen).message).toContain("connection")
        started.call.cancel()
      })
    ))

  test("plain: can replace the status itself", () =>
    run(
      Effect.gen(function* () {
        const { stub } = yield* plain({
          Unary: (_call: never, callback: grpc.sendUnaryData<string>) => {
            const trailers = new grpc.Metadata()
            trailers.set("grpc-status", "7")
            callback(null, "ok", trailers)
          }
        })
        expect((yield* call(stub, "Unary").answer).code).toBe(Code.PERMISSION_DENIED)
      })
    ))

  const bad = {
    connection: { connection: "close" },
    pseudo: { ":status": "500" },
    status: { "grpc-status": "7" },
    key: { "no good": "x" },
    value: { note: "line\nbreak" },
    binary: { "x-bin": "text" },
    twice: { date: ["a", "b"] }
  } as const

  test.each(Object.keys(bad) as Array<keyof typeof bad>)(
    "here: %s is an INTERNAL and a log, in all kinds",
    (name) =>
      run(
        Effect.gen(function* () {
          const { logs, stub } = yield* serving(
            "grpc",
            inAllKinds((given) => Effect.as(given.setTrailers(bad[name]), "ok"))
          )
          for (const kind of kinds) {
            const started = call(stub, kind)
            started.call.end?.()
            const answer = yield* started.answer
            expect([kind, answer.code, answer.details]).toEqual([
              kind,
              Code.INTERNAL,
              "The trailers of the answer cannot be sent"
            ])
          }
          expect(
            logs.filter((line) => line.startsWith("Error") && line.includes("@ curfew.test.Words/"))
          ).toHaveLength(4)
        })
      )
  )

  test("here: headers as well, and a status with bad trailers or half a character is a status", () =>
    run(
      Effect.gen(function* () {
        const { logs, stub } = yield* serving("grpc", {
          ...inAllKinds((given) => Effect.as(given.sendHeaders(forbidden()), "ok")),
          Unary: () =>
            Effect.fail(
              Object.assign(new Error("x"), { code: 9, details: "half \ud83d", metadata: forbidden() })
            ),
          ServerStream: () =>
            Stream.concat(
              Stream.make("one"),
              Stream.fail(Object.assign(new Error("x"), { code: 9, details: "half \ud83d" }))
            )
        })
        const headers = yield* call(stub, "Bidi").answer
        expect([headers.code, headers.details]).toEqual([
          Code.INTERNAL,
          "The headers of the answer cannot be sent"
        ])
        expect((yield* call(stub, "Unary").answer).code).toBe(Code.INTERNAL)
        const half = yield* call(stub, "ServerStream").answer
        expect([half.code, half.details, half.messages]).toEqual([9, "half \ufffd", ["one"]])
        expect(logs.filter((line) => line.startsWith("Error")).length).toBe(2)
      })
    ))
})

describe("a deadline of more than 2^31 ms", () => {
  test("grpc-js ends the call at once; no handler of ours is left behind by it", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { idle, stub } = yield* serving(
          "grpc",
          inAllKinds(() => Effect.onExit(Effect.never, (exit) => book.noting(exit._tag)))
        )
        for (const kind of kinds) {
          const answer = yield* call(stub, kind, {
            metadata: metadata({ "grpc-timeout": "600H" })
          }).answer
          expect([kind, answer.code]).toEqual([kind, Code.DEADLINE_EXCEEDED])
        }
        yield* idle
        expect(book.seen.every((it) => it === "Failure")).toBe(true)
      })
    ))
})

describe("a cancel after the answer", () => {
  test("plain: comes after every success", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { stub } = yield* plain({
          Unary: (given: grpc.ServerUnaryCall<string, string>, answer: grpc.sendUnaryData<string>) => {
            given.on("cancelled", () => book.note("cancelled"))
            answer(null, "done")
          }
        })
        expect((yield* call(stub, "Unary").answer).code).toBe(Code.OK)
        yield* book.awaits("cancelled")
      })
    ))

  test.each(transports)("here, over %s: is no cancel, and interrupts nothing", (transport) =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { calls, idle, stub } = yield* serving(
          transport,
          inAllKinds((given) =>
            Effect.gen(function* () {
              // It lives as long as the call's scope, which ends after the answer.
              yield* given.onPeerGone(() => book.noting("gone"))
              yield* Effect.addFinalizer((exit) =>
                Effect.flatMap(given.reason, ({ _tag }) => book.noting(`${exit._tag}, reason ${_tag}`))
              )
              return "done"
            })
          )
        )
        for (const kind of kinds) expect((yield* call(stub, kind).answer).code).toBe(Code.OK)
        yield* idle
        yield* turns(10)
        expect(yield* calls.inFlight).toBe(0)
        expect(book.seen).toEqual(kinds.map(() => "Success, reason None"))
      })
    )
  )
})

describe("a server that stops while a stream is open", () => {
  test("plain: tryShutdown does not end, and forceShutdown tells the client CANCELLED", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const { server, stub } = yield* plain({ Bidi: () => book.note("started") })
        const open = call(stub, "Bidi")
        yield* book.awaits("started")
        server.tryShutdown(() => book.note("shut down"))
        yield* turns(50)
        expect(book.seen).not.toContain("shut down")
        server.forceShutdown()
        expect((yield* open.answer).code).toBe(Code.CANCELLED)
        yield* book.awaits("shut down")
      })
    ))

  test("here: ends within its drain, and the client is told UNAVAILABLE", () =>
    run(
      Effect.gen(function* () {
        const book = notebook()
        const handlers = inAllKinds(() => Effect.andThen(book.noting("started"), Effect.never))
        const scope = yield* Scope.make()
        const server = yield* Scope.provide(
          GrpcServer.make({
            services: [Server.make(definition, handlers) as Effect.Effect<Server.Service, never, Owner>],
            address: "127.0.0.1:0",
            drain: "10 millis"
          }),
          scope
        )
        const open = call(yield* stubTo(server.address), "Bidi")
        yield* book.awaits("started")
        yield* Scope.close(scope, Exit.void)
        expect((yield* open.answer).code).toBe(Code.UNAVAILABLE)
      }).pipe(Effect.provide(Owner.layer()))
    ))
})
