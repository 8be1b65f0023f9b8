/** The facts of Effect 4.1 that the design rests on. An upgrade that changes one of them fails here. */
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { exitOf, started } from "../../../test/support/recorder.ts"
import { Interruption, interruptsOfUnsafe, tellingBegin } from "../src/CancelCell.ts"
import { CancelReason, fromCause, ownInterrupt } from "../src/index.ts"

interface Internals {
  readonly interruptible: boolean
  _running: boolean
  _deferredInterrupt: boolean
  readonly evaluate: (effect: unknown) => void
}

const reason = CancelReason.Superseded()
const annotations = Interruption.context(reason) as Context.Context<never>
const internals = (fiber: Fiber.Fiber<unknown, unknown>) => fiber as unknown as Internals

describe("pinned: the fields of a fiber that delivery looks at", () => {
  it.effect("interruptible, _running, _deferredInterrupt and evaluate of a suspended fiber", () =>
    Effect.gen(function* () {
      const plain = internals(yield* started(Effect.never))
      expect(plain.interruptible).toBe(true)
      expect(plain._running).toBe(false)
      expect(plain._deferredInterrupt).toBe(false)
      expect(plain.evaluate).toBeTypeOf("function")
      const gate = yield* Deferred.make<void>()
      const masked = yield* started(Effect.uninterruptible(Deferred.await(gate)))
      expect(internals(masked).interruptible).toBe(false)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Effect.withFiber((own) => Effect.succeed(internals(own)._running))).toBe(true)
    })
  )

  it.effect("a fiber that claims to run keeps the interrupt, and meets it at its next operation", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const fiber = yield* started(
        Effect.onExit(
          Effect.andThen(
            Deferred.await(gate),
            Effect.sync(() => seen.push("ran on"))
          ),
          (exit) => Effect.sync(() => seen.push(exit._tag))
        )
      )
      internals(fiber)._running = true
      fiber.interruptUnsafe(undefined, annotations)
      internals(fiber)._running = false
      expect(internals(fiber)._deferredInterrupt).toBe(true)
      expect(seen).toEqual([])
      yield* Deferred.succeed(gate, undefined)
      expect(seen).toEqual(["Failure"])
      const exit = fiber.pollUnsafe()
      expect(exit !== undefined && Exit.isFailure(exit) && fromCause(exit.cause)._tag).toBe("Some")
    })
  )

  it.effect("evaluate wakes a fiber that holds an interrupt", () =>
    Effect.gen(function* () {
      const fiber = yield* started(Effect.never)
      internals(fiber)._running = true
      fiber.interruptUnsafe()
      internals(fiber)._running = false
      internals(fiber).evaluate(Exit.void)
      expect(fiber.pollUnsafe()?._tag).toBe("Failure")
    })
  )
})

describe("pinned: what a fiber is made with", () => {
  it.effect(
    "its constructor takes a context and whether it is interruptible, and evaluate starts it at once",
    () =>
      Effect.gen(function* () {
        const context = yield* Effect.context<never>()
        const known = yield* started(Effect.never)
        const Made = known.constructor as new (
          context: Context.Context<never>,
          interruptible: boolean
        ) => Fiber.Fiber<number> & Internals
        const fiber = new Made(context, true)
        expect(fiber.interruptible).toBe(true)
        expect(fiber.pollUnsafe()).toBeUndefined()
        fiber.evaluate(Effect.withFiber((own) => Effect.succeed(own === fiber ? 1 : 0)))
        expect(fiber.pollUnsafe()).toEqual(Exit.succeed(1))
        const waiting = new Made(context, true)
        waiting.evaluate(Effect.never)
        expect(waiting.pollUnsafe()).toBeUndefined()
        waiting.interruptUnsafe()
        expect(waiting.pollUnsafe()?._tag).toBe("Failure")
      })
  )
})

describe("pinned: where a fiber keeps its context", () => {
  it.effect("it is a field that is assigned, so that a class may have an accessor of that name", () =>
    Effect.gen(function* () {
      const given = yield* Effect.context<never>()
      const known = yield* started(Effect.never)
      const Found = known.constructor as new (
        context: Context.Context<never>,
        interruptible: boolean
      ) => Fiber.Fiber<unknown> & { evaluate(effect: unknown): void }
      class Reading extends Found {}
      const assigned: Array<unknown> = []
      let reads = 0
      Object.defineProperty(Reading.prototype, "context", {
        get: () => {
          reads++
          return assigned.at(-1)
        },
        set: (context) => assigned.push(context)
      })
      const fiber = new Reading(given, true)
      expect(assigned).toEqual([given])
      reads = 0
      fiber.evaluate(Effect.sync(() => 1))
      // Work that asks for nothing does not read it; who forks does.
      expect([fiber.pollUnsafe(), reads]).toEqual([Exit.succeed(1), 0])
      const forking = new Reading(given, true)
      forking.evaluate(Effect.forkChild(Effect.void))
      expect(reads).toBeGreaterThan(0)
    })
  )
})

describe("pinned: how a fiber says that its body has ended", () => {
  const tellingOf = (known: Fiber.Fiber<unknown, unknown>, told: Array<unknown>) => {
    const Made = known.constructor as new (
      context: Context.Context<never>,
      interruptible: boolean
    ) => Fiber.Fiber<unknown> & { evaluate(effect: unknown): void; runLoop(effect: unknown): unknown }
    return class extends Made {
      override runLoop(effect: unknown): unknown {
        const came = super.runLoop(effect)
        told.push(typeof came === "symbol" ? "waits" : (came as Exit.Exit<unknown>)._tag)
        return came
      }
    }
  }

  it.effect("runLoop gives a symbol where it waits, and the exit before the children are interrupted", () =>
    Effect.gen(function* () {
      const told: Array<unknown> = []
      const context = yield* Effect.context<never>()
      const Telling = tellingOf(yield* started(Effect.never), told)
      const gate = yield* Deferred.make<void>()
      const fiber = new Telling(context, true)
      const cleaned = Effect.onExit(Effect.never, () =>
        Effect.andThen(
          Deferred.await(gate),
          Effect.sync(() => told.push("child"))
        )
      )
      fiber.evaluate(
        Effect.andThen(
          Effect.yieldNow,
          Effect.andThen(Effect.forkChild(cleaned, { startImmediately: true }), Effect.succeed(1))
        )
      )
      yield* Effect.yieldNow
      expect(told).toEqual(["waits", "Success", "waits"])
      yield* Deferred.succeed(gate, undefined)
      expect(told).toEqual(["waits", "Success", "waits", "child", "Success"])
      expect(fiber.pollUnsafe()).toEqual(Exit.succeed(1))
    })
  )

  it.effect("a fiber that is interrupted before its first operation says so by runLoop as well", () =>
    Effect.gen(function* () {
      const told: Array<unknown> = []
      const Telling = tellingOf(yield* started(Effect.never), told)
      const fiber = new Telling(yield* Effect.context<never>(), true)
      fiber.interruptUnsafe()
      expect(told).toEqual(["Failure"])
      expect(fiber.pollUnsafe()?._tag).toBe("Failure")
    })
  )

  it.effect(
    "a fiber that is masked by its field alone keeps an interrupt until the field says otherwise",
    () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const fiber = yield* started(Effect.andThen(Deferred.await(gate), Effect.succeed(1)))
        const open = fiber as unknown as { interruptible: boolean }
        open.interruptible = false
        fiber.interruptUnsafe()
        expect(fiber.pollUnsafe()).toBeUndefined()
        yield* Deferred.succeed(gate, undefined)
        expect(fiber.pollUnsafe()).toEqual(Exit.succeed(1))
      })
  )
})

describe("pinned: what tells of a fiber's interrupts, and of its first operation", () => {
  it.effect("_interruptedCause holds the very reasons that the exit of the fiber has", () =>
    Effect.gen(function* () {
      const fiber = yield* started(Effect.never)
      expect(interruptsOfUnsafe(fiber)).toBeUndefined()
      fiber.interruptUnsafe()
      const exit = fiber.pollUnsafe()
      expect(exit !== undefined && Exit.isFailure(exit) && exit.cause.reasons[0]).toBe(
        interruptsOfUnsafe(fiber)?.reasons[0]
      )
    })
  )

  it.effect("an effect has an evaluate of its own, whose answer is the next operation", () =>
    Effect.gen(function* () {
      const effects = [
        Effect.succeed(1),
        Effect.suspend(() => Effect.succeed(1)),
        Effect.as(Effect.yieldNow, 1)
      ]
      for (const effect of effects) {
        expect((effect as unknown as Record<string, unknown>)["~effect/Effect/evaluate"]).toBeTypeOf(
          "function"
        )
        let begun = 0
        expect(yield* tellingBegin(effect, () => begun++)).toBe(1)
        expect(begun).toBe(1)
      }
    })
  )
})

describe("pinned: interrupting", () => {
  it.effect("interruptUnsafe on a suspended fiber runs its finalizers before it returns", () =>
    Effect.gen(function* () {
      let ran = false
      const fiber = yield* started(
        Effect.ensuring(
          Effect.never,
          Effect.sync(() => {
            ran = true
          })
        )
      )
      fiber.interruptUnsafe()
      expect(ran).toBe(true)
    })
  )

  it.effect("a forkChild child is interrupted after its parent's finalizers", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const note = (event: string) => Effect.sync(() => order.push(event))
      const child = Effect.onExit(Effect.never, () => note("child"))
      const parent = yield* started(
        Effect.onExit(Effect.andThen(Effect.forkChild(child, { startImmediately: true }), Effect.never), () =>
          Effect.andThen(Effect.yieldNow, note("parent"))
        )
      )
      yield* Fiber.interrupt(parent)
      expect(order).toEqual(["parent", "child"])
    })
  )

  it.effect("a fork inside a mask is interruptible, unless it asks to inherit", () =>
    Effect.gen(function* () {
      const masked = Effect.withFiber((fiber) => Effect.succeed(!internals(fiber).interruptible))
      expect(yield* Effect.uninterruptible(Effect.flatMap(Effect.forkChild(masked), Fiber.join))).toBe(false)
      expect(
        yield* Effect.uninterruptible(
          Effect.flatMap(Effect.forkChild(masked, { uninterruptible: "inherit" }), Fiber.join)
        )
      ).toBe(true)
    })
  )

  it.effect("a value that leaves a mask with an interrupt pending is replaced by the interrupt", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<string>()
      let inside: unknown
      const fiber = yield* started(
        Effect.uninterruptible(
          Effect.map(Effect.exit(Deferred.await(gate)), (exit) => {
            inside = exit
            return exit
          })
        )
      )
      fiber.interruptUnsafe()
      yield* Deferred.succeed(gate, "value")
      expect(inside).toEqual(Exit.succeed("value"))
      const exit = yield* Fiber.await(fiber)
      expect(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)).toBe(true)
    })
  )

  it.effect("an inner interruptible pierces a mask", () =>
    Effect.gen(function* () {
      const fiber = yield* started(Effect.uninterruptible(Effect.interruptible(Effect.never)))
      fiber.interruptUnsafe()
      expect(fiber.pollUnsafe()?._tag).toBe("Failure")
    })
  )

  it.effect("annotations of an interrupt are seen by the direct victim only", () =>
    Effect.gen(function* () {
      const seen: Record<string, string> = {}
      const see = (name: string) =>
        Effect.onExit(Effect.never, (exit) =>
          Effect.sync(() => {
            seen[name] = Exit.isFailure(exit) ? fromCause(exit.cause)._tag : "Success"
          })
        )
      const fiber = yield* started(
        Effect.onExit(
          Effect.andThen(
            Effect.forkChild(see("child"), { startImmediately: true }),
            Effect.all([see("item"), Effect.timeoutOption(see("timed"), "1 hour")], { concurrency: 2 })
          ),
          (exit) =>
            Effect.sync(() => {
              seen["victim"] = Exit.isFailure(exit) ? fromCause(exit.cause)._tag : "Success"
            })
        )
      )
      fiber.interruptUnsafe(undefined, annotations)
      yield* Fiber.await(fiber)
      expect(seen).toEqual({ victim: "Some", child: "None", item: "None", timed: "None" })
    })
  )

  it.effect("a callback that resumes at once runs no clean-up when an interrupt is pending", () =>
    Effect.gen(function* () {
      let cleaned = false
      const exit = yield* exitOf(
        Effect.withFiber((fiber) =>
          Effect.callback<void>((resume) => {
            fiber.interruptUnsafe()
            resume(Effect.void)
            return Effect.sync(() => {
              cleaned = true
            })
          })
        )
      )
      expect(exit._tag).toBe("Failure")
      expect(cleaned).toBe(false)
    })
  )

  it.effect("the probe answers inside masks, and a foreign interrupt does not show in it", () =>
    Effect.gen(function* () {
      const stopped = yield* started(Effect.never)
      yield* Fiber.interrupt(stopped)
      const seen: Array<boolean> = []
      const ask = Effect.map(ownInterrupt, (own) => seen.push(own !== undefined))
      yield* exitOf(Effect.onExit(Fiber.join(stopped), () => Effect.asVoid(ask)))
      yield* Fiber.interrupt(yield* started(Effect.onExit(Effect.never, () => Effect.asVoid(ask))))
      expect(seen).toEqual([false, true])
    })
  )
})

describe("pinned: causes", () => {
  const fail = (error: string) => Cause.fail(error)

  it.effect("a defect beside a failure makes it uncatchable", () =>
    Effect.gen(function* () {
      const cause = Cause.combine(fail("typed"), Cause.die("defect"))
      const exit = yield* Effect.exit(Effect.catch(Effect.failCause(cause), () => Effect.succeed("caught")))
      expect(exit._tag).toBe("Failure")
    })
  )

  it.effect("a second failure is dropped by the handler of the first", () =>
    Effect.gen(function* () {
      const handled: Array<string> = []
      const cause = Cause.combine(fail("first"), fail("second"))
      yield* Effect.catch(Effect.failCause(cause), (error) => Effect.sync(() => handled.push(error)))
      expect(handled).toEqual(["first"])
    })
  )

  it.effect("an annotation on a failure keeps it catchable", () =>
    Effect.gen(function* () {
      const cause = Cause.annotate(fail("first"), annotations)
      expect(yield* Effect.catch(Effect.failCause(cause), (error) => Effect.succeed(error))).toBe("first")
    })
  )

  it.effect("an interrupt beside a failure, joined elsewhere, is swallowed by catch", () =>
    Effect.gen(function* () {
      const cause = Cause.combine(Cause.interrupt(), fail("typed"))
      expect(Cause.hasInterruptsOnly(cause)).toBe(false)
      expect(yield* Effect.catch(Effect.failCause(cause), () => Effect.succeed("swallowed"))).toBe(
        "swallowed"
      )
    })
  )
})
