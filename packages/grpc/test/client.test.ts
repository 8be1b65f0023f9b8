import { CancelReason, fromCause } from "@curfew/reason"
import { CancelScope, CleanupBudget, Instant, stuck } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Client, type GrpcError } from "../src/index.ts"
import {
  definition,
  type Echo,
  type Handlers,
  insecure,
  Signal,
  serve,
  tunnelTo,
  turns,
  until
} from "./support/echo.ts"

const pure = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)

const transports: ReadonlyArray<
  readonly [string, (handlers?: Partial<Handlers>) => Effect.Effect<Echo, GrpcError, Scope.Scope>]
> = [
  [
    "a socket",
    (handlers) =>
      Effect.flatMap(serve(handlers), (address) =>
        Client.make(definition, { address, credentials: insecure })
      )
  ],
  [
    "a tunnel",
    (handlers) => Effect.flatMap(tunnelTo(handlers), (channel) => Client.make(definition, { channel }))
  ]
]

/** What a call of each kind looks like, with handlers that wait until they are told. */
interface Watch {
  readonly started: Signal
  readonly cancelled: Signal
  readonly handlers: Partial<Handlers>
}

const watched = (): Watch => {
  const started = new Signal()
  const cancelled = new Signal()
  const watch = (call: { on(event: "cancelled" | "error", f: () => void): unknown }): void => {
    call.on("cancelled", () => cancelled.tell())
    call.on("error", () => {})
    started.tell()
  }
  return {
    started,
    cancelled,
    handlers: {
      Unary: watch,
      ServerStream: (call) => {
        watch(call)
        call.write("first")
      },
      ClientStream: (call) => {
        watch(call)
        call.resume()
      },
      Bidi: (call) => {
        watch(call)
        call.on("data", (text: string) => call.write(text))
      }
    }
  }
}

const endless = Stream.concat(Stream.make("first"), Stream.never)

const kinds: ReadonlyArray<readonly [string, (echo: Echo) => Effect.Effect<unknown, GrpcError>]> = [
  ["unary", (echo) => echo.Unary("hello")],
  ["server streaming", (echo) => Stream.runDrain(echo.ServerStream("2"))],
  ["client streaming", (echo) => echo.ClientStream(endless)],
  ["bidirectional", (echo) => Stream.runDrain(echo.Bidi(endless))]
]

for (const [transport, connect] of transports) {
  describe(`over ${transport}`, () => {
    it.live("a call of each kind gives what the server sent", () =>
      Effect.gen(function* () {
        const echo = yield* connect()
        expect(yield* echo.Unary("hello")).toBe("hello")
        expect(yield* Stream.runCollect(echo.ServerStream("100"))).toEqual(
          Array.from({ length: 100 }, (_, i) => `${i}`)
        )
        expect(yield* echo.ClientStream(Stream.make("a", "b", "c"))).toBe("a,b,c")
        expect(yield* Stream.runCollect(echo.Bidi(Stream.make("a", "b", "c")))).toEqual(["a", "b", "c"])
      })
    )

    it.live("an empty request stream, an empty answer and empty messages are legal", () =>
      Effect.gen(function* () {
        const echo = yield* connect()
        expect(yield* Stream.runCollect(echo.ServerStream("0"))).toEqual([])
        expect(yield* Stream.runCollect(echo.ServerStream("0"))).toEqual([])
        expect(yield* echo.ClientStream(Stream.empty)).toBe("")
        expect(yield* Stream.runCollect(echo.Bidi(Stream.make("", "")))).toEqual(["", ""])
      })
    )

    for (const [kind, run] of kinds) {
      it.live(`L5: a ${kind} call that is cancelled before its start is not made`, () =>
        Effect.gen(function* () {
          const { handlers, started } = watched()
          const echo = yield* connect(handlers)
          const fiber = yield* Effect.forkChild(run(echo))
          yield* Fiber.interrupt(fiber)
          const below = yield* CancelScope.run((scope) =>
            Effect.andThen(Effect.andThen(scope.cancel(CancelReason.Superseded()), Effect.void), run(echo))
          )
          expect(below).toMatchObject({ _tag: "Cancelled", reason: { _tag: "Superseded" } })
          yield* turns(5)
          expect(started.pending).toBe(0)
        })
      )

      it.live(
        `L3: a ${kind} call that is cancelled during its work ends by a pure interrupt, and the server hears of it`,
        () =>
          Effect.gen(function* () {
            const { cancelled, handlers, started } = watched()
            const echo = yield* connect(handlers)
            const fiber = yield* Effect.forkChild(run(echo), { startImmediately: true })
            yield* started.heard
            yield* Fiber.interrupt(fiber)
            expect(pure(yield* Fiber.await(fiber))).toBe(true)
            yield* cancelled.heard
            expect(yield* stuck).toEqual([])
          })
      )

      it.live(`L1: a ${kind} call that is cancelled twice keeps its first reason`, () =>
        Effect.gen(function* () {
          const { cancelled, handlers, started } = watched()
          const echo = yield* connect(handlers)
          const outcome = yield* CancelScope.run((scope) =>
            Effect.gen(function* () {
              const fiber = yield* Effect.forkChild(run(echo), { startImmediately: true })
              yield* started.heard
              yield* scope.cancel(CancelReason.Superseded())
              yield* scope.cancel(CancelReason.Requested({ message: "again" }))
              yield* Fiber.join(fiber)
            })
          )
          expect(outcome).toMatchObject({ _tag: "Cancelled", reason: { _tag: "Superseded" } })
          yield* cancelled.heard
        })
      )

      it.live(`L4: a ${kind} call that is cancelled after its end keeps what it gave`, () =>
        Effect.gen(function* () {
          const echo = yield* connect()
          const ended: Record<string, Effect.Effect<unknown, GrpcError>> = {
            unary: echo.Unary("hello"),
            "server streaming": Stream.runCollect(echo.ServerStream("1")),
            "client streaming": echo.ClientStream(Stream.make("hello")),
            bidirectional: Stream.runCollect(echo.Bidi(Stream.make("hello")))
          }
          const fiber = yield* Effect.forkChild(ended[kind] as Effect.Effect<unknown, GrpcError>)
          const exit = yield* Fiber.await(fiber)
          yield* Fiber.interrupt(fiber)
          expect(Exit.isSuccess(exit)).toBe(true)
          expect(yield* Fiber.await(fiber)).toEqual(exit)
        })
      )
    }

    it.live("leaving a stream early cancels its call", () =>
      Effect.gen(function* () {
        const { cancelled, handlers } = watched()
        const echo = yield* connect(handlers)
        expect(yield* Stream.runCollect(Stream.take(echo.ServerStream("1"), 1))).toEqual(["first"])
        yield* cancelled.heard
        expect(yield* Stream.runCollect(Stream.take(echo.Bidi(endless), 1))).toEqual(["first"])
        yield* cancelled.heard
        const failing = Stream.runForEach(echo.ServerStream("1"), () => Effect.fail("enough"))
        expect(yield* Effect.flip(failing)).toBe("enough")
        yield* cancelled.heard
      })
    )

    it.live(
      "a failure of the request stream comes out typed and cancels the call, a defect as a defect",
      () =>
        Effect.gen(function* () {
          const { cancelled, handlers, started } = watched()
          const echo = yield* connect(handlers)
          const failing = Stream.concat(
            Stream.make("a"),
            Stream.fromEffect(Effect.andThen(started.heard, Effect.fail("broke" as const)))
          )
          const dying = Stream.concat(
            Stream.make("a"),
            Stream.fromEffect(Effect.andThen(started.heard, Effect.die("bug")))
          )
          expect(yield* Effect.flip(echo.ClientStream(failing))).toBe("broke")
          yield* cancelled.heard
          expect(yield* Effect.flip(Stream.runDrain(echo.Bidi(failing)))).toBe("broke")
          yield* cancelled.heard
          expect(yield* Effect.exit(echo.ClientStream(dying))).toEqual(Exit.die("bug"))
          yield* cancelled.heard
          expect(yield* Effect.exit(Stream.runDrain(echo.Bidi(dying)))).toEqual(Exit.die("bug"))
          yield* cancelled.heard
        })
    )

    it.live(
      "an answer that comes before the requests have ended wins; their producer is interrupted and awaited",
      () =>
        Effect.gen(function* () {
          const events: Array<string> = []
          const echo = yield* connect({
            ClientStream: (call, reply) => call.once("data", () => reply(null, "enough")),
            Bidi: (call) => call.once("data", () => call.end())
          })
          const producer = Stream.concat(Stream.make("a"), Stream.never).pipe(
            Stream.ensuring(
              Effect.andThen(
                turns(3),
                Effect.sync(() => events.push("producer ended"))
              )
            )
          )
          expect(yield* echo.ClientStream(producer)).toBe("enough")
          expect(events).toEqual(["producer ended"])
          yield* Stream.runDrain(echo.Bidi(producer))
          expect(events).toEqual(["producer ended", "producer ended"])
        })
    )

    it.live("a status other than OK is a GrpcError with its code, details and trailers", () =>
      Effect.gen(function* () {
        const trailers = new grpc.Metadata()
        trailers.set("quota", "7")
        const echo = yield* connect({
          Unary: (_, reply) =>
            reply({ code: grpc.status.RESOURCE_EXHAUSTED, details: "slow down", metadata: trailers }),
          ServerStream: (call) => {
            call.write("one")
            call.emit("error", { code: grpc.status.NOT_FOUND, details: "gone" })
          }
        })
        const error = yield* Effect.flip(echo.Unary("hello"))
        expect(error).toMatchObject({
          _tag: "GrpcError",
          code: 8,
          details: "slow down",
          method: "/curfew.test.Echo/Unary"
        })
        expect(error.metadata?.get("quota")).toEqual(["7"])
        expect(error.status).toBe("RESOURCE_EXHAUSTED")
        const seen: Array<string> = []
        const stream = Stream.runForEach(echo.ServerStream(" "), (text) => Effect.sync(() => seen.push(text)))
        const caught = Effect.catchTag(stream, "GrpcError", (failure) => Effect.succeed(failure.details))
        expect(yield* caught).toBe("gone")
        expect(seen).toEqual(["one"])
      })
    )

    it.live("L7: the earlier of the call's and the scope's deadline is sent", () =>
      Effect.gen(function* () {
        const told = new Signal<number>()
        const echo = yield* connect({
          Unary: (call, reply) => {
            const deadline = call.getDeadline()
            told.tell((deadline instanceof Date ? deadline.getTime() : deadline) - Date.now())
            reply(null, "")
          }
        })
        const sent = Effect.andThen(echo.Unary(" ", { timeout: "1 hour" }), told.heard)
        expect(yield* sent).toBeGreaterThan(3_500_000)
        const inMinute = yield* Instant.after("1 minute")
        const outcome = yield* CancelScope.run(() => sent, { deadline: inMinute })
        const inside = outcome._tag === "Done" ? outcome.value : Number.NaN
        expect(inside).toBeGreaterThan(50_000)
        expect(inside).toBeLessThan(61_000)
        const masked = yield* CancelScope.run(() => Effect.uninterruptible(sent), { deadline: inMinute })
        expect(masked._tag === "Done" ? masked.value : 0).toBeGreaterThan(3_500_000)
      })
    )

    it.live("L7: the call's own deadline fails with DEADLINE_EXCEEDED, the scope's cancels the scope", () =>
      Effect.gen(function* () {
        const { cancelled, handlers } = watched()
        const echo = yield* connect(handlers)
        // For the call to reach the server, on a busy machine, too.
        const enough = "400 millis"
        for (const run of [
          (o: Client.CallOptions) => echo.Unary(" ", o),
          (o: Client.CallOptions) => Stream.runDrain(echo.ServerStream(" ", o)),
          (o: Client.CallOptions) => echo.ClientStream(endless, o),
          (o: Client.CallOptions) => Stream.runDrain(echo.Bidi(endless, o))
        ]) {
          const error = yield* Effect.flip(run({ timeout: enough }))
          expect(error).toMatchObject({ _tag: "GrpcError", code: grpc.status.DEADLINE_EXCEEDED })
          yield* cancelled.heard
          const scoped = CancelScope.run(() => run({ timeout: "1 hour" }), {
            name: "order",
            deadline: yield* Instant.after(enough)
          })
          expect(yield* scoped).toMatchObject({
            _tag: "Cancelled",
            reason: { _tag: "Deadline", scope: "order" }
          })
          yield* cancelled.heard
        }
      })
    )

    it.live("L5: with a deadline in the past no call is made", () =>
      Effect.gen(function* () {
        const { handlers, started } = watched()
        const echo = yield* connect(handlers)
        for (const timeout of [0, "-1 seconds"] as const) {
          expect(yield* Effect.flip(echo.Unary(" ", { timeout }))).toMatchObject({ code: 4 })
        }
        expect(yield* Effect.flip(echo.Unary(" ", { deadline: yield* Instant.now }))).toMatchObject({
          code: 4
        })
        yield* turns(5)
        expect(started.pending).toBe(0)
      })
    )

    it.live("L6: the interrupt that a cancelled call ends by carries the reason", () =>
      Effect.gen(function* () {
        const { handlers, started } = watched()
        const echo = yield* connect(handlers)
        let seen: Option.Option<CancelReason> = Option.none()
        yield* CancelScope.run((scope) =>
          Effect.gen(function* () {
            const call = Effect.onExit(echo.Unary(" "), (exit) =>
              Effect.sync(() => {
                if (Exit.isFailure(exit)) seen = fromCause(exit.cause)
              })
            )
            yield* Effect.forkChild(Effect.andThen(started.heard, scope.cancel(CancelReason.Superseded())))
            yield* call
          })
        )
        expect(seen).toEqual(Option.some(CancelReason.Superseded()))
      })
    )
  })
}

describe("waiting for the end", () => {
  it.live("L24: an interrupt waits until the status is there", () =>
    Effect.gen(function* () {
      const { handlers, started } = watched()
      const address = yield* serve(handlers)
      const statuses: Array<string> = []
      const interceptor: grpc.Interceptor = (options, next) =>
        new grpc.InterceptingCall(next(options), {
          start: (metadata, _, go) =>
            go(metadata, {
              onReceiveStatus: (status, pass) => {
                setImmediate(() => {
                  statuses.push(grpc.status[status.code])
                  pass(status)
                })
              }
            })
        })
      const echo = yield* Client.make(
        definition,
        { address, credentials: insecure },
        { interceptors: [interceptor] }
      )
      for (const [, run] of kinds) {
        const fiber = yield* Effect.forkChild(run(echo), { startImmediately: true })
        yield* started.heard
        yield* Fiber.interrupt(fiber)
        expect(statuses.splice(0)).toEqual(["CANCELLED"])
      }
    })
  )

  it.live("L24: a request stream that does not end is left behind after the budget, by name", () =>
    Effect.gen(function* () {
      const { handlers, started } = watched()
      const channel = yield* tunnelTo(handlers)
      const echo = yield* Client.make(definition, { channel })
      const release = yield* Deferred.make<void>()
      const requests = Stream.concat(
        Stream.make("a"),
        Stream.fromEffect(Effect.uninterruptible(Effect.as(Deferred.await(release), "b")))
      )
      const fiber = yield* Effect.forkChild(
        Effect.provideService(Stream.runDrain(echo.Bidi(requests)), CleanupBudget, Duration.millis(10)),
        { startImmediately: true }
      )
      yield* started.heard
      yield* Fiber.interrupt(fiber)
      expect((yield* stuck).map(({ kind, name }) => [kind, name])).toEqual([
        ["task", "requests of curfew.test.Echo/Bidi"]
      ])
      yield* Deferred.succeed(release, undefined)
      yield* until(() => Effect.runSync(stuck).length === 0)
    })
  )

  it.live("a call whose status never comes is left behind after the budget, by name", () =>
    Effect.gen(function* () {
      const { handlers, started } = watched()
      const address = yield* serve(handlers)
      let release = (): void => {}
      const swallows: grpc.Interceptor = (options, next) =>
        new grpc.InterceptingCall(next(options), {
          cancel: (pass) => {
            release = pass
          }
        })
      const echo = yield* Client.make(
        definition,
        { address, credentials: insecure },
        { interceptors: [swallows] }
      )
      const fiber = yield* Effect.forkChild(
        Effect.provideService(echo.Unary(" "), CleanupBudget, Duration.millis(10)),
        { startImmediately: true }
      )
      yield* started.heard
      yield* Fiber.interrupt(fiber)
      expect((yield* stuck).map((record) => record.name)).toEqual(["end of /curfew.test.Echo/Unary"])
      release()
      yield* until(() => Effect.runSync(stuck).length === 0)
    })
  )
})
