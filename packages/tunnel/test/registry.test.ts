import { describe, expect, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  AccessRefused,
  type ReverseChange,
  type ReverseChannelOptions,
  Services,
  serveReverse,
  TunnelCall,
  type TunnelHandle,
  type TunnelOptions,
  TunnelService
} from "../src/index.ts"
import { definition, EchoClient, implementation, metadata, type UnaryHandler, unary } from "./support/echo.ts"
import { listen } from "./support/network.ts"

const { status: Code } = grpc
const insecure = grpc.credentials.createInsecure()

const keyOf = ({ metadata: headers }: { readonly metadata: grpc.Metadata }) => String(headers.get("key")[0])

/** An agent that answers with its name, and leaves the calls open that ask for it. */
class Fake {
  readonly held: Array<() => void> = []
  readonly services: Services.Services
  readonly name: string

  constructor(name: string) {
    this.name = name
    const Unary: UnaryHandler = (call, callback) => {
      const answer = () => callback(null, Buffer.from(name))
      if (call.request.toString() === "hold") this.held.push(answer)
      else answer()
    }
    this.services = Services.empty.pipe(Services.add(definition, implementation({ Unary })))
  }
}

const world = (options: TunnelOptions = {}) =>
  Effect.gen(function* () {
    const service = yield* TunnelService.make({ ...options, affinityKey: keyOf })
    const { address } = yield* listen(service.addTo)
    const { reverse } = service
    /** Opens a tunnel and waits until the registry has it. */
    const open = (fake: Fake, key = "x"): Effect.Effect<TunnelHandle, unknown, Scope.Scope> =>
      Effect.gen(function* () {
        const before = (yield* reverse.list).length
        const handle = yield* serveReverse({ address, credentials: insecure }, fake.services, {
          metadata: metadata({ key, name: fake.name })
        })
        yield* Effect.repeat(Effect.yieldNow, { until: () => Effect.runSync(reverse.list).length > before })
        return handle
      })
    const stub = (channel?: ReverseChannelOptions<undefined>) =>
      new EchoClient("any", insecure, { channelOverride: reverse.channel(channel) })
    return { service, reverse, open, stub }
  })

const ask = (client: EchoClient, request = "q", call: grpc.CallOptions = {}) =>
  Effect.map(
    Effect.promise(() => unary(client, Buffer.from(request), { call })),
    ({ code, value }) => (code === Code.OK ? String(value) : code)
  )

/** Waits until an agent holds so many calls. */
const holds = (fake: Fake, count: number) =>
  Effect.repeat(Effect.yieldNow, { until: () => fake.held.length === count })

describe("a channel over reverse tunnels", () => {
  it.live("takes turns, with none lost when one leaves", () =>
    Effect.gen(function* () {
      const { open, stub } = yield* world()
      const client = stub({ key: "x" })
      yield* open(new Fake("A"))
      const b = yield* open(new Fake("B"))
      yield* open(new Fake("C"))
      yield* open(new Fake("D"), "y")
      const turns = yield* Effect.all(Array.from({ length: 6 }, () => ask(client)))
      expect(turns).toEqual(["A", "B", "C", "A", "B", "C"])
      yield* b.close()
      const after = yield* Effect.all(Array.from({ length: 4 }, () => ask(client)))
      expect(after).toEqual(["A", "C", "A", "C"])
    }).pipe(Effect.scoped)
  )

  it.live("takes the one with the fewest calls, where it is told to", () =>
    Effect.gen(function* () {
      const { open, stub } = yield* world()
      const a = new Fake("A")
      const b = new Fake("B")
      yield* open(a)
      yield* open(b)
      const client = stub({ pick: "leastLoaded" })
      const running = [ask(client, "hold"), ask(client, "hold"), ask(client, "hold")]
      const fibers = yield* Effect.forEach(running, (it) => Effect.forkChild(it))
      yield* Effect.repeat(Effect.yieldNow, { until: () => a.held.length + b.held.length === 3 })
      const [more, fewer] = a.held.length > b.held.length ? [a, b] : [b, a]
      expect([more.held.length, fewer.held.length]).toEqual([2, 1])
      expect(yield* ask(client)).toBe(fewer.name)
      fewer.held[0]?.()
      // Its stream is over at this end once the answer is here.
      yield* Effect.raceAll(fibers.map(Fiber.join))
      expect([yield* ask(client), yield* ask(client)]).toEqual([fewer.name, fewer.name])
      for (const answer of more.held) answer()
      yield* Effect.forEach(fibers, Fiber.join)
    }).pipe(Effect.scoped)
  )

  it.live("asks a function, and refuses the call where that throws or takes none", () =>
    Effect.gen(function* () {
      const { open, stub } = yield* world()
      yield* open(new Fake("A"))
      yield* open(new Fake("B"))
      const seen: Array<string> = []
      const client = stub({
        pick: (tunnels, { method }) => {
          seen.push(method)
          return tunnels.find((tunnel) => tunnel.metadata.get("name")[0] === "B")
        }
      })
      expect([yield* ask(client), yield* ask(client)]).toEqual(["B", "B"])
      expect(seen).toEqual(["/curfew.test.Echo/Unary", "/curfew.test.Echo/Unary"])
      expect(yield* ask(stub({ pick: () => undefined }))).toBe(Code.UNAVAILABLE)
      const broken = stub({
        pick: () => {
          throw new Error("no")
        }
      })
      expect(yield* ask(broken)).toBe(Code.INTERNAL)
      const brokenLater = stub({
        wait: true,
        pick: (tunnels) => {
          if (tunnels.length > 2) throw new Error("no")
          return undefined
        }
      })
      const waiting = yield* Effect.forkChild(ask(brokenLater))
      yield* Effect.yieldNow
      yield* open(new Fake("C"))
      expect(yield* Fiber.join(waiting)).toBe(Code.INTERNAL)
    }).pipe(Effect.scoped)
  )

  it.live("takes none that drains, and none that is full", () =>
    Effect.gen(function* () {
      const { open, reverse, stub } = yield* world({ maxStreams: 1 })
      const a = new Fake("A")
      const b = new Fake("B")
      yield* open(a)
      yield* open(b)
      const client = stub()
      const running = yield* Effect.forkChild(ask(client, "hold"))
      yield* holds(a, 1)
      expect([yield* ask(client), yield* ask(client)]).toEqual(["B", "B"])
      const second = yield* Effect.forkChild(ask(client, "hold"))
      yield* holds(b, 1)
      expect(yield* reverse.ready()).toBe(false)
      expect(yield* ask(client)).toBe(Code.RESOURCE_EXHAUSTED)
      a.held[0]?.()
      yield* Fiber.join(running)
      expect(yield* ask(client)).toBe("A")
      b.held[0]?.()
      yield* Fiber.join(second)
      const [first] = yield* reverse.list
      yield* first?.drain() ?? Effect.void
      expect([yield* ask(client), yield* ask(client)]).toEqual(["B", "B"])
    }).pipe(Effect.scoped)
  )
})

describe("a call that waits", () => {
  it.live("gets the first tunnel with its key that opens", () =>
    Effect.gen(function* () {
      const { open, stub } = yield* world()
      const waiting = yield* Effect.forkChild(ask(stub({ key: "x", wait: true })))
      yield* Effect.yieldNow
      yield* open(new Fake("other"), "y")
      yield* open(new Fake("A"))
      expect(yield* Fiber.join(waiting)).toBe("A")
    }).pipe(Effect.scoped)
  )

  it.live("and its like are served one for each stream that becomes free", () =>
    Effect.gen(function* () {
      const { open, stub } = yield* world({ maxStreams: 1 })
      const a = new Fake("A")
      yield* open(a)
      const client = stub({ wait: true })
      const calls = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(ask(client, "hold")))
      for (const count of [1, 2, 3]) {
        yield* holds(a, count)
        a.held[count - 1]?.()
      }
      expect(yield* Effect.forEach(calls, Fiber.join)).toEqual(["A", "A", "A"])
    }).pipe(Effect.scoped)
  )

  it.live("fails at its own deadline, at the limit, and when it is cancelled; and is forgotten", () =>
    Effect.gen(function* () {
      const { reverse, stub } = yield* world()
      const deadline = { deadline: Date.now() + 30 }
      expect(yield* ask(stub({ key: "x", wait: true }), "q", deadline)).toBe(Code.DEADLINE_EXCEEDED)
      expect(yield* ask(stub({ key: "x", wait: "10 millis" }))).toBe(Code.UNAVAILABLE)
      let call: grpc.ClientUnaryCall | undefined
      const cancelled = unary(stub({ key: "x", wait: true }), Buffer.from("q"), {
        onCall: (it) => {
          call = it
        }
      })
      yield* Effect.yieldNow
      expect(TunnelCall.servedBy(call as grpc.ClientUnaryCall)).toBeUndefined()
      call?.cancel()
      expect((yield* Effect.promise(() => cancelled)).code).toBe(Code.CANCELLED)
      expect(yield* reverse.keys).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("passes streams on that were written before there was a tunnel", () =>
    Effect.gen(function* () {
      const { open, stub } = yield* world()
      const answer = new Promise<Buffer | undefined>((resolve) => {
        const call = stub({ wait: true }).ClientStream(metadata(), {}, (_error, value) => resolve(value))
        call.write(Buffer.from("a"))
        call.write(Buffer.from("b"))
        call.end()
      })
      yield* Effect.yieldNow
      yield* open(new Fake("A"))
      expect(String(yield* Effect.promise(() => answer))).toBe("ab")
    }).pipe(Effect.scoped)
  )

  it.live("ends with its service", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { stub } = yield* Scope.provide(world(), scope)
      const client = stub({ wait: true })
      const waiting = unary(client, Buffer.from("q"))
      yield* Effect.yieldNow
      yield* Scope.close(scope, Exit.void)
      expect((yield* Effect.promise(() => waiting)).code).toBe(Code.UNAVAILABLE)
      expect(yield* ask(client)).toBe(Code.UNAVAILABLE)
    }).pipe(Effect.scoped)
  )
})

describe("the registry", () => {
  it.live("says whether a call could be placed, and fails in a typed way when none could in time", () =>
    Effect.gen(function* () {
      const { open, reverse } = yield* world()
      expect([yield* reverse.ready(), yield* reverse.ready("x")]).toEqual([false, false])
      const error = yield* Effect.flip(reverse.awaitReady("x", "10 millis"))
      expect(error._tag).toBe("TunnelsNotReady")
      expect(error.message).toContain('the key "x"')
      expect(yield* reverse.keys).toEqual([])
      const waiting = yield* Effect.forkChild(reverse.awaitReady("x", "1 minute"))
      yield* Effect.yieldNow
      yield* open(new Fake("A"))
      yield* Fiber.join(waiting)
      expect([yield* reverse.ready(), yield* reverse.ready("x"), yield* reverse.ready("y")]).toEqual([
        true,
        true,
        false
      ])
    }).pipe(Effect.scoped)
  )

  it.live("does not let somebody wait for readiness who outlives the service", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { reverse } = yield* Scope.provide(world(), scope)
      const waiting = yield* Effect.forkChild(Effect.flip(reverse.awaitReady()), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      expect((yield* Fiber.join(waiting))._tag).toBe("TunnelsNotReady")
    }).pipe(Effect.scoped)
  )

  it.live("frees a key with its last tunnel and its last waiter", () =>
    Effect.gen(function* () {
      const { open, reverse } = yield* world()
      const handle = yield* open(new Fake("A"))
      const waiting = yield* Effect.forkChild(reverse.awaitReverse("y"))
      yield* Effect.repeat(Effect.yieldNow, { until: () => Effect.runSync(reverse.keys).length === 2 })
      yield* Fiber.interrupt(waiting)
      expect(yield* reverse.keys).toEqual(["x"])
      const [tunnel] = yield* reverse.list
      yield* handle.close()
      yield* tunnel?.closed ?? Effect.void
      expect(yield* reverse.keys).toEqual([])
    }).pipe(Effect.scoped)
  )

  it.live("tells what opens, drains and closes, numbered without gaps", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { open, reverse } = yield* Scope.provide(world(), scope)
      const changes: Array<ReverseChange<undefined>> = []
      const reading = yield* Effect.forkChild(
        Stream.runForEach(reverse.changes, (change) => Effect.sync(() => changes.push(change))),
        { startImmediately: true }
      )
      const handle = yield* Scope.provide(open(new Fake("A")), scope)
      const [tunnel] = yield* reverse.list
      yield* handle.drain()
      yield* handle.close()
      yield* tunnel?.closed ?? Effect.void
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(reading)
      expect(changes.map(({ _tag, key, sequence }) => [sequence, _tag, key])).toEqual([
        [1, "Opened", "x"],
        [2, "Draining", "x"],
        [3, "Closed", "x"]
      ])
    })
  )

  it.live("takes no new reverse tunnels while it is told so, and leaves those that are open", () =>
    Effect.gen(function* () {
      const { open, reverse, stub } = yield* world()
      yield* open(new Fake("A"))
      yield* reverse.setAccepting(false)
      expect(yield* reverse.accepting).toBe(false)
      expect(yield* Effect.flip(open(new Fake("B")))).toMatchObject({ code: Code.UNAVAILABLE })
      expect(yield* ask(stub())).toBe("A")
      yield* reverse.setAccepting(true)
      yield* open(new Fake("B"))
      expect([yield* ask(stub()), yield* ask(stub())].toSorted()).toEqual(["A", "B"])
    }).pipe(Effect.scoped)
  )

  it.live("refuses a tunnel that its key function refuses, or dies of", () =>
    Effect.gen(function* () {
      const service = yield* TunnelService.make({
        affinityKey: (tunnel) => {
          const key = keyOf(tunnel)
          if (key === "broken") throw new Error("no such key")
          return key === "taken" ? Effect.fail(AccessRefused.permissionDenied("The key is taken")) : key
        }
      })
      const { address } = yield* listen(service.addTo)
      const open = (key: string) =>
        serveReverse({ address, credentials: insecure }, Services.empty, { metadata: metadata({ key }) })
      expect(yield* Effect.flip(open("taken"))).toMatchObject({
        code: Code.PERMISSION_DENIED,
        details: "The key is taken"
      })
      expect(yield* Effect.flip(open("broken"))).toMatchObject({ code: Code.INTERNAL })
      yield* open("good")
      yield* service.reverse.awaitReady("good")
    }).pipe(Effect.scoped)
  )

  it.live("tells which tunnel serves a call", () =>
    Effect.gen(function* () {
      const { open, reverse, stub } = yield* world()
      yield* open(new Fake("A"))
      yield* open(new Fake("B"))
      const served: Array<string> = []
      for (let turn = 0; turn < 2; turn++) {
        const { value } = yield* Effect.promise(() =>
          unary(stub(), Buffer.from("q"), {
            onCall: (call) => served.push(String(TunnelCall.servedBy(call)?.metadata.get("name")[0]))
          })
        )
        expect(served.at(-1)).toBe(String(value))
      }
      expect(yield* reverse.list).toHaveLength(2)
    }).pipe(Effect.scoped)
  )
})
