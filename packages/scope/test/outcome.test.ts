import { CancelReason, fromCause } from "@curfew/reason"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { exitOf, held, started } from "../../../test/support/recorder.ts"
import { CancelScope } from "../src/index.ts"

/** L3 and L4: what `run` yields. */
const one = CancelReason.Requested({ message: "one" })
const two = CancelReason.Superseded()
const cancelledBy = (reason: CancelReason) => Exit.succeed({ _tag: "Cancelled", reason })

/** A body that has started, its scope, and the fiber that waits in `run`. */
const running = <A, E>(body: (scope: CancelScope.CancelScope) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const given = yield* Deferred.make<CancelScope.CancelScope>()
    const fiber = yield* started(
      CancelScope.run((scope) => Effect.andThen(Deferred.succeed(given, scope), body(scope)))
    )
    return { fiber, scope: yield* Deferred.await(given) }
  })

describe("L3: Cancelled is the outcome of the own cancel alone", () => {
  it.effect("L3: an outer cancel passes through an inner run unchanged", () =>
    Effect.gen(function* () {
      const inner: Array<Exit.Exit<unknown, unknown>> = []
      const { fiber, scope } = yield* running(() =>
        Effect.onExit(
          CancelScope.run(() => Effect.never),
          (exit) => Effect.sync(() => inner.push(exit))
        )
      )
      yield* scope.cancel(one)
      expect(yield* Fiber.await(fiber)).toEqual(cancelledBy(one))
      const [exit] = inner
      expect(exit !== undefined && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
      expect(exit !== undefined && Exit.isFailure(exit) && fromCause(exit.cause)).toEqual(Option.some(one))
    })
  )

  it.effect("L3: an outer cancel stays an interrupt when the inner scope is cancelled afterwards", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const given = yield* Deferred.make<CancelScope.CancelScope>()
      const { fiber, scope } = yield* running(() =>
        CancelScope.run((inner) =>
          Effect.andThen(
            Deferred.succeed(given, inner),
            Effect.onExit(Effect.never, () => Deferred.await(gate))
          )
        )
      )
      yield* scope.cancel(one)
      expect(yield* (yield* Deferred.await(given)).cancel(two)).toBe(false)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.await(fiber)).toEqual(cancelledBy(one))
    })
  )

  it.effect("L3: the inner scope's own cancel is its outcome although the outer one follows", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const outcomes: Array<unknown> = []
      const given = yield* Deferred.make<CancelScope.CancelScope>()
      const { fiber, scope } = yield* running(() =>
        Effect.uninterruptible(
          Effect.map(
            CancelScope.run((inner) =>
              Effect.andThen(
                Deferred.succeed(given, inner),
                Effect.onExit(Effect.never, () => Deferred.await(gate))
              )
            ),
            (outcome) => outcomes.push(outcome)
          )
        )
      )
      yield* (yield* Deferred.await(given)).cancel(two)
      yield* scope.cancel(one)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.await(fiber)).toEqual(cancelledBy(one))
      expect(outcomes).toEqual([{ _tag: "Cancelled", reason: two }])
    })
  )

  it.effect("L3: a foreign interrupt never yields Cancelled", () =>
    Effect.gen(function* () {
      const stopped = yield* started(Effect.never)
      yield* Fiber.interrupt(stopped)
      const elsewhere = yield* exitOf(CancelScope.run((s) => Effect.andThen(s.cancel(one), Effect.never)))
      expect(elsewhere).toEqual(cancelledBy(one))
      for (const foreign of [Fiber.join(stopped), Effect.interrupt, Effect.failCause(Cause.interrupt(3))]) {
        const exit = yield* exitOf(CancelScope.run(() => foreign))
        expect(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
      }
    })
  )

  it.effect("L3: a defect or failure of a finalizer is never absorbed into Cancelled", () =>
    Effect.gen(function* () {
      const die = yield* running(() => Effect.onExit(Effect.never, () => Effect.die("broken")))
      yield* die.scope.cancel(one)
      const died = yield* Fiber.await(die.fiber)
      expect(Exit.isFailure(died) && died.cause.reasons.map((r) => r._tag)).toEqual(["Die"])
      const fail = yield* running(() => Effect.onExit(Effect.never, () => Effect.fail("broken")))
      yield* fail.scope.cancel(one)
      expect(yield* Fiber.await(fail.fiber)).toEqual(Exit.fail("broken"))
    })
  )

  it.effect("L3: under an outer cancel a defect passes with the interrupt", () =>
    Effect.gen(function* () {
      const { fiber, scope } = yield* running(() =>
        CancelScope.run(() => Effect.onExit(Effect.never, () => Effect.die("broken")))
      )
      yield* scope.cancel(one)
      const exit = yield* Fiber.await(fiber)
      expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toBe("broken")
    })
  )

  it.effect("L3: and so it does where the caller has not been interrupted itself", () =>
    Effect.gen(function* () {
      let seen: Exit.Exit<unknown, unknown> | undefined
      const inner = CancelScope.run(() => Effect.onExit(Effect.never, () => Effect.die("broken")))
      const look = Effect.onExit(inner, (exit) =>
        Effect.sync(() => {
          seen = exit
        })
      )
      // As long as the outer body cleans up, nobody interrupts what it has forked.
      const { gate, work } = held()
      const { fiber, scope } = yield* running(() =>
        Effect.andThen(started(look), Effect.ensuring(Effect.never, work))
      )
      yield* scope.cancel(one)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.await(fiber)
      expect(
        seen !== undefined && Exit.isFailure(seen) && seen.cause.reasons.map(({ _tag }) => _tag)
      ).toEqual(["Interrupt", "Die"])
    })
  )

  it.effect("L3: work that throws before it is an effect is a defect", () =>
    Effect.gen(function* () {
      const exit = yield* exitOf(
        CancelScope.run((): Effect.Effect<void> => {
          throw new TypeError("thrown")
        })
      )
      expect(Exit.isFailure(exit) && String(Cause.squash(exit.cause))).toContain("thrown")
    })
  )
})

describe("L4: a value that came first wins", () => {
  /** Gives its value at once, and then has a child whose clean-up waits. */
  const lingering = (gate: Deferred.Deferred<void>) =>
    Effect.as(
      Effect.forkChild(
        Effect.onExit(Effect.never, () => Deferred.await(gate)),
        { startImmediately: true }
      ),
      "value"
    )

  it.effect("L4: a cancel that comes while only a child's clean-up runs is told beside the value", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const { fiber, scope } = yield* running(() => lingering(gate))
      yield* scope.cancel(one)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.join(fiber)).toEqual({ _tag: "Done", value: "value", cancelCalled: true })
    })
  )

  it.effect("L4: an outer cancel at that point is still an interrupt", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const { fiber, scope } = yield* running(() => CancelScope.run(() => lingering(gate)))
      yield* scope.cancel(one)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.await(fiber)).toEqual(cancelledBy(one))
    })
  )

  it.effect("L4: a cancel that is pending when the body's last mask ends wins over the value", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const { fiber, scope } = yield* running(() =>
        Effect.ensuring(Effect.succeed("value"), Deferred.await(gate))
      )
      yield* scope.cancel(one)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.await(fiber)).toEqual(cancelledBy(one))
      expect(yield* exitOf(CancelScope.run((own) => own.cancel(one)))).toEqual(cancelledBy(one))
    })
  )

  it.effect("L4: a cancel after the value has reached run changes nothing", () =>
    Effect.gen(function* () {
      const outcome = yield* CancelScope.run((scope) => Effect.as(Effect.yieldNow, scope))
      if (outcome._tag === "Done") yield* outcome.value.cancel(one)
      expect(outcome).toMatchObject({ _tag: "Done", cancelCalled: false })
    })
  )
})
