import { CancelReason, outerReason } from "@curfew/reason"
import {
  cancellable,
  DefaultOnDisconnect,
  Endpoint,
  type OnDisconnect,
  onDisconnect,
  onPeerGone,
  PeerSignal,
  RequestContext,
  send
} from "@curfew/request"
import { CancelScope, type Instant, OnUnhandled, Owner, TaskScope, type Unhandled } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import {
  broken,
  complaintOf,
  defectOf,
  endlessDurations,
  noDurations,
  overDurations,
  throwing,
  thrown
} from "../../../test/support/badInput.ts"
import { left, post, serve } from "./support/edge.ts"

const forked = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const hearing = (heard: Array<Unhandled>) =>
  Effect.provideService(OnUnhandled, (unhandled) => Effect.sync(() => heard.push(unhandled)))

describe("a policy", () => {
  const expectRefused = (policy: OnDisconnect, sentence: RegExp) =>
    Effect.gen(function* () {
      let started = 0
      const handler = Effect.sync(() => ++started)
      const peer = PeerSignal.makeUnsafe()
      const ways = [
        Endpoint.run(handler, { ...post, peer, policy }),
        Endpoint.run(onDisconnect(policy)(handler), { ...post, peer }),
        Effect.provideService(Endpoint.run(handler, { ...post, peer }), DefaultOnDisconnect, () => policy)
      ]
      for (const way of ways) expect(complaintOf(yield* Effect.exit(way))).toMatch(sentence)
      expect(started).toBe(0)
    }).pipe(Effect.provide(Owner.layer()))

  for (const policy of ["never", "", {}, 5, () => "cancel", { linger: 5 }] as ReadonlyArray<unknown>) {
    it.effect(
      `that is none (${typeof policy} ${JSON.stringify(policy)}) is an IllegalArgument, whoever says it`,
      () =>
        expectRefused(
          policy as OnDisconnect,
          /^The policy of the call is .*\. Pass "cancel", "shield", "detach", or \{ grace/
        )
    )
  }

  for (const [what, grace] of noDurations) {
    it.effect(`with a grace of ${what} is an IllegalArgument, whoever says it`, () =>
      expectRefused({ grace }, /^The grace of the call is .*\. Pass a duration/)
    )
  }

  for (const [what, grace] of overDurations) {
    it.effect(`with a grace of ${what} cancels when the peer leaves`, () =>
      Effect.gen(function* () {
        const served = yield* serve(Effect.never, { on: { grace } })
        served.peer.goneUnsafe(left)
        yield* TestClock.adjust(0)
        expect(yield* served.answer).toMatchObject({ _tag: "Dropped", exit: { _tag: "Some" } })
      })
    )
  }

  for (const [what, grace] of endlessDurations) {
    it.effect(`with a grace of ${what} does not`, () =>
      Effect.gen(function* () {
        let done = false
        const served = yield* serve(
          Effect.andThen(
            Effect.sleep("1000 days"),
            Effect.sync(() => {
              done = true
            })
          ),
          { on: { grace } }
        )
        served.peer.goneUnsafe(left)
        yield* TestClock.adjust("1000 days")
        expect((yield* served.answer)._tag).toBe("Dropped")
        expect(done).toBe(true)
      })
    )
  }

  it.effect("whose function throws is a defect of the edge, and the handler does not start", () =>
    Effect.gen(function* () {
      let started = 0
      const edge = Endpoint.run(
        Effect.sync(() => ++started),
        { ...post, peer: PeerSignal.makeUnsafe() }
      )
      const exit = yield* Effect.exit(Effect.provideService(edge, DefaultOnDisconnect, throwing))
      expect(defectOf(exit)).toBe(thrown)
      expect(started).toBe(0)
    }).pipe(Effect.provide(Owner.layer()))
  )
})

describe("a deadline", () => {
  it.effect("of NaN is an IllegalArgument; one of minus infinity is past, one of infinity never comes", () =>
    Effect.gen(function* () {
      const at = (deadline: number) =>
        Endpoint.run(Effect.succeed(1), {
          ...post,
          peer: PeerSignal.makeUnsafe(),
          deadline: deadline as Instant.Instant
        })
      expect(complaintOf(yield* Effect.exit(at(Number.NaN)))).toContain(
        "The deadline of the call is NaN. Pass an instant"
      )
      expect(yield* at(Number.NEGATIVE_INFINITY)).toMatchObject({
        _tag: "Cancelled",
        reason: { _tag: "Deadline" }
      })
      expect(yield* at(Number.POSITIVE_INFINITY)).toEqual({ _tag: "Value", value: 1 })
    }).pipe(Effect.provide(Owner.layer()))
  )
})

describe("callbacks that throw", () => {
  it.effect("classify: the handler hears of the interrupt all the same, and is waited for", () =>
    Effect.gen(function* () {
      const heard: Array<Unhandled> = []
      const log: Array<string> = []
      const handler = Effect.onInterrupt(Effect.never, () =>
        Effect.andThen(
          Effect.yieldNow,
          Effect.sync(() => log.push("cleaned up"))
        )
      )
      const peer = PeerSignal.makeUnsafe()
      const edge = yield* forked(
        Endpoint.run(cancellable(handler), { ...post, peer, classify: throwing }).pipe(hearing(heard))
      )
      yield* Fiber.interrupt(edge)
      expect(log).toEqual(["cleaned up"])
      expect(heard.map(({ cause, name }) => [name, Cause.squash(cause)])).toEqual([
        ["classify of POST /orders", thrown]
      ])
    }).pipe(Effect.provide(Owner.layer()))
  )

  it.effect("onDropped and onPeerGone: nothing changes, and what they threw is told once each", () =>
    Effect.gen(function* () {
      const heard: Array<Unhandled> = []
      const peer = PeerSignal.makeUnsafe()
      const handler = Effect.scoped(
        Effect.andThen(onPeerGone(broken), Effect.andThen(peer.gone(left), Effect.succeed("late")))
      )
      const answer = yield* Endpoint.run(handler, {
        ...post,
        peer,
        policy: "shield",
        onDropped: throwing
      }).pipe(hearing(heard))
      expect(answer._tag).toBe("Dropped")
      expect(heard.map(({ cause }) => Cause.squash(cause))).toEqual([thrown, thrown])
    }).pipe(Effect.provide(Owner.layer()))
  )

  it.effect("onEnd: the request has ended, and what it threw is told once", () =>
    Effect.gen(function* () {
      const heard: Array<Unhandled> = []
      const request = yield* RequestContext.make({ id: "r1", onEnd: throwing })
      yield* Effect.andThen(request.finish, request.finish).pipe(hearing(heard))
      expect(yield* request.ended).toBe(true)
      expect(heard.map(({ cause }) => Cause.squash(cause))).toEqual([thrown])
    })
  )

  it.effect("a handler and a write: a defect of the answer, and of the write", () =>
    Effect.gen(function* () {
      const peer = PeerSignal.makeUnsafe()
      for (const handler of [Effect.sync(throwing), Effect.suspend(broken)]) {
        for (const policy of ["cancel", "shield", "detach", { grace: 1 }] as const) {
          const answer = yield* Endpoint.run(handler, { ...post, peer, policy })
          expect(answer._tag === "Failure" && Cause.squash(answer.cause)).toBe(thrown)
        }
      }
      expect(defectOf(yield* Effect.exit(send(Effect.sync(throwing), { peer })))).toBe(thrown)
    }).pipe(Effect.provide(Owner.layer()))
  )
})

describe("an owner that fails fast", () => {
  it.effect("is not cancelled by a handler that fails: the edge answers the failure, the others go on", () =>
    Effect.gen(function* () {
      for (const policy of ["cancel", "shield", "detach", { grace: 1 }] as const) {
        const exit = yield* Effect.exit(
          TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
            Effect.gen(function* () {
              const other = yield* tasks.spawn(Effect.never)
              const gate = yield* Deferred.make<never, string>()
              const edge = yield* forked(
                Endpoint.run(Deferred.await(gate), {
                  ...post,
                  peer: PeerSignal.makeUnsafe(),
                  policy,
                  owner: tasks as TaskScope.TaskScope
                })
              )
              yield* Deferred.fail(gate, "no")
              const answer = yield* Fiber.join(edge)
              expect(answer._tag === "Failure" && Cause.squash(answer.cause)).toBe("no")
              expect(yield* other.status).toBe("running")
              yield* other.cancel()
              return "went on"
            })
          )
        )
        expect(exit).toEqual(Exit.succeed("went on"))
      }
    }).pipe(Effect.provide(Owner.layer()))
  )
})

describe("an edge beside its scope", () => {
  it.effect("L44: in a race inside a mask, a cancel around does not reach the handler, which can ask", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const log: Array<string> = []
      const handler = Effect.onExit(Effect.andThen(Deferred.await(gate), outerReason), (exit) =>
        Effect.sync(() =>
          log.push(exit._tag === "Success" ? `asked: ${Option.isSome(exit.value)}` : "interrupted")
        )
      )
      const outcome = yield* CancelScope.run((scope) =>
        Effect.uninterruptible(
          Effect.raceFirst(
            Endpoint.run(cancellable(handler), { ...post, peer: PeerSignal.makeUnsafe() }),
            Effect.andThen(
              Effect.andThen(Effect.yieldNow, scope.cancel(CancelReason.Superseded())),
              Effect.andThen(Deferred.succeed(gate, undefined), Effect.never)
            )
          )
        )
      )
      expect(log).toEqual(["asked: true"])
      expect(outcome._tag).toBe("Cancelled")
    }).pipe(Effect.provide(Owner.layer()))
  )

  it.effect("that outlives the cancelled scope it was forked in runs its handler", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const edge = Endpoint.run(Effect.succeed("answered"), { ...post, peer: PeerSignal.makeUnsafe() })
      const forkedThere = yield* Deferred.make<Fiber.Fiber<Endpoint.Answer<string, never>>>()
      yield* CancelScope.run((scope) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.forkDetach(Effect.andThen(Deferred.await(gate), edge))
          yield* Deferred.succeed(forkedThere, fiber)
          yield* scope.cancel()
          yield* Effect.never
        })
      )
      yield* Deferred.succeed(gate, undefined)
      const fiber = yield* Deferred.await(forkedThere)
      expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Value", value: "answered" })
    }).pipe(Effect.provide(Owner.layer()))
  )
})

describe("ten thousand", () => {
  const many = Array.from({ length: 10_000 }, (_, i) => i)

  it.effect("leases of one request: the record comes out once, after the last", () =>
    Effect.gen(function* () {
      const records: Array<number> = []
      const gate = yield* Deferred.make<void>()
      const request = yield* RequestContext.make({
        id: "r1",
        onEnd: (record) => Effect.sync(() => records.push(record.leases))
      })
      const leases = yield* Effect.forEach(many, () =>
        forked(Effect.scoped(Effect.andThen(request.lease, Deferred.await(gate))))
      )
      yield* request.finish
      yield* Fiber.interrupt(leases[3] as Fiber.Fiber<unknown, unknown>)
      expect(records).toEqual([])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.awaitAll(leases)
      expect(records).toEqual([10_000])
    })
  )

  it("calls inside one another end in the innermost answer, by a value and by the peer's leaving", async () => {
    const peer = PeerSignal.makeUnsafe()
    const nested = (leaf: Effect.Effect<string>): Effect.Effect<string, never, Owner> => {
      let work: Effect.Effect<string, never, Owner> = leaf
      for (let depth = 0; depth < 10_000; depth++) {
        const inner = work
        work = Effect.flatMap(
          Endpoint.run(inner, { ...post, peer: depth === 0 ? peer : PeerSignal.makeUnsafe() }),
          (answer) =>
            answer._tag === "Value" ? Effect.succeed(answer.value) : Effect.succeed(answer._tag.toLowerCase())
        )
      }
      return work
    }
    const run = (self: Effect.Effect<string, never, Owner>) =>
      Effect.runPromise(Effect.provide(self, Owner.layer({ drain: Duration.zero })))
    expect(await run(nested(Effect.succeed("leaf")))).toBe("leaf")
    expect(await run(nested(Effect.as(Effect.andThen(Effect.yieldNow, peer.gone(left)), "late")))).toBe(
      "dropped"
    )
  }, 60_000)
})

describe("names", () => {
  it.effect("of a request and a call that are empty, huge or break lines are kept as they are", () =>
    Effect.gen(function* () {
      for (const name of ["", "a\nb", "x".repeat(100_000)]) {
        const records: Array<unknown> = []
        yield* RequestContext.run(
          { id: name, name, onEnd: (record) => Effect.sync(() => records.push([record.id, record.name])) },
          Endpoint.run(Effect.void, { ...post, method: name, peer: PeerSignal.makeUnsafe() })
        )
        expect(records).toEqual([[name, name]])
      }
    }).pipe(Effect.provide(Owner.layer()))
  )
})
