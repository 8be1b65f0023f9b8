/** A call whose edge is told instead of waiting: the same rules, at each point at which something can come between. */
import { CancelReason } from "@curfew/reason"
import { Endpoint, isActive, type OnDisconnect, PeerSignal } from "@curfew/request"
import * as Served from "@curfew/request/Served"
import { CleanupBudget, type Instant, stuck, TaskScope } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"

const gone = CancelReason.ClientGone({ transport: "grpc" })
const limit = CancelReason.LimitExceeded({ limit: "body size" })
const grace: OnDisconnect = { grace: "10 seconds" }
const policies: ReadonlyArray<OnDisconnect> = ["cancel", "shield", grace, "detach"]

interface Options {
  readonly policy?: OnDisconnect
  readonly deadline?: number
  readonly deadlineKept?: boolean
  readonly deadlineAhead?: boolean
  readonly clock?: Clock.Clock
  readonly owner?: TaskScope.TaskScope
}

/** A clock on which every sleep is noted, and none ends. */
const sleepless = (own: Clock.Clock) => {
  const sleeps: Array<Duration.Duration> = []
  const sleep = (duration: Duration.Duration) => {
    sleeps.push(duration)
    return Effect.never
  }
  return { clock: Object.assign(Object.create(own), { sleep }) as Clock.Clock, sleeps }
}

/** Serves a handler, and notes in order what its edge is told. */
const serve = <A, E>(
  handler: Effect.Effect<A, E, Scope.Scope>,
  { policy = "shield", ...options }: Options = {}
) =>
  Effect.gen(function* () {
    const context = yield* Effect.context<never>()
    const owner = options.owner ?? (yield* TaskScope.make())
    const peer = PeerSignal.makeUnsafe()
    const log: Array<string> = []
    const request = Served.requestUnsafe({ id: "r", onEnded: () => log.push("request ended") }, context)
    const told = (answer: Endpoint.Answer<unknown, unknown>): string => {
      if (answer._tag === "Value") return `Value ${answer.value}`
      return answer._tag === "Failure" ? "Failure" : `${answer._tag} ${answer.reason._tag}`
    }
    const edge: Served.Edge<unknown, unknown> = {
      answer: (answer, early) => {
        log.push(`${told(answer)}${early ? ", early" : ""}`)
        if (answer._tag === "Value" || answer._tag === "Failure") peer.completeUnsafe()
        return request.finishUnsafe()
      },
      neverStarted: () => {
        log.push("never started")
        return request.finishUnsafe()
      },
      cancelled: (reason) => log.push(`cancelled ${reason._tag}`),
      dropped: (exit: Exit.Exit<unknown, unknown>) => Effect.sync(() => log.push(`dropped ${exit._tag}`))
    }
    const started = Served.startUnsafe(handler as Effect.Effect<A, E>, {
      method: "/test.Served/Call",
      kind: "request",
      transport: "grpc",
      edge: edge as never,
      peer,
      policy,
      owner,
      context,
      deadline: options.deadline as Instant.Instant | undefined,
      deadlineKept: options.deadlineKept,
      deadlineAhead: options.deadlineAhead,
      clock: options.clock,
      request
    })
    return { started, log, owner, peer, request }
  })

/** What ends only when it is told to, whoever cancels it, and says so. */
const masked = (release: Deferred.Deferred<void>) => Effect.uninterruptible(Deferred.await(release))

describe("a served call", () => {
  it.effect("tells its edge a value, a failure and a defect, once, and lets go of its request after it", () =>
    Effect.gen(function* () {
      for (const policy of policies) {
        const value = yield* serve(Effect.succeed(5), { policy })
        expect(value.log).toEqual(["Value 5", "request ended"])
        for (const broken of [Effect.fail("no"), Effect.die("no"), Effect.interrupt]) {
          const { log, owner } = yield* serve(broken, { policy })
          expect(log).toEqual(["Failure", "request ended"])
          expect(yield* owner.size).toBe(0)
        }
      }
    })
  )

  it.effect(
    "closes the handler's scope before the edge is told, and what that fails with is the handler's",
    () =>
      Effect.gen(function* () {
        const order: Array<string> = []
        const release = Effect.addFinalizer(() =>
          Effect.andThen(
            Effect.yieldNow,
            Effect.sync(() => order.push("released"))
          )
        )
        const { log, owner } = yield* serve(Effect.as(release, 1))
        yield* owner.drain()
        expect([...order, ...log]).toEqual(["released", "Value 1", "request ended"])
        const broken = yield* serve(
          Effect.as(
            Effect.addFinalizer(() => Effect.die("finalizer")),
            1
          )
        )
        expect(broken.log).toEqual(["Failure", "request ended"])
      })
  )

  it.effect("arms no timer for a handler that ends at once, and disarms the one of any other", () =>
    Effect.gen(function* () {
      let sleeps = 0
      const clock = yield* Clock.Clock
      const counting: Clock.Clock = Object.assign(Object.create(clock), {
        sleep: (duration: never) => {
          sleeps++
          return Effect.ensuring(
            clock.sleep(duration),
            Effect.sync(() => sleeps--)
          )
        }
      })
      const later = yield* Deferred.make<void>()
      const deadline = Number(clock.monotonicTimeNanosUnsafe()) / 1e6 + 1_000
      yield* Effect.provideService(
        Effect.gen(function* () {
          yield* serve(
            Effect.sync(() => expect(sleeps).toBe(0)),
            { deadline }
          )
          expect(sleeps).toBe(0)
          const { log } = yield* serve(Deferred.await(later), { deadline })
          expect(sleeps).toBe(1)
          yield* Deferred.succeed(later, undefined)
          expect([...log, sleeps]).toEqual(["Value undefined", "request ended", 0])
        }),
        Clock.Clock,
        counting
      )
    })
  )

  it.effect(
    "L5 a stopped call, a deadline in the past, and a cancellable handler whose peer has gone start nothing",
    () =>
      Effect.gen(function* () {
        let began = 0
        const handler = Effect.sync(() => began++)
        const late = yield* serve(handler, { deadline: -1 })
        expect(late.log).toEqual(["Cancelled Deadline", "request ended"])
        for (const [policy, leave, answer] of [
          ["shield", (peer: PeerSignal.PeerSignal) => peer.stopUnsafe(limit), "Cancelled LimitExceeded"],
          ["cancel", (peer: PeerSignal.PeerSignal) => peer.goneUnsafe(gone), "Dropped ClientGone"]
        ] as const) {
          const { log } = yield* heldUp(handler, { policy }, ({ peer }) => leave(peer))
          expect(log).toEqual([answer, "request ended"])
        }
        expect(began).toBe(0)
      })
  )

  it.effect("L46 is refused by an owner that is closed, and its edge hears nothing", () =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make()
      yield* owner.close
      const { log, started } = yield* serve(Effect.die("it ran"), { owner })
      expect([started, log]).toEqual([false, []])
    })
  )

  it.effect("says that it never started when it is cancelled before its first operation", () =>
    Effect.gen(function* () {
      const { log, owner } = yield* heldUp(Effect.die("it ran"), {}, ({ owner }) => owner.cancel(limit))
      yield* owner.drain()
      expect(log).toEqual(["never started", "request ended"])
    })
  )

  it.effect(
    "L39 answers a stop at once where the handler is not to be interrupted, and after its clean-up elsewhere",
    () =>
      Effect.gen(function* () {
        for (const policy of policies) {
          const release = yield* Deferred.make<void>()
          const { log, owner, peer } = yield* serve(masked(release), { policy })
          peer.stopUnsafe(limit)
          const prompt = policy === "shield" || policy === "detach"
          expect(log).toEqual(
            prompt
              ? ["cancelled LimitExceeded", "Cancelled LimitExceeded, early"]
              : ["cancelled LimitExceeded"]
          )
          yield* Deferred.succeed(release, undefined)
          yield* owner.drain()
          expect(log.slice(prompt ? 2 : 1)).toEqual(
            prompt ? ["request ended"] : ["Cancelled LimitExceeded", "request ended"]
          )
          expect(yield* stuck).toEqual([])
        }
      })
  )

  it.effect("L39 goes by its policy when its peer leaves", () =>
    Effect.gen(function* () {
      const expected: ReadonlyArray<readonly [OnDisconnect, ReadonlyArray<string>, ReadonlyArray<string>]> = [
        ["cancel", ["cancelled ClientGone", "Dropped ClientGone", "request ended"], []],
        ["shield", [], ["dropped Success", "Dropped ClientGone", "request ended"]],
        [grace, [], ["dropped Success", "Dropped ClientGone", "request ended"]],
        ["detach", ["Dropped ClientGone, early"], ["dropped Success", "request ended"]]
      ]
      for (const [policy, atOnce, later] of expected) {
        const release = yield* Deferred.make<void>()
        const { log, owner, peer } = yield* serve(Deferred.await(release), { policy })
        peer.goneUnsafe(gone)
        expect([policy, log]).toEqual([policy, atOnce])
        yield* Deferred.succeed(release, undefined)
        yield* owner.drain()
        expect([policy, log.slice(atOnce.length)]).toEqual([policy, later])
      }
    })
  )

  it.effect("L39 interrupts after the grace, unless somebody observes it", () =>
    Effect.gen(function* () {
      for (const first of ["leaving", "observing"]) {
        let call: Endpoint.Call | undefined
        const handler = Effect.flatMap(Endpoint.CurrentCall, (found) => {
          call = found
          return Effect.never
        })
        const { log, owner, peer } = yield* serve(handler, { policy: grace })
        const observing = yield* Scope.make()
        if (first === "leaving") peer.goneUnsafe(gone)
        yield* Scope.provide((call as Endpoint.Call).observe, observing)
        if (first === "observing") peer.goneUnsafe(gone)
        yield* TestClock.adjust("1 hour")
        expect([first, log]).toEqual([first, []])
        yield* Scope.close(observing, undefined as never)
        yield* TestClock.adjust("10 seconds")
        yield* owner.drain()
        expect(log).toEqual(["cancelled ClientGone", "Dropped ClientGone", "request ended"])
      }
    })
  )

  it.effect(
    "L39 is answered when its clean-up overruns the budget, and stands among what is stuck until it ends",
    () =>
      Effect.gen(function* () {
        const release = yield* Deferred.make<void>()
        const { log, owner, peer } = yield* serve(masked(release), { policy: "cancel" })
        peer.stopUnsafe(limit)
        yield* TestClock.adjust("1 minute")
        expect(log).toEqual(["cancelled LimitExceeded", "Cancelled LimitExceeded, early"])
        expect((yield* stuck).map(({ name }) => name)).toEqual(["/test.Served/Call"])
        yield* Deferred.succeed(release, undefined)
        yield* owner.drain()
        expect(log.slice(2)).toEqual(["request ended"])
        expect(yield* stuck).toEqual([])
      })
  )

  it.effect("leaves its deadline to a transport that keeps it, until its peer has gone", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      for (const policy of ["shield", { grace: "1 day" }, "detach"] as const) {
        const deadline = Number(clock.monotonicTimeNanosUnsafe()) / 1e6 + 5_000
        const kept = yield* serve(Effect.never, { policy, deadline, deadlineKept: true })
        const left = yield* serve(Effect.never, { policy, deadline, deadlineKept: true })
        left.peer.goneUnsafe(gone)
        left.log.length = 0
        yield* TestClock.adjust("1 minute")
        expect([policy, kept.log]).toEqual([policy, []])
        yield* left.owner.drain()
        expect([policy, left.log[0]]).toEqual([policy, "cancelled Deadline"])
        yield* kept.owner.cancel(limit)
      }
    })
  )

  it.effect("arms its deadline once, whenever its handler begins, and no timer where there is none", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      let sleeps = 0
      const counting: Clock.Clock = Object.assign(Object.create(clock), {
        sleep: (duration: never) => {
          sleeps++
          return Effect.ensuring(
            clock.sleep(duration),
            Effect.sync(() => sleeps--)
          )
        }
      })
      const deadline = Number(clock.monotonicTimeNanosUnsafe()) / 1e6 + 5_000
      yield* serve(Effect.never, { clock: counting })
      expect(sleeps).toBe(0)
      const late = yield* heldUp(Effect.never, { deadline, clock: counting }, ({ owner }) =>
        // The handler has begun, and its timer waits.
        Effect.andThen(Effect.yieldNow, () => {
          expect(sleeps).toBe(1)
          return Effect.andThen(TestClock.adjust("5 seconds"), owner.drain())
        })
      )
      expect(late.log).toEqual(["cancelled Deadline", "Cancelled Deadline, early", "request ended"])
      const later = Number(clock.monotonicTimeNanosUnsafe()) / 1e6 + 5_000
      const options = { deadline: later, deadlineKept: true, clock: counting }
      yield* heldUp(Effect.never, options, ({ owner, peer }) => {
        peer.goneUnsafe(gone)
        return Effect.andThen(Effect.yieldNow, () => {
          expect(sleeps).toBe(1)
          return owner.cancel(limit)
        })
      })
      expect(sleeps).toBe(0)
    })
  )

  it.effect("says once what became of it, before whatever operation it is cancelled", () =>
    Effect.gen(function* () {
      const logs: Array<string> = []
      for (let at = 1; at <= 6; at++) {
        const { log } = yield* heldUp(Effect.never, {}, ({ owner }) => owner.cancel(limit), at)
        logs.push(log.join(", "))
      }
      const never = "never started, request ended"
      expect(new Set(logs)).toEqual(
        new Set([never, "cancelled LimitExceeded, Cancelled LimitExceeded, early, request ended"])
      )
      expect(logs.filter((log) => log === never).length).toBeGreaterThan(1)
    })
  )

  it.effect("gives its grace from its peer's leaving on, or from its beginning, and none after its end", () =>
    Effect.gen(function* () {
      const { log, owner, peer } = yield* serve(Effect.never, { policy: grace })
      peer.goneUnsafe(gone)
      yield* TestClock.adjust("9 seconds")
      expect(log).toEqual([])
      yield* TestClock.adjust("1 second")
      yield* owner.drain()
      expect(log.slice(0, 1)).toEqual(["cancelled ClientGone"])
      const late = yield* heldUp(Effect.never, { policy: grace }, ({ log, owner, peer }) => {
        peer.goneUnsafe(gone)
        return Effect.andThen(Effect.yieldNow, () => {
          expect(log).toEqual([])
          return Effect.andThen(TestClock.adjust("10 seconds"), owner.drain())
        })
      })
      expect(late.log.slice(0, 1)).toEqual(["cancelled ClientGone"])
    })
  )

  it.effect("tells its edge nothing more when it is stopped after its answer, or after its end", () =>
    Effect.gen(function* () {
      const later = yield* Deferred.make<number>()
      const early = yield* serve(masked(yield* Deferred.make<void>()), { policy: "detach" })
      early.peer.goneUnsafe(gone)
      early.peer.stopUnsafe(limit)
      const answers = early.log.filter((line) => /^(Cancelled|Dropped)/.test(line))
      expect(answers).toEqual(["Dropped ClientGone, early"])
      const ended = yield* serve(Deferred.await(later), { policy: "shield" })
      ended.peer.goneUnsafe(gone)
      yield* Deferred.succeed(later, 1)
      yield* ended.owner.drain()
      const before = [...ended.log]
      expect(before.at(-1)).toBe("request ended")
      ended.peer.stopUnsafe(limit)
      expect(ended.log).toEqual(before)
    }).pipe(Effect.provideService(CleanupBudget, Duration.zero))
  )

  it.effect("waits for no timer under a grace that never ends", () =>
    Effect.gen(function* () {
      const { clock, sleeps } = sleepless(yield* Clock.Clock)
      const { log, peer } = yield* serve(Effect.never, { policy: { grace: "Infinity" }, clock })
      peer.goneUnsafe(gone)
      expect([log, sleeps]).toEqual([[], []])
    })
  )

  it.effect("arms nothing when its peer leaves after its end", () =>
    Effect.gen(function* () {
      const own = yield* Clock.Clock
      const { clock, sleeps } = sleepless(own)
      const deadline = Number(own.monotonicTimeNanosUnsafe()) / 1e6 + 5_000
      const { log, owner, peer } = yield* serve(Effect.never, { deadline, deadlineKept: true, clock })
      yield* owner.cancel(limit)
      yield* owner.drain()
      expect(log.at(-1)).toBe("request ended")
      peer.goneUnsafe(gone)
      expect(sleeps).toEqual([])
    })
  )

  it.effect("asks at its start whether its deadline is over, unless it was set in that very turn", () =>
    Effect.gen(function* () {
      const own = yield* Clock.Clock
      const deadline = Number(own.monotonicTimeNanosUnsafe()) / 1e6 + 5_000
      let passed = 6_000_000_000n
      const clock = Object.assign(Object.create(own), {
        monotonicTimeNanosUnsafe: () => own.monotonicTimeNanosUnsafe() + passed
      }) as Clock.Clock
      const options = { deadline, clock, deadlineKept: true }
      const over = yield* serve(Effect.succeed(1), options)
      expect(over.log).toEqual(["Cancelled Deadline", "request ended"])
      const ahead = yield* serve(Effect.succeed(1), { ...options, deadlineAhead: true })
      expect(ahead.log).toEqual(["Value 1", "request ended"])
      passed = 0n
      const held = yield* heldUp(Effect.succeed(1), { ...options, deadlineAhead: true }, () => {
        passed = 6_000_000_000n
      })
      expect(held.log).toEqual(["Cancelled Deadline", "request ended"])
    })
  )

  it.effect("is cancelled by its deadline and by its owner, with their reasons", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      const deadline = Number(clock.monotonicTimeNanosUnsafe()) / 1e6 + 5_000
      const late = yield* serve(Effect.never, { policy: "cancel", deadline })
      yield* TestClock.adjust("5 seconds")
      expect(late.log).toEqual(["cancelled Deadline", "Cancelled Deadline", "request ended"])
      for (const policy of policies) {
        const { log, owner } = yield* serve(Effect.never, { policy })
        yield* owner.cancel(CancelReason.Shutdown({ phase: "force" }))
        expect(log.filter((line) => line.startsWith("Cancelled")).length).toBe(1)
        expect(log.at(-1)).toBe("request ended")
      }
    })
  )

  it.effect("L39 a handler that ends while it is told of its cancel needs no fiber that waits for that", () =>
    Effect.gen(function* () {
      let fibers = 0
      const counting = Effect.provideService(Metric.FiberRuntimeMetrics, {
        recordFiberStart: () => {
          fibers++
        },
        recordFiberEnd: () => undefined
      })
      const released: Array<string> = []
      const held = (name: string, release: Effect.Effect<unknown>) =>
        Effect.andThen(
          Effect.addFinalizer(() =>
            Effect.andThen(
              release,
              Effect.sync(() => released.push(name))
            )
          ),
          Effect.never
        )
      for (const leave of [
        (peer: PeerSignal.PeerSignal) => peer.goneUnsafe(gone),
        (peer: PeerSignal.PeerSignal) => peer.stopUnsafe(limit)
      ]) {
        const atOnce = yield* counting(serve(held("at once", Effect.void), { policy: "cancel" }))
        const before = fibers
        leave(atOnce.peer)
        expect([fibers - before, released.pop()]).toEqual([0, "at once"])
        expect(atOnce.log.at(-1)).toBe("request ended")
        const later = yield* counting(serve(held("later", Effect.yieldNow), { policy: "cancel" }))
        const then = fibers
        leave(later.peer)
        expect(fibers - then).toBeGreaterThan(0)
        yield* later.owner.drain()
        expect(released.pop()).toBe("later")
        expect(later.log.filter((line) => /^(Cancelled|Dropped)/.test(line)).length).toBe(1)
      }
    })
  )

  it.effect("L40 a peer that leaves after the answer cancels nothing", () =>
    Effect.gen(function* () {
      const { log, peer } = yield* serve(Effect.as(isActive, 1))
      expect([peer.goneUnsafe(gone), peer.stopUnsafe(limit)]).toEqual([false, false])
      expect(log).toEqual(["Value 1", "request ended"])
    })
  )
})

/** Serves a handler whose fiber a scheduler holds up before its first operation, and does something meanwhile. */
const heldUp = <A, E>(
  handler: Effect.Effect<A, E, Scope.Scope>,
  options: Options,
  meanwhile: (served: Effect.Success<ReturnType<typeof serve>>) => unknown,
  /** Before which operation of the handler's fiber. */
  at = 1
) =>
  Effect.gen(function* () {
    const scheduler = new Scheduler.MixedScheduler()
    const own = yield* Effect.withFiberSucceed((fiber) => fiber.id)
    let asked = 0
    scheduler.shouldYield = (fiber) => fiber.id !== own && ++asked === at
    const served = yield* Effect.provideService(serve(handler, options), Scheduler.Scheduler, scheduler)
    const done = meanwhile(served)
    if (Effect.isEffect(done)) yield* done as Effect.Effect<unknown>
    yield* Effect.yieldNow
    yield* served.owner.drain()
    return served
  })
