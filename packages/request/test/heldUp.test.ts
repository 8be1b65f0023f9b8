/** What holds although a scheduler makes a fiber wait between two of its operations, and what comes too early or late. */
import { CancelReason } from "@curfew/reason"
import { Endpoint, onPeerGone, PeerSignal, RequestContext, send } from "@curfew/request"
import { Owner, TaskScope } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { Once } from "../src/internal/once.ts"
import type { Peer } from "../src/internal/peer.ts"
import { dropped, left, post, serve } from "./support/edge.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** Runs the work under a scheduler that holds up, once, whoever `which` says. */
const holding = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  which: (fiber: AnyFiber, waiting: AnyFiber) => boolean
): Effect.Effect<A, E, R> =>
  Effect.withFiber((waiting) => {
    let held = false
    const scheduler = new Scheduler.MixedScheduler()
    scheduler.shouldYield = (fiber) => {
      if (held) return false
      held = which(fiber, waiting)
      return held
    }
    return Effect.provideService(self, Scheduler.Scheduler, scheduler)
  })

const now = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** Calls back at the n-th operation of the fiber that runs it, from `arm` on, and holds the fiber up there. */
const countdown = (n: number) => {
  let ahead = Number.POSITIVE_INFINITY
  return {
    arm: () => {
      ahead = n
    },
    reached: () => ahead <= 0,
    at: (fiber: AnyFiber, waiting: AnyFiber) => fiber === waiting && --ahead === 0
  }
}

describe("what happens in the first steps of a handler", () => {
  const inFirstSteps = (policy: "cancel" | "shield", then: Effect.Effect<string>) =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make()
      const peer = PeerSignal.makeUnsafe()
      const got: Array<Exit.Exit<string>> = []
      const handler = Effect.andThen(
        Effect.sync(() => peer.goneUnsafe(left)),
        then
      )
      const onDropped = (exit: Exit.Exit<string>) => Effect.sync(() => got.push(exit))
      const call = Endpoint.run(handler, { ...post, peer, owner, policy, onDropped })
      const answer = yield* Effect.provideService(call, Owner, owner)
      return { answer, got, alive: yield* owner.size }
    })

  it.effect("L39: its peer's leaving interrupts it at its next operation, where the policy says so", () =>
    Effect.gen(function* () {
      for (const then of [Effect.succeed("ran on"), Effect.never]) {
        const { alive, answer, got } = yield* inFirstSteps("cancel", then)
        expect(answer).toMatchObject({ _tag: "Dropped", reason: left })
        expect([got, alive]).toEqual([[], 0])
      }
    })
  )

  it.effect("L39: and elsewhere it ends, and its value is dropped", () =>
    Effect.gen(function* () {
      for (const then of [Effect.succeed("value"), Effect.as(Effect.yieldNow, "value")]) {
        const { alive, answer, got } = yield* inFirstSteps("shield", then)
        expect(answer).toMatchObject({ _tag: "Dropped", reason: left })
        expect([got, alive]).toEqual([[Exit.succeed("value")], 0])
      }
    })
  )

  it.effect("L39: two calls of one peer hear of its leaving", () =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make()
      const peer = PeerSignal.makeUnsafe()
      const call = Effect.provideService(
        Endpoint.run(Effect.never, { ...post, peer, owner, policy: "cancel" }),
        Owner,
        owner
      )
      const [one, two] = [yield* now(call), yield* now(call)]
      peer.goneUnsafe(left)
      expect(yield* Fiber.join(one)).toMatchObject({ _tag: "Dropped", reason: left })
      expect(yield* Fiber.join(two)).toMatchObject({ _tag: "Dropped", reason: left })
    })
  )

  it.effect("a write that its peer's leaving meets in its first steps ends as it waits", () =>
    Effect.gen(function* () {
      const peer = PeerSignal.makeUnsafe()
      const leaving = Effect.sync(() => peer.goneUnsafe(left))
      expect(yield* send(Effect.andThen(leaving, Effect.never), { peer })).toMatchObject({ _tag: "PeerGone" })
      const other = PeerSignal.makeUnsafe()
      const written = Effect.sync(() => other.goneUnsafe(left))
      expect(yield* send(Effect.as(written, 1), { peer: other })).toEqual({ _tag: "Sent", value: 1 })
    })
  )
})

describe("a fiber that is held up", () => {
  it.effect("L37: a handler that was cancelled before its first operation lets go of its request", () =>
    Effect.gen(function* () {
      const records: Array<string> = []
      const owner = yield* TaskScope.make()
      const peer = PeerSignal.makeUnsafe()
      let begun = false
      const handler = Effect.sync(() => {
        begun = true
      })
      const call = holding(
        Endpoint.run(handler, { ...post, peer, owner, policy: "cancel" }),
        (fiber, waiting) => fiber !== waiting
      )
      const edge = yield* now(
        RequestContext.run({ id: "r1", onEnd: ({ id }) => Effect.sync(() => records.push(id)) }, call).pipe(
          Effect.provideService(Owner, owner)
        )
      )
      peer.goneUnsafe(left)
      expect(yield* Fiber.join(edge)).toMatchObject({ _tag: "Dropped", reason: left })
      yield* Effect.yieldNow
      expect([begun, records]).toEqual([false, ["r1"]])
    })
  )

  it.effect("L39: onPeerGone runs once, wherever its fiber is when its scope closes", () =>
    Effect.gen(function* () {
      let reached = 0
      for (let n = 1; n <= 12; n++) {
        const log: Array<string> = []
        const peer = PeerSignal.makeUnsafe()
        const scope = Scope.makeUnsafe()
        const at = countdown(n)
        yield* serve(
          holding(
            Scope.provide(
              onPeerGone(({ _tag }) => Effect.sync(() => log.push(_tag))),
              scope
            ),
            (fiber, waiting) => fiber !== waiting && at.at(fiber, fiber)
          ),
          { peer }
        )
        yield* Effect.yieldNow
        at.arm()
        peer.goneUnsafe(left)
        if (at.reached()) reached++
        yield* Scope.close(scope, Exit.void)
        expect(log).toEqual(["ClientGone"])
      }
      expect(reached).toBeGreaterThan(3)
    })
  )

  it.effect.each(["finish", "release"] as const)(
    "L37: a %s that is interrupted at whichever step still brings out the record",
    (last) =>
      Effect.gen(function* () {
        let reached = 0
        for (let n = 1; n <= 12; n++) {
          const records: Array<string> = []
          const request = yield* RequestContext.make({
            id: "r1",
            onEnd: ({ id }) => Effect.sync(() => records.push(id))
          })
          const release = request.hold("mail")
          const [first, second] = last === "finish" ? [release, request.finish] : [request.finish, release]
          yield* first
          const at = countdown(n)
          at.arm()
          const fiber = yield* now(holding(second, at.at))
          if (fiber.pollUnsafe() === undefined) reached++
          yield* Fiber.interrupt(fiber)
          expect(records.length).toBe((yield* request.ended) ? 1 : 0)
        }
        expect(reached).toBeGreaterThan(3)
      })
  )

  it.effect("L41: a write is not begun, or ended, although its peer left before it could listen", () =>
    Effect.gen(function* () {
      for (let n = 1; n <= 8; n++) {
        const peer = PeerSignal.makeUnsafe()
        const at = countdown(n)
        at.arm()
        const fiber = yield* now(holding(send(Effect.never, { peer }), at.at))
        peer.goneUnsafe(left)
        expect(yield* Fiber.join(fiber)).toEqual({ _tag: "PeerGone", reason: left })
        expect((peer as Peer).goneOnce.listenerCount).toBe(0)
      }
    })
  )

  it.effect("L40: an exit that the edge did not come to take is dropped and counted", () =>
    Effect.gen(function* () {
      const owner = yield* TaskScope.make()
      const gate = yield* Deferred.make<never, string>()
      const before = yield* dropped()
      const at = countdown(1)
      const edge = yield* now(
        holding(
          Endpoint.run(Deferred.await(gate), { ...post, peer: PeerSignal.makeUnsafe(), owner }),
          at.at
        ).pipe(Effect.provideService(Owner, owner))
      )
      at.arm()
      Deferred.doneUnsafe(gate, Effect.fail("late"))
      expect(at.reached()).toBe(true)
      yield* Fiber.interrupt(edge)
      expect((yield* dropped()) - before).toBe(1)
    })
  )

  it.effect("L38: a detached handler goes on, although its edge is interrupted after it has let it go", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      for (let n = 1; n <= 6; n++) {
        const owner = yield* TaskScope.make()
        const peer = PeerSignal.makeUnsafe()
        const at = countdown(n)
        let cancelled = false
        const handler = Effect.onInterrupt(Effect.never, () =>
          Effect.sync(() => {
            cancelled = true
          })
        )
        const edge = yield* now(
          holding(Endpoint.run(handler, { ...post, peer, owner, policy: "detach" }), at.at).pipe(
            Effect.provideService(Owner, owner)
          )
        )
        at.arm()
        peer.goneUnsafe(left)
        const waits = edge.pollUnsafe() === undefined
        yield* Fiber.interrupt(edge)
        seen.push(waits ? (cancelled ? "cancelled" : "let go") : "answered")
        yield* owner.cancel(CancelReason.Shutdown({ phase: "force" }))
      }
      // Before the edge has seen that the peer left, its own interrupt is a cancel.
      expect([...new Set(seen)]).toEqual(["cancelled", "let go", "answered"])
    })
  )
})

describe("too early or too late", () => {
  it.effect("L38: a grace begins with the call when the peer has left before it", () =>
    Effect.gen(function* () {
      const peer = PeerSignal.makeUnsafe()
      peer.goneUnsafe(left)
      const { fiber } = yield* serve(Effect.never, { peer, on: { grace: "2 seconds" } })
      yield* TestClock.adjust("1999 millis")
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust("1 millis")
      expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "Dropped", reason: left })
    })
  )

  it.effect("L41: a write ends with the native interrupt of its fiber, and lets go of its peer", () =>
    Effect.gen(function* () {
      const peer = PeerSignal.makeUnsafe()
      const fiber = yield* now(send(Effect.never, { peer }))
      expect((peer as Peer).goneOnce.listenerCount).toBe(1)
      fiber.interruptUnsafe()
      expect(fiber.pollUnsafe()).toBeDefined()
      expect((peer as Peer).goneOnce.listenerCount).toBe(0)
    })
  )
})

describe("what happens once", () => {
  it.effect("keeps nobody afterwards, takes nobody, and is there for whoever asks", () =>
    Effect.gen(function* () {
      const once = new Once<string>()
      const heard: Array<string> = []
      once.listen((value) => heard.push(value))
      expect(once.listenerCount).toBe(1)
      expect([once.fire("first"), once.fire("second")]).toEqual([true, false])
      expect(once.listenerCount).toBe(0)
      once.listen((value) => heard.push(value))
      expect(once.listenerCount).toBe(0)
      expect(heard).toEqual(["first"])
      expect(yield* once.await).toBe("first")
    })
  )
})
