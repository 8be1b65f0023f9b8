/** Calls that a tunnel turns away because it drains, where there is another tunnel. */
import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { Services, serveReverse, type TunnelHandle, TunnelService } from "../src/index.ts"
import { audited } from "./support/audit.ts"
import { collect, definition, EchoClient, type Handlers, implementation, unary } from "./support/echo.ts"
import { listen } from "./support/network.ts"

const { status: Code } = grpc
const insecure = grpc.credentials.createInsecure()
const words = "The tunnel is draining: make the call over another one"

/** A service, and agents that each answer with their names. */
const world = Effect.gen(function* () {
  const service = yield* TunnelService.make()
  const { address } = yield* listen(service.addTo)
  const { reverse } = service
  const seen: Array<string> = []
  const open = (
    name: string,
    handlers: Partial<Handlers> = {}
  ): Effect.Effect<TunnelHandle, unknown, Scope.Scope> =>
    Effect.gen(function* () {
      const before = (yield* reverse.list).length
      const answering = implementation({
        Unary: (_, callback) => {
          seen.push(name)
          callback(null, Buffer.from(name))
        },
        Bidi: (call) => {
          seen.push(name)
          call.on("data", (part: Buffer) => call.write(Buffer.concat([Buffer.from(name), part])))
          call.on("end", () => call.end())
        },
        ...handlers
      })
      const services = Services.empty.pipe(Services.add(definition, answering))
      const handle = yield* serveReverse({ address, credentials: insecure }, services)
      yield* Effect.repeat(Effect.yieldNow, { until: () => Effect.runSync(reverse.list).length > before })
      return handle
    })
  const client = new EchoClient("any", insecure, { channelOverride: reverse.channel() })
  return { client, open, reverse, seen }
})

/** The agent drains now; the other end hears of it in a later turn. */
const drainNow = (handle: TunnelHandle) => void Effect.runFork(handle.drain())

const ask = (client: EchoClient) =>
  Effect.map(
    Effect.promise(() => unary(client, Buffer.from("q"))),
    ({ code, details, value }) => (code === Code.OK ? String(value) : `${code} ${details}`)
  )

describe("a call that crosses the announcement of a drain", () => {
  it.live("is made over another tunnel, and leaves nothing", () =>
    Effect.gen(function* () {
      const [answer, findings] = yield* audited(
        Effect.scoped(
          Effect.gen(function* () {
            const { client, open, seen } = yield* world
            const a = yield* open("A")
            yield* open("B")
            drainNow(a)
            return [yield* ask(client), seen]
          })
        )
      )
      expect(answer).toEqual(["B", ["B"]])
      expect(findings).toMatchObject({ liveFibers: 0, errorLogs: [] })
    })
  )

  it.live("takes along what was sent, and its end", () =>
    Effect.gen(function* () {
      const { client, open, seen } = yield* world
      const a = yield* open("A")
      yield* open("B")
      drainNow(a)
      const call = client.Bidi()
      const collected = collect(call)
      for (const text of ["1", "2", "3"]) call.write(Buffer.from(text))
      call.end()
      const { code, messages } = yield* Effect.promise(() => collected)
      expect([code, messages.map(String)]).toEqual([Code.OK, ["B1", "B2", "B3"]])
      expect(seen).toEqual(["B"])
    }).pipe(Effect.scoped)
  )

  it.live("moves as long as there is a tunnel, and is told when there is none", () =>
    Effect.gen(function* () {
      const { client, open, seen } = yield* world
      const all = [yield* open("A"), yield* open("B"), yield* open("C")]
      for (const handle of all) drainNow(handle)
      expect(yield* ask(client)).toBe(`14 ${words}`)
      expect(seen).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("does not move once it is cancelled", () =>
    Effect.gen(function* () {
      const { client, open, seen } = yield* world
      const a = yield* open("A")
      yield* open("B")
      drainNow(a)
      const call = client.Bidi()
      const collected = collect(call)
      call.cancel()
      expect((yield* Effect.promise(() => collected)).code).toBe(Code.CANCELLED)
      expect(yield* ask(client)).toBe("B")
      expect(seen).toEqual(["B"])
    }).pipe(Effect.scoped)
  )
})

describe("a call that was picked a tunnel which drains at this end before the call begins", () => {
  it.live("is made over another one", () =>
    Effect.gen(function* () {
      const { client, open, reverse, seen } = yield* world
      yield* open("A")
      yield* open("B")
      const [first] = yield* reverse.list
      const interceptor: grpc.Interceptor = (options, nextCall) =>
        new grpc.InterceptingCall(nextCall(options), {
          start: (metadata, listener, next) => {
            // The tunnel has been picked by now.
            if (first !== undefined) drainNow(first)
            next(metadata, listener)
          }
        })
      const answer = yield* Effect.promise(
        () =>
          new Promise<string>((resolve) =>
            client.Unary(
              Buffer.from("q"),
              new grpc.Metadata(),
              { interceptors: [interceptor] },
              (error, value) => resolve(error === null ? String(value) : error.message)
            )
          )
      )
      expect(answer).toBe("B")
      expect(seen).toEqual(["B"])
    }).pipe(Effect.scoped)
  )
})

describe("a call that a handler has had", () => {
  it.live("stays where it is, whatever the handler says, and whatever drains", () =>
    Effect.gen(function* () {
      const { client, open, reverse, seen } = yield* world
      let answer = (): void => undefined
      const a = yield* open("A", {
        Unary: (_, callback) => {
          answer = () => callback({ code: Code.UNAVAILABLE, details: words })
          seen.push("A")
        }
      })
      yield* open("B")
      const asked = yield* Effect.forkChild(ask(client))
      yield* Effect.repeat(Effect.yieldNow, { until: () => seen.length === 1 })
      drainNow(a)
      const [tunnel] = yield* reverse.list
      yield* tunnel?.awaitDraining ?? Effect.void
      answer()
      expect(yield* Fiber.join(asked)).toBe(`14 ${words}`)
      expect(seen).toEqual(["A"])
    }).pipe(Effect.scoped)
  )
})
