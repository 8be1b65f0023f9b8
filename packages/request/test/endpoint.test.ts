import { CancelReason, currentReason, outerReason } from "@curfew/reason"
import { type CancelCell, CurrentCell, rootsUnsafe } from "@curfew/reason/CancelCell"
import {
  awaitPeerGone,
  cancellable,
  completed,
  DefaultOnDisconnect,
  Endpoint,
  isActive,
  type OnDisconnect,
  onDisconnect,
  onPeerGone,
  PeerSignal,
  policyOf,
  RequestContext,
  type Transport
} from "@curfew/request"
import { CancelScope, Instant, Owner, ownerClosedTotal, stuck, TaskScope } from "@curfew/scope"
import { delayCancellation, stopCancellation } from "@curfew/shield"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { fiberCount } from "../../../test/support/recorder.ts"
import { runs as casesOf } from "../../../test/support/seed.ts"
import { sweepAll } from "../../../test/support/sweep.ts"
import { dropped, feed, left, post, serve } from "./support/edge.ts"

const transports: ReadonlyArray<Transport> = ["http1", "http2", "ws", "grpc", "tunnel", "tcp"]
const limit = CancelReason.LimitExceeded({ limit: "body size" })
const force = CancelReason.Shutdown({ phase: "force" })
const runs = casesOf(200).numRuns

/** A handler that notes how it ends. */
const noting = (work: Effect.Effect<unknown>) => {
  const log: Array<string> = []
  const handler = Effect.onExit(work, (exit) =>
    Effect.map(currentReason, (reason) => {
      log.push(Exit.isSuccess(exit) ? "done" : `interrupted: ${Option.getOrUndefined(reason)?._tag}`)
    })
  )
  return { log, handler }
}

describe("L39: the default", () => {
  it.effect("L39: lets a request handler without a mark run to its end, drops its answer and counts it", () =>
    Effect.gen(function* () {
      for (const transport of transports) {
        const { handler, log } = noting(Effect.sleep("5 seconds"))
        const gone = CancelReason.ClientGone({ transport })
        const { answer, fiber, owner, peer } = yield* serve(handler, { transport })
        expect(yield* owner.size).toBe(1)
        expect(peer.goneUnsafe(gone)).toBe(true)
        yield* TestClock.adjust("4 seconds")
        expect([log, fiber.pollUnsafe()]).toEqual([[], undefined])
        yield* TestClock.adjust("1 seconds")
        expect(yield* answer).toEqual({ _tag: "Dropped", reason: gone, exit: Option.some(Exit.void) })
        expect(log).toEqual(["done"])
        expect(yield* dropped({ ...post, transport })).toBe(1)
        expect(yield* owner.size).toBe(0)
      }
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("L39: closes a response stream whose consumer left", () =>
    Effect.gen(function* () {
      const { handler, log } = noting(Effect.never)
      const { answer, peer } = yield* serve(handler, feed)
      peer.goneUnsafe(left)
      expect(log).toEqual(["interrupted: ClientGone"])
      expect(yield* answer).toMatchObject({ _tag: "Dropped", reason: left })
      expect(yield* dropped(feed)).toBe(0)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("L39: can be set by method, kind and transport", () =>
    Effect.gen(function* () {
      const asked: Array<unknown> = []
      const { handler, log } = noting(Effect.never)
      const { answer, peer } = yield* serve(handler, { method: "GET /search" }).pipe(
        Effect.provideService(DefaultOnDisconnect, ({ kind, method, transport }): OnDisconnect => {
          asked.push({ kind, method, transport })
          return method.startsWith("GET") ? "cancel" : "shield"
        })
      )
      peer.goneUnsafe(left)
      yield* answer
      expect(log).toEqual(["interrupted: ClientGone"])
      expect(asked).toEqual([{ kind: "request", method: "GET /search", transport: "http1" }])
    })
  )
})

describe("L39: a mark", () => {
  it.effect("L39: wins over the default, and the outer one over the inner", () =>
    Effect.sync(() => {
      const handler = Effect.succeed(1)
      expect(policyOf(handler)).toBeUndefined()
      expect(policyOf(cancellable(handler))).toBe("cancel")
      expect(policyOf(onDisconnect("detach")(cancellable(handler)))).toBe("detach")
      expect(policyOf(handler)).toBeUndefined()
      expect(Effect.runSync(cancellable(handler))).toBe(1)
    })
  )

  it.effect("L39: leaves a function what it is: its receiver, its arguments, its name and its length", () =>
    Effect.sync(() => {
      const service = {
        base: 40,
        add(this: { base: number }, a: number, _b: number) {
          return this.base + a
        }
      }
      const marked = { base: service.base, add: cancellable(service.add) }
      expect(marked.add(2, 0)).toBe(42)
      expect([marked.add.name, marked.add.length, policyOf(marked.add)]).toEqual(["add", 2, "cancel"])
    })
  )

  it.effect("L39: cancellable interrupts within the step in which the peer left, on every transport", () =>
    Effect.gen(function* () {
      for (const transport of transports) {
        const { handler, log } = noting(Effect.never)
        const { answer, peer } = yield* serve(cancellable(handler), { transport })
        peer.goneUnsafe(CancelReason.ClientGone({ transport }))
        // No turn of the dispatcher has passed.
        expect(log).toEqual(["interrupted: ClientGone"])
        expect((yield* answer)._tag).toBe("Dropped")
      }
    })
  )

  it.effect("L39: cancellable keeps the edge until the clean-up has ended", () =>
    Effect.gen(function* () {
      const { answer, fiber, peer } = yield* serve(
        cancellable(Effect.ensuring(Effect.never, Effect.sleep("2 seconds")))
      )
      peer.goneUnsafe(left)
      yield* TestClock.adjust("1 seconds")
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust("1 seconds")
      expect((yield* answer)._tag).toBe("Dropped")
    })
  )

  it.effect("L39: grace interrupts that long after the peer left", () =>
    Effect.gen(function* () {
      const { handler, log } = noting(Effect.never)
      const { answer, peer } = yield* serve(handler, { on: { grace: "3 seconds" } })
      yield* TestClock.adjust("10 seconds")
      peer.goneUnsafe(left)
      yield* TestClock.adjust("2999 millis")
      expect(log).toEqual([])
      yield* TestClock.adjust("1 millis")
      expect(log).toEqual(["interrupted: ClientGone"])
      expect((yield* answer)._tag).toBe("Dropped")
    })
  )

  it.effect(
    "L39: grace does not run while somebody else observes the work, and begins anew when the last one leaves",
    () =>
      Effect.gen(function* () {
        const { handler, log } = noting(Effect.never)
        const calls: Array<Endpoint.Call | undefined> = []
        const publishing = Effect.andThen(
          Effect.flatMap(Endpoint.CurrentCall, (call) => Effect.sync(() => calls.push(call))),
          handler
        )
        const { answer, peer } = yield* serve(publishing, { on: { grace: "3 seconds" } })
        const call = calls[0] as Endpoint.Call
        const scopes = [Scope.makeUnsafe(), Scope.makeUnsafe()] as const
        peer.goneUnsafe(left)
        yield* TestClock.adjust("2 seconds")
        expect(yield* Scope.provide(call.observe, scopes[0])).toBe(true)
        expect(yield* Scope.provide(call.observe, scopes[1])).toBe(true)
        yield* TestClock.adjust("1 hour")
        yield* Scope.close(scopes[0], Exit.void)
        yield* TestClock.adjust("1 hour")
        expect(log).toEqual([])
        yield* Scope.close(scopes[1], Exit.void)
        yield* TestClock.adjust("2999 millis")
        expect(log).toEqual([])
        yield* TestClock.adjust("1 millis")
        expect(log).toEqual(["interrupted: ClientGone"])
        expect((yield* answer)._tag).toBe("Dropped")
        expect(yield* Effect.scoped(call.observe)).toBe(false)
      })
  )

  it.effect(
    "L39: detach lets the edge go at once and keeps the handler under the owner, its answer dropped",
    () =>
      Effect.gen(function* () {
        const { handler, log } = noting(Effect.sleep("5 seconds"))
        const { answer, owner, peer } = yield* serve(handler, { on: "detach" })
        peer.goneUnsafe(left)
        expect(yield* answer).toEqual({ _tag: "Dropped", reason: left, exit: Option.none() })
        expect(yield* owner.size).toBe(1)
        yield* TestClock.adjust("5 seconds")
        expect(log).toEqual(["done"])
        expect(yield* owner.size).toBe(0)
        expect(yield* dropped()).toBe(1)
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("L39: detach gives the handler a Scope that its edge's end does not close", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const note = (text: string) => Effect.sync(() => log.push(text))
      const owner = yield* TaskScope.make()
      const peer = PeerSignal.makeUnsafe()
      const handler = Effect.gen(function* () {
        yield* Effect.acquireRelease(note("acquired"), () => note("released"))
        yield* Effect.sleep("5 seconds")
        yield* note("used")
      })
      const edge = Effect.scoped(Endpoint.run(handler, { ...post, peer, owner, policy: "detach" }))
      const fiber = yield* Effect.forkChild(Effect.provideService(edge, Owner, owner), {
        startImmediately: true
      })
      peer.goneUnsafe(left)
      yield* Fiber.join(fiber)
      yield* TestClock.adjust("5 seconds")
      expect(log).toEqual(["acquired", "used", "released"])
    })
  )

  it.effect("L39: hands what nobody takes to its receiver, a failure by default to OnUnhandled, once", () =>
    Effect.gen(function* () {
      for (const on of ["shield", "detach"] as const) {
        const failing = yield* serve(Effect.andThen(Effect.sleep("1 seconds"), Effect.die("bug")), { on })
        failing.peer.goneUnsafe(left)
        yield* TestClock.adjust("1 seconds")
        yield* failing.answer
        expect(failing.unhandled).toMatchObject([{ origin: "abandoned work", name: "POST /orders" }])
        const received: Array<Exit.Exit<number, never>> = []
        const own = yield* serve(Effect.as(Effect.sleep("1 seconds"), 7), {
          on,
          onDropped: (exit) => Effect.sync(() => received.push(exit))
        })
        own.peer.goneUnsafe(left)
        yield* TestClock.adjust("1 seconds")
        yield* own.answer
        expect(received).toEqual([Exit.succeed(7)])
      }
    })
  )

  it.effect("L39: hands nobody the interrupt of a handler that its peer's leaving has ended", () =>
    Effect.gen(function* () {
      const received: Array<Exit.Exit<never, never>> = []
      const { answer, peer } = yield* serve(Effect.never, {
        on: "cancel",
        onDropped: (exit) => Effect.sync(() => received.push(exit))
      })
      peer.goneUnsafe(left)
      expect((yield* answer)._tag).toBe("Dropped")
      expect(received).toEqual([])
    })
  )
})

describe("L8: a grace", () => {
  it.effect("L8: that never ends starts no timer when the peer leaves", () =>
    Effect.gen(function* () {
      for (const grace of ["Infinity", "1 minute"] as const) {
        const { around, count } = fiberCount()
        const { peer, release } = yield* around(
          Effect.gen(function* () {
            const release = yield* Deferred.make<void>()
            return { ...(yield* serve(Deferred.await(release), { on: { grace } })), release }
          })
        )
        const before = count.started
        peer.goneUnsafe(left)
        expect(count.started > before).toBe(grace !== "Infinity")
        yield* Deferred.succeed(release, undefined)
        yield* Effect.yieldNow
        expect(count.live).toBe(0)
      }
    })
  )
})

describe("L39: everything but the peer's leaving interrupts", () => {
  const policies: ReadonlyArray<OnDisconnect> = ["cancel", "shield", { grace: "1 hour" }, "detach"]
  const slowCleanUp = Effect.ensuring(Effect.never, Effect.sleep("4 seconds"))

  const causes = [
    ["a deadline", (it: Served) => Effect.as(TestClock.adjust("2 seconds"), it)],
    ["a limit", (it: Served) => it.peer.stop(limit)],
    ["a forced shutdown", (it: Served) => Effect.sync(() => Effect.runFork(it.owner.cancel(force)))]
  ] as const
  type Served = Effect.Success<ReturnType<typeof serve<never, never>>>

  for (const [name, cause] of causes) {
    it.effect(
      `L39: ${name} interrupts every handler; the answer of one without a mark goes out at once`,
      () =>
        Effect.gen(function* () {
          for (const on of policies) {
            const { handler, log } = noting(slowCleanUp)
            const now = yield* Instant.now
            const served = yield* serve(handler as Effect.Effect<never>, {
              on,
              ...(name === "a deadline" ? { deadline: (now + 2_000) as Instant.Instant } : {})
            })
            yield* cause(served)
            const prompt = on === "shield" || on === "detach"
            yield* Effect.yieldNow
            expect(served.fiber.pollUnsafe() !== undefined).toBe(prompt)
            expect(log).toEqual([])
            yield* TestClock.adjust("4 seconds")
            const answer = yield* served.answer
            expect(answer).toMatchObject({ _tag: "Cancelled" })
            const tag = answer._tag === "Cancelled" ? answer.reason._tag : ""
            expect(tag).toBe(
              { "a deadline": "Deadline", "a limit": "LimitExceeded", "a forced shutdown": "Shutdown" }[name]
            )
            expect(log).toEqual([`interrupted: ${tag}`])
          }
        })
    )
  }

  it.effect("L39: the deadline's reason names the method and whose it is, in wall-clock time", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("1 minute")
      const deadline = (yield* Instant.after("2 seconds")) as Instant.Instant
      const { answer } = yield* serve(Effect.never, { deadline, deadlineOrigin: "remote" })
      yield* TestClock.adjust("2 seconds")
      expect(yield* answer).toEqual({
        _tag: "Cancelled",
        reason: { _tag: "Deadline", at: 62_000, origin: "remote", scope: "POST /orders" }
      })
    })
  )

  it.effect(
    "L39: clean-up that hangs is left behind as stuck after the budget, under the handler's name",
    () =>
      Effect.gen(function* () {
        for (const on of policies) {
          const release = yield* Deferred.make<void>()
          const served = yield* serve(Effect.uninterruptible(Deferred.await(release)), { on })
          yield* served.peer.stop(limit)
          yield* TestClock.adjust("10 seconds")
          expect(yield* served.answer).toEqual({ _tag: "Cancelled", reason: limit })
          expect(yield* stuck).toMatchObject([{ name: "POST /orders", reason: limit, source: undefined }])
          yield* Deferred.succeed(release, undefined)
          expect(yield* stuck).toEqual([])
        }
      })
  )

  it.effect("L39: a deadline after the peer left still interrupts, and the answer stays dropped", () =>
    Effect.gen(function* () {
      for (const on of policies.filter((policy) => policy !== "cancel")) {
        const { handler, log } = noting(Effect.never)
        const { answer, owner, peer } = yield* serve(handler, {
          on,
          deadline: yield* Instant.after("2 seconds")
        })
        peer.goneUnsafe(left)
        yield* TestClock.adjust("2 seconds")
        expect(yield* answer).toMatchObject({ _tag: "Dropped", reason: left })
        expect(log).toEqual(["interrupted: Deadline"])
        expect(yield* owner.size).toBe(0)
      }
    })
  )
})

describe("L39: a handler can always ask", () => {
  const asking = (log: Array<unknown>) =>
    Effect.gen(function* () {
      log.push(yield* isActive)
      const reason = yield* awaitPeerGone
      log.push(reason._tag, yield* isActive)
    })
  const wrappings = {
    plainly: (work: Effect.Effect<void>) => work,
    "in a mask": Effect.uninterruptible,
    "delayed in a shield": (work: Effect.Effect<void>) => delayCancellation(work),
    "stopped in a shield": (work: Effect.Effect<void>) => stopCancellation(work),
    "in a forked child": (work: Effect.Effect<void>) => Effect.flatMap(Effect.forkChild(work), Fiber.join)
  }
  for (const [how, wrap] of Object.entries(wrappings)) {
    for (const on of ["shield", "cancel"] as const) {
      if (on === "cancel" && (how === "plainly" || how === "in a forked child")) continue
      it.effect(`L39: ${how}, under ${on}`, () =>
        Effect.gen(function* () {
          const log: Array<unknown> = []
          const owner = yield* TaskScope.make()
          const work = Effect.provideService(
            wrap(asking(log)) as Effect.Effect<void, never, Owner>,
            Owner,
            owner
          )
          const { answer, peer } = yield* serve(work, { on })
          yield* Effect.yieldNow
          peer.goneUnsafe(left)
          yield* answer
          yield* owner.drain()
          expect(log).toEqual([true, "ClientGone", false])
        })
      )
    }
  }

  it.effect("L39: and outside of any call is active for ever", () =>
    Effect.gen(function* () {
      expect(yield* isActive).toBe(true)
      const fiber = yield* Effect.forkChild(awaitPeerGone, { startImmediately: true })
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("L39: onPeerGone runs once, and only if the peer left while its scope was open", () =>
    Effect.gen(function* () {
      const cases = [
        ["shield", "leaves", ["ClientGone", "end"]],
        ["cancel", "leaves", ["end", "ClientGone"]],
        ["shield", "stays", ["end"]]
      ] as const
      for (const [on, what, expected] of cases) {
        const log: Array<string> = []
        const release = yield* Deferred.make<void>()
        const handler = Effect.scoped(
          Effect.gen(function* () {
            yield* onPeerGone((reason) => Effect.sync(() => log.push(reason._tag)))
            yield* Effect.ensuring(
              Deferred.await(release),
              Effect.sync(() => log.push("end"))
            )
          })
        )
        const { answer, peer } = yield* serve(handler, { on })
        yield* Effect.yieldNow
        if (what === "leaves") peer.goneUnsafe(left)
        yield* Deferred.succeed(release, undefined)
        yield* answer
        peer.goneUnsafe(left)
        expect([...log].sort()).toEqual([...expected].sort())
      }
    })
  )

  it.effect("L39: what onPeerGone has begun runs to its end, although its scope closes meanwhile", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust(0)
      const log: Array<string> = []
      const told = Effect.andThen(
        Effect.sleep("1 second"),
        Effect.sync(() => log.push("told"))
      )
      const handler = Effect.scoped(
        Effect.andThen(
          onPeerGone(() => told),
          Effect.sleep("500 millis")
        )
      )
      const { answer, fiber, peer } = yield* serve(handler, { on: "shield" })
      yield* Effect.yieldNow
      peer.goneUnsafe(left)
      yield* TestClock.adjust("500 millis")
      expect([log, fiber.pollUnsafe()]).toEqual([[], undefined])
      yield* TestClock.adjust("500 millis")
      yield* answer
      expect(log).toEqual(["told"])
    })
  )

  it.effect(
    "L2: a cancel around the edge reaches the handler in its turn, whatever runs before the edge",
    () =>
      Effect.gen(function* () {
        const { handler, log } = noting(Effect.never)
        const owner = yield* TaskScope.make()
        const gate = yield* Deferred.make<void>()
        const scopes: Array<CancelScope.CancelScope> = []
        const edge = Endpoint.run(handler, { ...post, peer: PeerSignal.makeUnsafe(), owner })
        // A native child is interrupted only after its parent's finalizers.
        const around = CancelScope.run((scope) => {
          scopes.push(scope)
          return Effect.ensuring(
            Effect.andThen(Effect.forkChild(edge, { startImmediately: true }), Effect.never),
            Deferred.await(gate)
          )
        })
        const fiber = yield* Effect.forkChild(Effect.provideService(around, Owner, owner), {
          startImmediately: true
        })
        yield* scopes[0]?.cancel(force) ?? Effect.void
        expect(log).toEqual(["interrupted: Shutdown"])
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.await(fiber)
      })
  )

  it.effect(
    "L39: the edge's own scope shows through outerReason, and does not interrupt a handler without a mark",
    () =>
      Effect.gen(function* () {
        const log: Array<unknown> = []
        const release = yield* Deferred.make<void>()
        const owner = yield* TaskScope.make()
        const peer = PeerSignal.makeUnsafe()
        const handler = Effect.andThen(
          Deferred.await(release),
          Effect.map(Effect.all([currentReason, outerReason]), (both) => log.push(...both))
        )
        const scopes: Array<CancelScope.CancelScope> = []
        const edge = CancelScope.run((scope) => {
          scopes.push(scope)
          return Endpoint.run(handler, { ...post, peer, owner })
        })
        const fiber = yield* Effect.forkChild(Effect.provideService(edge, Owner, owner), {
          startImmediately: true
        })
        yield* scopes[0]?.cancel(left) ?? Effect.void
        expect([peer.state, fiber.pollUnsafe()]).toEqual(["gone", undefined])
        yield* Deferred.succeed(release, undefined)
        expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason: left })
        expect(log).toEqual([Option.none(), Option.some(left)])
      })
  )
})

describe("L39: the policies against a model", () => {
  const policy = fc.constantFrom<OnDisconnect>("cancel", "shield", { grace: 300 }, "detach")
  // Distinct remainders keep any two events apart.
  const at = (offset: number) =>
    fc.option(
      fc.integer({ min: 1, max: 20 }).map((n) => n * 50 + offset),
      { nil: undefined }
    )

  it("L39: the answer, its time, how the handler ended and what was counted are as the table says", () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({
          policy,
          ends: fc.integer({ min: 1, max: 20 }).map((n) => n * 50),
          gone: at(1),
          deadline: at(2),
          stop: at(3)
        }),
        ({ deadline = Infinity, ends, gone = Infinity, policy, stop = Infinity }) =>
          Effect.runPromise(
            Effect.gen(function* () {
              const cancelAt = Math.min(
                deadline,
                stop,
                policy === "cancel" ? gone : typeof policy === "object" ? gone + 300 : Infinity
              )
              const handlerEnds = Math.min(ends, cancelAt)
              const answered = policy === "detach" && gone < handlerEnds ? gone : handlerEnds
              const tag =
                gone < handlerEnds || (gone === handlerEnds && cancelAt === gone)
                  ? "Dropped"
                  : ends < cancelAt
                    ? "Value"
                    : "Cancelled"
              const counted = tag === "Dropped" && ends < cancelAt ? 1 : 0

              const log: Array<number> = []
              const clock = Effect.map(Instant.now, (now) => log.push(now))
              const handler = Effect.onExit(Effect.sleep(ends), () => clock)
              const { fiber, owner, peer } = yield* serve(handler, {
                on: policy,
                ...(deadline === Infinity ? {} : { deadline: deadline as Instant.Instant })
              })
              const clockNow = yield* Effect.clockWith((it) =>
                Effect.succeed(() => it.currentTimeMillisUnsafe())
              )
              const answers: Array<number> = []
              fiber.addObserver(() => answers.push(clockNow()))
              for (let now = 0; now < 1_200; now++) {
                yield* TestClock.adjust(1)
                if (now + 1 === gone) peer.goneUnsafe(left)
                if (now + 1 === stop) peer.stopUnsafe(limit)
              }
              const answer = yield* Fiber.join(fiber)
              expect({
                tag: answer._tag,
                answered: answers[0],
                handlerEnds: log[0],
                counted: yield* dropped(),
                size: yield* owner.size
              }).toEqual({
                tag,
                answered,
                handlerEnds,
                counted,
                size: 0
              })
            }).pipe(
              Effect.provideService(Metric.MetricRegistry, new Map()),
              Effect.scoped,
              Effect.provide(TestClock.layer())
            )
          )
      ),
      { numRuns: Math.ceil(runs / 4) }
    ))
})

describe("L40: completed and cancelled", () => {
  it.effect(
    "L40: are two things: completion fires no cancel, and a later event of the transport changes nothing",
    () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const release = yield* Deferred.make<void>()
        const handler = Effect.gen(function* () {
          yield* Effect.forkChild(
            Effect.andThen(
              awaitPeerGone,
              Effect.sync(() => log.push("gone"))
            ),
            { startImmediately: true }
          )
          yield* Effect.forkChild(
            Effect.andThen(
              completed,
              Effect.sync(() => log.push("completed"))
            ),
            { startImmediately: true }
          )
          yield* Deferred.await(release)
          log.push(`active: ${yield* isActive}`)
          return "late"
        })
        const { answer, peer } = yield* serve(cancellable(handler))
        expect(peer.completeUnsafe()).toBe(true)
        expect(peer.goneUnsafe(left)).toBe(false)
        expect(peer.stopUnsafe(limit)).toBe(false)
        expect(peer.completeUnsafe()).toBe(false)
        yield* Deferred.succeed(release, undefined)
        expect(yield* answer).toEqual({ _tag: "Value", value: "late" })
        expect(log).toEqual(["completed", "active: false"])
      })
  )

  it.effect("L40: exclude each other in every order of events, and each is told once", () =>
    Effect.sync(() =>
      fc.assert(
        fc.property(fc.array(fc.constantFrom("gone", "complete"), { maxLength: 8 }), (events) => {
          const peer = PeerSignal.makeUnsafe()
          const told = events.map((event) =>
            event === "gone" ? peer.goneUnsafe(left) : peer.completeUnsafe()
          )
          expect(told).toEqual(events.map((_, i) => i === 0))
          expect(peer.state).toBe(
            events.length === 0 ? "waiting" : events[0] === "gone" ? "gone" : "completed"
          )
        })
      )
    )
  )

  it.effect("L40: the effects are the unsafe functions", () =>
    Effect.gen(function* () {
      const peer = yield* PeerSignal.make
      expect(yield* peer.stop(limit)).toBe(true)
      expect(yield* peer.stop(limit)).toBe(false)
      expect(yield* peer.complete).toBe(true)
      expect(yield* peer.gone(left)).toBe(false)
    })
  )
})

describe("L5: what was over before it began does not start", () => {
  it.effect("L5: a stopped call, a deadline in the past, a marked handler whose peer has gone", () =>
    Effect.gen(function* () {
      let started = 0
      const handler = Effect.sync(() => started++)
      const owner = yield* TaskScope.make()
      const call = (
        options: { readonly policy?: OnDisconnect; readonly deadline?: Instant.Instant },
        prepare: (peer: PeerSignal.PeerSignal) => unknown
      ) =>
        Effect.suspend(() => {
          const peer = PeerSignal.makeUnsafe()
          prepare(peer)
          return Effect.provideService(
            Endpoint.run(handler, { ...post, ...options, peer, owner }),
            Owner,
            owner
          )
        })
      expect(yield* call({}, (peer) => peer.stopUnsafe(limit))).toEqual({ _tag: "Cancelled", reason: limit })
      expect(yield* call({ deadline: yield* Instant.now }, () => {})).toMatchObject({
        _tag: "Cancelled",
        reason: { _tag: "Deadline" }
      })
      expect(yield* call({ policy: "cancel" }, (peer) => peer.goneUnsafe(left))).toEqual({
        _tag: "Dropped",
        reason: left,
        exit: Option.none()
      })
      expect(started).toBe(0)
      // Nothing may depend on how fast a client hangs up: an unmarked handler runs all the same.
      expect(yield* call({}, (peer) => peer.goneUnsafe(left))).toMatchObject({ _tag: "Dropped" })
      expect(started).toBe(1)
    })
  )
})

describe("L37: an ended request", () => {
  it.effect("L37: that forbids its use starts no handler, and nothing of the call is left", () =>
    Effect.gen(function* () {
      let started = 0
      const owner = yield* TaskScope.make()
      const request = yield* RequestContext.make({ id: "r1", afterEnd: "die", onEnd: () => Effect.void })
      yield* request.finish
      const call = { ...post, method: "GET /ended", peer: PeerSignal.makeUnsafe(), owner }
      const edge = RequestContext.provide(request)(
        Endpoint.run(
          Effect.sync(() => started++),
          call
        )
      )
      const exit = yield* Effect.exit(Effect.provideService(edge, Owner, owner))
      expect(Exit.hasDies(exit)).toBe(true)
      expect(started).toBe(0)
      expect(rootsUnsafe().filter((cell) => cell.name === "GET /ended")).toEqual([])
    })
  )
})

describe("L46: a closed owner", () => {
  it.effect("L46: takes no handler: it runs attached, detach behaves as shield, counted once", () =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make()
      yield* owner.close
      const peer = PeerSignal.makeUnsafe()
      const edge = Endpoint.run(Effect.as(Effect.sleep("1 seconds"), 1), {
        ...post,
        peer,
        owner,
        policy: "detach"
      })
      const fiber = yield* Effect.forkChild(Effect.provideService(edge, Owner, owner), {
        startImmediately: true
      })
      peer.goneUnsafe(left)
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust("1 seconds")
      expect(yield* Fiber.join(fiber)).toEqual({
        _tag: "Dropped",
        reason: left,
        exit: Option.some(Exit.succeed(1))
      })
      expect((yield* Metric.value(ownerClosedTotal)).count).toBe(1)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("L46: still bounds the clean-up of an attached handler", () =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make()
      yield* owner.close
      const release = yield* Deferred.make<void>()
      const peer = PeerSignal.makeUnsafe()
      const edge = Endpoint.run(Effect.uninterruptible(Deferred.await(release)), { ...post, peer, owner })
      const fiber = yield* Effect.forkChild(Effect.provideService(edge, Owner, owner), {
        startImmediately: true
      })
      peer.stopUnsafe(limit)
      yield* TestClock.adjust("10 seconds")
      expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Cancelled", reason: limit })
      expect(yield* stuck).toMatchObject([{ name: "POST /orders" }])
      yield* Deferred.succeed(release, undefined)
    })
  )
})

describe("the handler's own exit", () => {
  it.effect("passes through: value, failure, defect, and a foreign interrupt as a failure", () =>
    Effect.gen(function* () {
      const ends: ReadonlyArray<readonly [Effect.Effect<number, string>, Endpoint.Answer<number, string>]> = [
        [Effect.succeed(1), { _tag: "Value", value: 1 }],
        [Effect.fail("no"), { _tag: "Failure", cause: Cause.fail("no") }],
        [Effect.die("bug"), { _tag: "Failure", cause: Cause.die("bug") }]
      ]
      for (const [work, expected] of ends) {
        for (const on of ["cancel", "shield", "detach"] as const) {
          expect(yield* (yield* serve(work as Effect.Effect<number>, { on })).answer).toEqual(expected)
          const later = Effect.andThen(Effect.yieldNow, work) as Effect.Effect<number>
          expect(yield* (yield* serve(later, { on })).answer).toEqual(expected)
        }
      }
      const other = yield* Effect.forkChild(Effect.never, { startImmediately: true })
      const foreign = yield* serve(cancellable(Fiber.join(other)))
      yield* Fiber.interrupt(other)
      const answer = yield* foreign.answer
      expect(answer._tag === "Failure" && Cause.hasInterruptsOnly(answer.cause)).toBe(true)
    })
  )

  it.effect("L4: stands when it was there before the peer left or the call was stopped", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const peer = PeerSignal.makeUnsafe()
      const owner = yield* TaskScope.make()
      // A child's finalizer keeps the fiber after the body's value is there.
      const handler = Effect.andThen(
        Effect.forkChild(Effect.ensuring(Effect.never, Deferred.await(release)), { startImmediately: true }),
        Effect.succeed("ready")
      )
      const edge = Endpoint.run(handler, { ...post, peer, owner, policy: "cancel" })
      const fiber = yield* Effect.forkChild(Effect.provideService(edge, Owner, owner), {
        startImmediately: true
      })
      peer.stopUnsafe(limit)
      yield* Deferred.succeed(release, undefined)
      expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Value", value: "ready" })
    })
  )
})

describe("an edge that is cancelled", () => {
  const within = (policy: OnDisconnect, reason: CancelReason | "native" | "classified") =>
    Effect.gen(function* () {
      const { handler, log } = noting(Effect.sleep("5 seconds"))
      const owner = yield* TaskScope.make()
      const peer = PeerSignal.makeUnsafe()
      const scopes: Array<CancelScope.CancelScope> = []
      const edge = CancelScope.run((scope) => {
        scopes.push(scope)
        return Endpoint.run(handler, {
          ...post,
          peer,
          owner,
          policy,
          ...(reason === "classified" ? { classify: () => left } : {})
        })
      })
      const fiber = yield* Effect.forkChild(Effect.provideService(edge, Owner, owner), {
        startImmediately: true
      })
      if (typeof reason === "string") fiber.interruptUnsafe()
      else yield* scopes[0]?.cancel(reason) ?? Effect.void
      return { fiber, log, owner, peer, scope: scopes[0] as CancelScope.CancelScope }
    })

  it.effect("before the start does not start the handler", () =>
    Effect.gen(function* () {
      let started = 0
      const owner = yield* TaskScope.make()
      const outcome = yield* CancelScope.run((scope) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.andThen(
            scope.cancel(left),
            restore(
              Effect.provideService(
                Endpoint.run(
                  Effect.sync(() => started++),
                  { ...post, peer: PeerSignal.makeUnsafe(), owner }
                ),
                Owner,
                owner
              )
            )
          )
        )
      )
      expect(outcome._tag).toBe("Cancelled")
      expect(started).toBe(0)
    })
  )

  it.effect("L39: because the peer left follows the policy, by a reason as by what classify says", () =>
    Effect.gen(function* () {
      for (const reason of [left, "classified"] as const) {
        const marked = yield* within("cancel", reason)
        expect(marked.log).toEqual(["interrupted: ClientGone"])
        expect(marked.peer.state).toBe("gone")
        const shielded = yield* within("shield", reason)
        expect([shielded.log, shielded.fiber.pollUnsafe()]).toEqual([[], undefined])
        // A second cancel changes nothing.
        yield* shielded.scope.cancel()
        shielded.fiber.interruptUnsafe()
        const detached = yield* within("detach", reason)
        expect(detached.fiber.pollUnsafe()).toBeDefined()
        yield* TestClock.adjust("5 seconds")
        expect([shielded.log, detached.log]).toEqual([["done"], ["done"]])
        expect(shielded.fiber.pollUnsafe()).toBeDefined()
      }
    })
  )

  it.effect("L39: for any other reason interrupts every handler", () =>
    Effect.gen(function* () {
      for (const reason of [force, limit, "native"] as const) {
        for (const policy of ["cancel", "shield", { grace: "1 hour" }, "detach"] as const) {
          const { fiber, log, owner } = yield* within(policy, reason)
          expect(log).toEqual([`interrupted: ${typeof reason === "string" ? "Unknown" : reason._tag}`])
          yield* Fiber.await(fiber)
          expect(yield* owner.size).toBe(0)
        }
      }
    })
  )

  it.effect(
    "L44: in a mask is not interrupted, and neither is its handler; the peer's signal comes through",
    () =>
      Effect.gen(function* () {
        const { handler, log } = noting(Effect.never)
        const owner = yield* TaskScope.make()
        const peer = PeerSignal.makeUnsafe()
        const scopes: Array<CancelScope.CancelScope> = []
        const edge = CancelScope.run((scope) => {
          scopes.push(scope)
          return Effect.uninterruptible(Endpoint.run(cancellable(handler), { ...post, peer, owner }))
        })
        const fiber = yield* Effect.forkChild(Effect.provideService(edge, Owner, owner), {
          startImmediately: true
        })
        yield* scopes[0]?.cancel(force) ?? Effect.void
        expect(log).toEqual([])
        peer.goneUnsafe(left)
        expect(log).toEqual(["interrupted: ClientGone"])
        expect((yield* Fiber.join(fiber))._tag).toBe("Cancelled")
      })
  )

  it.effect("after the end changes nothing", () =>
    Effect.gen(function* () {
      const { answer, fiber, peer, unhandled } = yield* serve(Effect.succeed(1))
      yield* answer
      fiber.interruptUnsafe()
      peer.goneUnsafe(left)
      peer.stopUnsafe(limit)
      expect(Exit.isSuccess(yield* Fiber.await(fiber))).toBe(true)
      expect(unhandled).toEqual([])
    })
  )
})

describe("at whichever step it is cancelled, once or twice", () => {
  for (const policy of ["cancel", "shield", "detach", { grace: "1 seconds" }] as const) {
    it(`L39: under ${typeof policy === "string" ? policy : "grace"}, the value has one receiver and nothing is left behind`, async () => {
      const steps = await sweepAll(() => {
        const received = { edge: 0, dropped: 0 }
        let made = 0
        let acquired = 0
        let owner: TaskScope.TaskScope | undefined
        const work = Effect.acquireUseRelease(
          Effect.sync(() => acquired++),
          () => Effect.andThen(Effect.yieldNow, Effect.as(Effect.sleep("1 millis"), "value")),
          () => Effect.sync(() => acquired--)
        )
        let cell: CancelCell | undefined
        const handler = Effect.onExitPrimitive(
          Effect.flatMap(CurrentCell, (own) => {
            cell = own as CancelCell
            return work
          }),
          (exit) => {
            if (Exit.isSuccess(exit)) made++
            return undefined
          }
        )
        const program = Effect.scoped(
          Effect.gen(function* () {
            made = received.edge = received.dropped = 0
            owner = yield* TaskScope.make()
            const edge = Endpoint.run(handler, {
              ...post,
              peer: PeerSignal.makeUnsafe(),
              owner,
              policy,
              classify: () => left,
              onDropped: (exit) =>
                Effect.sync(() => {
                  if (Exit.isSuccess(exit)) received.dropped++
                })
            })
            const taken = Effect.onExitPrimitive(edge, (exit) => {
              if (Exit.isSuccess(exit) && exit.value._tag === "Value") received.edge++
              return undefined
            })
            const answer = yield* Effect.provideService(taken, Owner, owner)
            return answer._tag === "Value" ? answer.value : answer._tag
          })
        )
        return {
          program,
          after: () => {
            expect(acquired).toBe(0)
            const taken = received.edge + received.dropped
            // A cancel of the handler itself may still take a value that has not left it.
            if (cell?.reason === undefined) expect(taken).toBe(made)
            else expect(taken).toBeLessThanOrEqual(made)
          }
        }
      })
      expect(Math.min(...steps)).toBeGreaterThan(10)
    })
  }
})

describe("L8: after a call", () => {
  it.effect("L8: neither the edge's scope, nor the peer's signal, nor the owner keeps anything of it", () =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make()
      const outcome = yield* CancelScope.run(() =>
        Effect.gen(function* () {
          const outer = (yield* CurrentCell) as CancelCell
          const peers: Array<PeerSignal.PeerSignal> = []
          for (const policy of ["cancel", "shield", "detach", { grace: "1 second" }] as const) {
            for (let i = 0; i < 50; i++) {
              const peer = PeerSignal.makeUnsafe()
              peers.push(peer)
              const deadline = yield* Instant.after("1 hour")
              const handler = i % 2 === 0 ? Effect.void : Effect.yieldNow
              yield* Endpoint.run(handler, { ...post, peer, owner, policy, deadline })
            }
          }
          const roots = rootsUnsafe().filter((cell) => cell.name === post.method).length
          return [outer.listenerCount, outer.size, ...new Set(peers.map(ears)), yield* owner.size, roots]
        })
      ).pipe(Effect.provideService(Owner, owner))
      expect(outcome).toMatchObject({ _tag: "Done", value: [0, 0, 0, 0, 0] })
    })
  )
})

const ears = (peer: PeerSignal.PeerSignal): number => {
  const { completedOnce, goneOnce, stopOnce } = peer as unknown as Record<
    string,
    { readonly listenerCount: number }
  >
  return [completedOnce, goneOnce, stopOnce].reduce((sum, once) => sum + (once?.listenerCount ?? 0), 0)
}
