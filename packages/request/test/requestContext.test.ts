import { ContextFinished, Endpoint, PeerSignal, RequestContext } from "@curfew/request"
import { background, CancelScope, OnUnhandled, Owner, TaskScope } from "@curfew/scope"
import { delayCancellation, stopCancellation } from "@curfew/shield"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { runs } from "../../../test/support/seed.ts"
import { sweepAll } from "../../../test/support/sweep.ts"
import { post } from "./support/edge.ts"

type Record_ = RequestContext.RequestRecord

const recorded = (options?: Partial<RequestContext.RequestOptions>) => {
  const records: Array<Record_> = []
  const made: RequestContext.RequestOptions = {
    id: "r1",
    name: "POST /orders",
    afterEnd: "die",
    onEnd: (record) => Effect.sync(() => records.push(record)),
    ...options
  }
  return { records, options: made }
}

describe("L37: the end-of-request record", () => {
  it.effect("L37: comes out at finish when nobody holds the request, and once", () =>
    Effect.gen(function* () {
      const { options, records } = recorded()
      const request = yield* RequestContext.make(options)
      yield* TestClock.adjust("2 seconds")
      expect(yield* request.finished).toBe(false)
      yield* request.finish
      yield* request.finish
      expect(yield* request.finished).toBe(true)
      expect(records).toEqual([
        {
          id: "r1",
          name: "POST /orders",
          startedAt: 0,
          finishedAfter: Duration.seconds(2),
          endedAfter: Duration.seconds(2),
          leases: 0,
          outlived: []
        }
      ])
    })
  )

  it.effect("L37: comes out at the end of the last lease when that is later, and says who held on", () =>
    Effect.gen(function* () {
      const { options, records } = recorded()
      const request = yield* RequestContext.make(options)
      const scope = Scope.makeUnsafe()
      yield* Scope.provide(request.lease, scope)
      const release = request.hold("mail")
      expect(yield* request.users).toBe(2)
      yield* TestClock.adjust("1 seconds")
      yield* request.finish
      yield* TestClock.adjust("500 millis")
      yield* request.finish
      // Taken after finish, while others hold it: it delays the end like any other.
      const later = request.hold("audit")
      yield* Scope.close(scope, Exit.void)
      yield* release
      yield* release
      yield* TestClock.adjust("1500 millis")
      expect(records).toEqual([])
      expect(yield* request.ended).toBe(false)
      yield* later
      expect(records).toMatchObject([
        {
          finishedAfter: Duration.seconds(1),
          endedAfter: Duration.seconds(3),
          leases: 3,
          outlived: ["unnamed", "mail", "audit"]
        }
      ])
      expect(yield* request.users).toBe(0)
    })
  )

  it.effect("L37: comes out when nobody waits any more for who holds it, and names them", () =>
    Effect.gen(function* () {
      const { options, records } = recorded()
      const request = yield* RequestContext.make(options)
      const release = request.hold("hangs")
      yield* TestClock.adjust("1 seconds")
      yield* request.abandon
      yield* request.abandon
      yield* request.finish
      expect(records).toMatchObject([
        { finishedAfter: Duration.seconds(1), endedAfter: Duration.seconds(1), outlived: ["hangs"] }
      ])
      yield* release
      expect(records.length).toBe(1)
      expect(yield* request.ended).toBe(true)
      expect(yield* request.users).toBe(0)
      // What was left behind uses the request after its end.
      expect(String(yield* Effect.exit(Effect.scoped(request.lease)))).toContain("Die")
    })
  )

  it.effect(
    "L37: comes out exactly once, at the later of finish and the last lease, in every order of events",
    () =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(
              fc.oneof(fc.constant("finish" as const), fc.constant("lease" as const), fc.nat({ max: 9 })),
              {
                maxLength: 30
              }
            ),
            (events) =>
              Effect.runPromise(
                Effect.gen(function* () {
                  const { options, records } = recorded({ afterEnd: "ignore" })
                  const request = yield* RequestContext.make(options)
                  // The model: who holds on, whether it is finished, and from then on ended.
                  const open: Array<Scope.Closeable | undefined> = []
                  let finished = false
                  let ended = false
                  for (const event of events) {
                    if (event === "finish") {
                      yield* request.finish
                      finished = true
                    } else if (event === "lease") {
                      const scope = Scope.makeUnsafe()
                      const exit = yield* Effect.exit(Scope.provide(request.lease, scope))
                      expect(Exit.isFailure(exit)).toBe(ended)
                      if (!ended) open.push(scope)
                    } else if (open[event] !== undefined) {
                      yield* Scope.close(open[event], Exit.void)
                      open[event] = undefined
                    }
                    ended ||= finished && open.every((scope) => scope === undefined)
                    expect(records.length).toBe(ended ? 1 : 0)
                    expect(yield* request.ended).toBe(ended)
                  }
                })
              )
          ),
          runs(200)
        )
      )
  )

  it.effect("L37: comes out whatever becomes of the body of run", () =>
    Effect.gen(function* () {
      const { options, records } = recorded()
      yield* RequestContext.run(options, Effect.void)
      yield* Effect.exit(RequestContext.run(options, Effect.fail("no such order")))
      yield* Effect.exit(RequestContext.run(options, Effect.die("bug")))
      const fiber = yield* Effect.forkChild(RequestContext.run(options, Effect.never), {
        startImmediately: true
      })
      yield* Fiber.interrupt(fiber)
      expect(records.length).toBe(4)
    })
  )

  it.effect("L37: goes to a receiver whose defect reaches OnUnhandled and nobody else", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const { options } = recorded({ onEnd: () => Effect.die("disk full") })
      const value = yield* RequestContext.run(options, Effect.succeed(1)).pipe(
        Effect.provideService(OnUnhandled, (unhandled) => Effect.sync(() => seen.push(unhandled.origin)))
      )
      expect(value).toBe(1)
      expect(seen).toEqual(["cleanup"])
    })
  )

  it.effect("L37: does not wait for a receiver longer than the clean-up budget", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const { options } = recorded({ onEnd: () => Deferred.await(release) })
      const fiber = yield* Effect.forkChild(RequestContext.run(options, Effect.succeed(1)), {
        startImmediately: true
      })
      yield* TestClock.adjust("10 seconds")
      expect(yield* Fiber.join(fiber)).toBe(1)
      yield* Deferred.succeed(release, undefined)
    })
  )
})

describe("L37: use after the end", () => {
  const count = Metric.withAttributes(RequestContext.usedAfterEnd, { name: "POST /orders" })
  const uses = (request: RequestContext.RequestContext) => ({
    lease: Effect.scoped(request.lease),
    current: RequestContext.provide(request)(RequestContext.current),
    hold: Effect.suspend(() => request.hold("late"))
  })

  it.effect("L37: is a defect under die", () =>
    Effect.gen(function* () {
      const request = yield* RequestContext.make(recorded().options)
      yield* request.finish
      for (const use of Object.values(uses(request))) {
        const exit = yield* Effect.exit(use)
        expect(exit).toEqual(Exit.die(new ContextFinished({ id: "r1", name: "POST /orders" })))
      }
    })
  )

  it.effect("L37: is counted under count, once a use, and a lease fails", () =>
    Effect.gen(function* () {
      const request = yield* RequestContext.make(recorded({ afterEnd: "count" }).options)
      yield* request.finish
      const { current, hold, lease } = uses(request)
      expect(Option.isSome(yield* current)).toBe(true)
      expect(yield* Effect.flip(lease)).toBeInstanceOf(ContextFinished)
      yield* hold
      expect((yield* Metric.value(count)).count).toBe(3)
      expect(yield* request.users).toBe(0)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("L37: is counted when nothing is said, as unnamed for a request without a name", () =>
    Effect.gen(function* () {
      const request = yield* RequestContext.make({ id: "r2", onEnd: () => Effect.void })
      yield* request.finish
      expect(Option.isSome(yield* RequestContext.provide(request)(RequestContext.current))).toBe(true)
      const unnamed = Metric.withAttributes(RequestContext.usedAfterEnd, { name: "unnamed" })
      expect((yield* Metric.value(unnamed)).count).toBe(1)
      expect((yield* Effect.flip(Effect.scoped(request.lease))).message).toBe(
        "The request r2 has ended and cannot be used any more."
      )
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("L37: is nothing under ignore, but a lease still fails", () =>
    Effect.gen(function* () {
      const request = yield* RequestContext.make(recorded({ afterEnd: "ignore" }).options)
      yield* request.finish
      const { current, hold, lease } = uses(request)
      expect(Option.isSome(yield* current)).toBe(true)
      expect((yield* Effect.flip(lease)).message).toBe(
        "The request r1 (POST /orders) has ended and cannot be used any more."
      )
      yield* hold
      expect((yield* Metric.value(count)).count).toBe(0)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})

describe("L38: a lease is taken", () => {
  const shields = [
    ["delayed", <A, E, R>(work: Effect.Effect<A, E, R>) => delayCancellation(work)],
    ["stopped", <A, E, R>(work: Effect.Effect<A, E, R>) => stopCancellation(work)]
  ] as const

  for (const [name, shield] of shields) {
    it.effect(`L38: by ${name} work that runs in its caller's context, until it ends`, () =>
      Effect.gen(function* () {
        const owner = yield* TaskScope.make({ name: "server" })
        const { options, records } = recorded()
        const release = yield* Deferred.make<void>()
        const users: Array<number> = []
        const shielded = shield(
          Effect.andThen(
            Deferred.await(release),
            Effect.flatMap(RequestContext.current, (request) =>
              Effect.flatMap(Option.getOrThrow(request).users, (now) => Effect.sync(() => users.push(now)))
            )
          )
        )
        const fiber = yield* Effect.forkChild(
          Effect.provideService(RequestContext.run(options, shielded), Owner, owner),
          { startImmediately: true }
        )
        fiber.interruptUnsafe()
        expect(records.length).toBe(0)
        // A stopped waiter has gone and has finished the request; a delayed one is still there.
        expect(fiber.pollUnsafe() === undefined).toBe(name === "delayed")
        yield* Deferred.succeed(release, undefined)
        yield* owner.drain()
        yield* Fiber.await(fiber)
        expect(users).toEqual([1])
        expect(records).toMatchObject([
          { leases: 1, outlived: name === "stopped" ? ["stopCancellation"] : [] }
        ])
      })
    )
  }

  it.effect("L38: by a handler, until it ends, also when its edge has long gone", () =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make({ name: "server" })
      const peer = PeerSignal.makeUnsafe()
      const { options, records } = recorded()
      const release = yield* Deferred.make<void>()
      const fiber = yield* RequestContext.run(
        options,
        Endpoint.run(Deferred.await(release), { ...post, policy: "detach", peer, owner })
      ).pipe(Effect.provideService(Owner, owner), Effect.forkChild({ startImmediately: true }))
      peer.goneUnsafe({ _tag: "ClientGone", transport: "http1" })
      expect((yield* Fiber.join(fiber))._tag).toBe("Dropped")
      expect(records).toEqual([])
      yield* Deferred.succeed(release, undefined)
      yield* owner.drain()
      expect(records).toMatchObject([{ leases: 1, outlived: ["POST /orders"] }])
    })
  )

  it.effect("L38: by a handler, until what nobody took of it has been received", () =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make({ name: "server" })
      const peer = PeerSignal.makeUnsafe()
      const log: Array<string> = []
      const { options } = recorded({ onEnd: () => Effect.sync(() => log.push("record")) })
      const release = yield* Deferred.make<void>()
      const fiber = yield* RequestContext.run(
        options,
        Endpoint.run(Deferred.await(release), {
          ...post,
          policy: "detach",
          peer,
          owner,
          onDropped: () => Effect.sync(() => log.push("received"))
        })
      ).pipe(Effect.provideService(Owner, owner), Effect.forkChild({ startImmediately: true }))
      peer.goneUnsafe({ _tag: "ClientGone", transport: "http1" })
      yield* Fiber.join(fiber)
      yield* Deferred.succeed(release, undefined)
      yield* owner.drain()
      expect(log).toEqual(["received", "record"])
    })
  )

  it.effect("L38: not by work in its owner's context, which finds no request and no call either", () =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make({ name: "server" })
      const { options, records } = recorded()
      const found: Array<unknown> = []
      const look = Effect.all([RequestContext.current, RequestContext.CurrentRequest, Endpoint.CurrentCall])
      const work = background(
        "look",
        Effect.flatMap(look, (all) => Effect.sync(() => found.push(...all)))
      )
      yield* RequestContext.run(
        options,
        Endpoint.run(Effect.andThen(work, Effect.yieldNow), {
          ...post,
          peer: PeerSignal.makeUnsafe(),
          owner
        })
      ).pipe(Effect.provideService(Owner, owner))
      expect(found).toEqual([Option.none(), undefined, undefined])
      expect(records).toMatchObject([{ leases: 1 }])
    })
  )
})

describe("a request that is cancelled", () => {
  it.effect("before the start does not begin", () =>
    Effect.gen(function* () {
      const { options, records } = recorded()
      const outcome = yield* CancelScope.run((scope) =>
        Effect.andThen(
          scope.cancel(),
          Effect.andThen(Effect.yieldNow, RequestContext.run(options, Effect.void))
        )
      )
      expect(outcome._tag).toBe("Cancelled")
      expect(records).toEqual([])
    })
  )

  it("L37: has one record if it began, at whichever step, once or twice", async () => {
    const steps = await sweepAll(() => {
      const { options, records } = recorded()
      let began = 0
      const body = Effect.andThen(
        Effect.sync(() => began++),
        Effect.scoped(
          Effect.flatMap(RequestContext.current, (request) =>
            Effect.andThen(Effect.orDie(Option.getOrThrow(request).lease), Effect.yieldNow)
          )
        )
      )
      return {
        program: RequestContext.run(options, Effect.as(body, "answer")),
        after: () => expect(records.length).toBeGreaterThanOrEqual(began)
      }
    })
    expect(Math.min(...steps)).toBeGreaterThan(5)
  })
})
