import { fromCause, outerReason, ownCancellation } from "@curfew/reason"
import { CancelScope, failAfter, Instant, inspect, type LiveNode, Owner, TaskScope } from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { expectTypeOf } from "vitest"
import { delayCancellation, stopCancellation } from "../src/index.ts"
import {
  cancellable,
  cancellingItself,
  causeOf,
  forked,
  hows,
  isPureInterrupt,
  reasonOf,
  requested
} from "./support/cancelling.ts"
import { hearing, numRuns } from "./support/unhandled.ts"

type Receiver<A, E> = (exit: Exit.Exit<A, E>) => Effect.Effect<unknown>

/** Both shields behind one signature: what one calls `onLate` is `onAbandoned` for the other. */
const shields = {
  stopCancellation: <A, E, R>(self: Effect.Effect<A, E, R>, late?: Receiver<A, E>) =>
    stopCancellation(self, { onAbandoned: late }),
  delayCancellation: <A, E, R>(
    self: Effect.Effect<A, E, R>,
    late?: Receiver<A, E>
  ): Effect.Effect<A, E, R | Owner> => delayCancellation(self, { onLate: late })
}
const names = ["stopCancellation", "delayCancellation"] as const

const withOwner = <A, E>(body: Effect.Effect<A, E, Owner>) => Effect.provide(body, Owner.layer())

/** Keeps what a receiver gets. */
const receiver = <A, E>() => {
  const got: Array<Exit.Exit<A, E>> = []
  return {
    got,
    late: (exit: Exit.Exit<A, E>) =>
      Effect.sync(() => {
        got.push(exit)
      })
  }
}

/** A fiber that somebody else has interrupted. */
const dead = Effect.gen(function* () {
  const fiber = yield* forked(Effect.never)
  yield* Fiber.interrupt(fiber)
  return fiber
})

class Service extends Context.Service<Service, { readonly value: number }>()("test/Service") {}

describe.each(names)("%s", (name) => {
  const shield = shields[name]

  it("L9: not cancelled, it is the identity in value, typed error, defect and any mixture of them", () => {
    const reasons = fc.oneof(
      fc.string().map((error) => Cause.fail(error).reasons[0]),
      fc.string().map((defect) => Cause.die(defect).reasons[0]),
      fc.nat(9).map((id) => Cause.interrupt(id).reasons[0])
    )
    const exits = fc.oneof(
      fc.anything().map((value) => Exit.succeed(value)),
      fc
        .array(reasons, { minLength: 1, maxLength: 3 })
        .map((some) => Exit.failCause(Cause.fromReasons(some as ReadonlyArray<Cause.Reason<string>>)))
    )
    return fc.assert(
      fc.asyncProperty(exits, fc.nat(3), async (exit, turns) => {
        const { got, late } = receiver<unknown, string>()
        let work: Effect.Effect<unknown, string> = exit
        for (let i = 0; i < turns; i++) work = Effect.andThen(Effect.yieldNow, work)
        const seen = await Effect.runPromise(withOwner(Effect.exit(shield(work, late))))
        // `exit` gives way to an interrupt of the fiber alone; this one was nobody's.
        expect(seen).toEqual(exit)
        expect(got).toEqual([])
      }),
      { numRuns }
    )
  })

  it.effect("L9: the work has the services of its caller, and reads and writes its references", () =>
    Effect.gen(function* () {
      const work = Effect.map(Service, ({ value }) => value)
      expect(yield* withOwner(Effect.provideService(shield(work), Service, { value: 3 }))).toBe(3)
    })
  )

  it.effect("L9: children forked inside end with the shield, and one that is returned is over", () =>
    Effect.gen(function* () {
      let ended = 0
      const child = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => {
          ended++
        })
      )
      const fiber = yield* withOwner(shield(Effect.andThen(forked(child), forked(child))))
      expect(ended).toBe(2)
      expect(fiber.pollUnsafe()).toBeDefined()
    })
  )

  it.effect("L9: work that completes at once completes the shield, and nobody else gets its exit", () =>
    Effect.gen(function* () {
      const { got, late } = receiver<number, string>()
      expect(yield* withOwner(shield(Effect.succeed(1), late))).toBe(1)
      expect(yield* withOwner(Effect.flip(shield(Effect.fail("f"), late)))).toBe("f")
      expect(got).toEqual([])
    })
  )

  it.effect("L13: work that ends interrupted by itself passes through as it is", () =>
    Effect.gen(function* () {
      const { got, late } = receiver<never, never>()
      const fiber = yield* dead
      for (const work of [
        Effect.interrupt,
        Fiber.join(fiber),
        Effect.andThen(Effect.yieldNow, Effect.interrupt)
      ]) {
        const exit = yield* withOwner(Effect.exit(shield(work, late)))
        expect(isPureInterrupt(exit)).toBe(true)
        // Nobody cancelled the waiter: it runs on, and the interrupt is a foreign one.
        expect(Option.isNone(yield* ownCancellation(exit))).toBe(true)
      }
      expect(got).toEqual([])
    })
  )

  for (const how of hows) {
    it.effect(`cancelled before the start, the work does not run, by a ${how} cancel`, () =>
      withOwner(
        Effect.gen(function* () {
          let ran = false
          const { got, late } = receiver<void, never>()
          const work = shield(
            Effect.sync(() => {
              ran = true
            }),
            late
          )
          if (how === "native") {
            const fiber = yield* Effect.forkChild(work)
            yield* Fiber.interrupt(fiber)
          } else {
            yield* CancelScope.run((scope) => Effect.andThen(scope.cancel(), work))
          }
          expect(ran).toBe(false)
          expect(got).toEqual([])
        })
      )
    )

    it.effect(`L10, L11: cancelled after its end nothing changes, by a ${how} cancel`, () =>
      withOwner(
        Effect.gen(function* () {
          const { got, late } = receiver<number, never>()
          const running = yield* cancellable(how, shield(Effect.as(Effect.yieldNow, 1), late))
          expect(yield* running.exit).toEqual(Exit.succeed(1))
          yield* running.cancel
          yield* Effect.yieldNow
          expect(got).toEqual([])
        })
      )
    )

    it.effect(
      `L10, L11: exactly one receiver when the cancel meets work that has just completed, by a ${how} cancel`,
      () =>
        withOwner(
          Effect.gen(function* () {
            const { got, late } = receiver<number, never>()
            // The work completes in the step in which its waiter is cancelled, and before the waiter could be given that.
            const running = yield* cancellingItself(how, (cancel) => shield(Effect.as(cancel, 1), late))
            expect(isPureInterrupt(yield* running.exit)).toBe(true)
            yield* Effect.yieldNow
            expect(got).toEqual([Exit.succeed(1)])
          })
        )
    )

    it.effect(`L12: an inner Effect.interruptible does not let a ${how} cancel in`, () =>
      withOwner(
        Effect.gen(function* () {
          const gate = yield* Deferred.make<string>()
          const { got, late } = receiver<string, never>()
          const work = Effect.uninterruptible(
            Effect.interruptible(Effect.interruptibleMask(() => Deferred.await(gate)))
          )
          const running = yield* cancellable(how, shield(work, late))
          yield* running.cancel
          yield* Effect.yieldNow
          yield* Deferred.succeed(gate, "written")
          expect(isPureInterrupt(yield* running.exit)).toBe(true)
          yield* Effect.yieldNow
          expect(got).toEqual([Exit.succeed("written")])
        })
      )
    )

    it.effect(`L44: a ${how} cancel reaches no inner scope, signal or task, and outerReason tells`, () =>
      withOwner(
        Effect.gen(function* () {
          const gate = yield* Deferred.make<void>()
          const asked: Array<unknown> = []
          const { got, late } = receiver<unknown, unknown>()
          const work = CancelScope.run((scope) =>
            TaskScope.use((tasks: TaskScope.TaskScope<never>) =>
              Effect.gen(function* () {
                const task = yield* tasks.spawn(Deferred.await(gate))
                yield* Deferred.await(gate)
                yield* task.join
                asked.push(Option.getOrUndefined(yield* outerReason), scope.signal.aborted)
                return "done"
              })
            )
          )
          const running = yield* cancellable(how, shield(work, late))
          yield* running.cancel
          yield* Effect.yieldNow
          yield* Deferred.succeed(gate, undefined)
          yield* running.exit
          yield* Effect.yieldNow
          expect(got).toEqual([Exit.succeed({ _tag: "Done", value: "done", cancelCalled: false })])
          // A native interrupt leaves no reason anywhere for who is inside to find.
          expect(asked).toEqual([how === "native" ? undefined : requested, false])
        })
      )
    )

    it.effect(
      `a shield inside a scope inside a mask goes on, and the ${how} cancel is heard after the mask`,
      () =>
        withOwner(
          Effect.gen(function* () {
            const gate = yield* Deferred.make<string>()
            const { got, late } = receiver<string, never>()
            const seen: Array<unknown> = []
            const inside = Effect.tap(
              CancelScope.run(() => shield(Deferred.await(gate), late)),
              (outcome) => Effect.sync(() => seen.push(outcome))
            )
            const running = yield* cancellable(
              how,
              Effect.andThen(
                Effect.uninterruptible(inside),
                Effect.sync(() => seen.push("after the mask"))
              )
            )
            yield* running.cancel
            yield* running.cancel
            yield* Effect.yieldNow
            expect(running.ended()).toBe(false)
            yield* Deferred.succeed(gate, "value")
            expect(isPureInterrupt(yield* running.exit)).toBe(true)
            expect(seen).toEqual([{ _tag: "Done", value: "value", cancelCalled: false }])
            expect(got).toEqual([])
          })
        )
    )

    for (const [what, mask] of [
      ["an outer mask", (effect) => Effect.uninterruptible(effect)],
      ["a finalizer", (effect) => Effect.onExitPrimitive(Effect.void, () => Effect.asVoid(effect)) as never],
      [
        "an outer mask's acquire",
        (effect) => Effect.acquireUseRelease(effect, Effect.succeed, () => Effect.void)
      ]
    ] satisfies ReadonlyArray<
      [string, <A, E>(effect: Effect.Effect<A, E, Owner>) => Effect.Effect<A, E, Owner>]
    >) {
      it.effect(
        `L10, L11b: inside ${what} the real exit is returned and nobody else gets it, by a ${how} cancel`,
        () =>
          withOwner(
            Effect.gen(function* () {
              const ends = [Exit.succeed("value"), Exit.fail("failure"), Exit.interrupt(7)]
              for (const end of ends) {
                const gate = yield* Deferred.make<string, string>()
                const { got, late } = receiver<string, string>()
                const seen: Array<Exit.Exit<string, string>> = []
                const inside = Effect.tap(Effect.exit(shield(Deferred.await(gate), late)), (exit) =>
                  Effect.sync(() => seen.push(exit))
                )
                const running = yield* cancellable(how, mask(inside))
                yield* running.cancel
                yield* Effect.yieldNow
                expect(running.ended()).toBe(false)
                yield* Deferred.done(gate, end)
                yield* running.exit
                expect(seen).toEqual([end])
                expect(got).toEqual([])
              }
            })
          )
      )
    }

    it.effect(`L11b: under the mask's own restore it is a shield again, by a ${how} cancel`, () =>
      withOwner(
        Effect.gen(function* () {
          const gate = yield* Deferred.make<string>()
          const { got, late } = receiver<string, never>()
          const running = yield* cancellable(
            how,
            Effect.uninterruptibleMask((restore) => restore(shield(Deferred.await(gate), late)))
          )
          yield* running.cancel
          yield* Effect.yieldNow
          expect(running.ended()).toBe(name === "stopCancellation")
          yield* Deferred.succeed(gate, "value")
          expect(isPureInterrupt(yield* running.exit)).toBe(true)
          yield* Effect.yieldNow
          expect(got).toEqual([Exit.succeed("value")])
        })
      )
    )

    it.effect(`a receiver that dies is reported once and changes nothing, by a ${how} cancel`, () =>
      Effect.gen(function* () {
        const heard = hearing()
        yield* heard.by(
          withOwner(
            Effect.gen(function* () {
              const gate = yield* Deferred.make<string>()
              const running = yield* cancellable(
                how,
                shield(Deferred.await(gate), () => Effect.die("broken receiver"))
              )
              yield* running.cancel
              yield* Deferred.succeed(gate, "value")
              expect(isPureInterrupt(yield* running.exit)).toBe(true)
              yield* Effect.yieldNow
            })
          )
        )
        expect(heard.causes()).toEqual(["broken receiver"])
      })
    )

    it.effect(`L44: a deadline outside neither shows nor fires inside, by a ${how} cancel as well`, () =>
      withOwner(
        Effect.gen(function* () {
          const gate = yield* Deferred.make<void>()
          const deadlines: Array<unknown> = []
          const { got, late } = receiver<unknown, never>()
          const work = CancelScope.run((inner) =>
            Effect.gen(function* () {
              deadlines.push(yield* inner.deadline)
              yield* Deferred.await(gate)
              return "done"
            })
          )
          const at = yield* Instant.after("1 second")
          const running = yield* cancellable(
            how,
            CancelScope.run(() => shield(work, late), { deadline: at })
          )
          yield* running.cancel
          yield* Effect.yieldNow
          yield* Deferred.succeed(gate, undefined)
          yield* running.exit
          yield* Effect.yieldNow
          expect(deadlines).toEqual([Option.none()])
          expect(got).toEqual([Exit.succeed({ _tag: "Done", value: "done", cancelCalled: false })])
        })
      )
    )
  }

  it.effect("L10, L11: a time limit around a shield is a cancel like any other", () =>
    withOwner(
      Effect.gen(function* () {
        const { got, late } = receiver<string, never>()
        const gate = yield* Deferred.make<string>()
        const fiber = yield* forked(Effect.flip(failAfter("1 second")(shield(Deferred.await(gate), late))))
        yield* TestClock.adjust("1 second")
        expect(fiber.pollUnsafe() !== undefined).toBe(name === "stopCancellation")
        yield* Deferred.succeed(gate, "value")
        expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "DeadlineExceeded" })
        yield* Effect.yieldNow
        expect(got).toEqual([Exit.succeed("value")])
      })
    )
  )

  it("L45: shields nest ten thousand deep, and a cancel comes through them", {
    timeout: 60_000
  }, async () => {
    for (const leaf of [Effect.succeed(1), Effect.as(Effect.yieldNow, 1)]) {
      let nest: Effect.Effect<number, never, Owner> = leaf
      for (let i = 0; i < 10_000; i++) {
        const inner = nest
        nest = Effect.suspend(() => shield(inner))
      }
      expect(await Effect.runPromise(withOwner(nest))).toBe(1)
      const cancelled = CancelScope.run((scope) =>
        Effect.andThen(Effect.forkChild(scope.cancel(requested)), nest)
      )
      expect(await Effect.runPromise(withOwner(cancelled))).toEqual({ _tag: "Cancelled", reason: requested })
    }
  })

  it("the types are the work's own, and an owner for who needs one", () => {
    const work = null as unknown as Effect.Effect<number, "e", Service>
    const late = null as unknown as () => Effect.Effect<void, never, Service>
    const stopped = () => stopCancellation(work, { onAbandoned: late })
    const delayed = () => delayCancellation(work, { onLate: late })
    expectTypeOf(stopped).returns.toEqualTypeOf<Effect.Effect<number, "e", Service | Owner>>()
    expectTypeOf(delayed).returns.toEqualTypeOf<Effect.Effect<number, "e", Service>>()
  })
})

describe("reasons", () => {
  it.effect("L11: the exit of the waiter carries the reason of its cancel", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<string>()
      const running = yield* cancellable("scope", delayCancellation(Deferred.await(gate)))
      yield* running.cancel
      yield* Deferred.succeed(gate, "x")
      expect(fromCause(causeOf(yield* running.exit))).toEqual(Option.some(reasonOf("scope")))
    })
  )
})

describe("the live tree", () => {
  const namesIn = (nodes: ReadonlyArray<LiveNode>): ReadonlyArray<string> =>
    nodes.flatMap(({ children, kind, name }) => [`${kind} ${name}`, ...namesIn(children)])
  const alive = Effect.map(inspect, ({ roots }) => namesIn(roots).filter((name) => name !== "owner server"))

  const variants = {
    stopCancellation: { close: false, shown: "task commit" },
    "stopCancellation with a closed owner": { close: true, shown: "shield commit" },
    delayCancellation: { close: false, shown: "shield commit" }
  } as const

  for (const [name, { close, shown }] of Object.entries(variants)) {
    const shield = (self: Effect.Effect<void, string>) =>
      name === "delayCancellation"
        ? delayCancellation(self, { name: "commit" })
        : stopCancellation(self, { name: "commit" })

    it.effect(
      `L47: ${name} stands in it while its work runs, also without its waiter, and not afterwards`,
      () =>
        Effect.gen(function* () {
          if (close) yield* (yield* Owner).close
          for (const end of [Effect.void, Effect.fail("failure"), Effect.die("defect")]) {
            yield* Effect.exit(shield(end))
            expect(yield* alive).toEqual([])
            for (const leaves of [false, true]) {
              const gate = yield* Deferred.make<void>()
              const fiber = yield* forked(Effect.exit(shield(Effect.andThen(Deferred.await(gate), end))))
              if (leaves) fiber.interruptUnsafe()
              yield* Effect.yieldNow
              expect(yield* alive).toEqual([shown])
              yield* Deferred.succeed(gate, undefined)
              yield* Fiber.await(fiber)
              expect(yield* alive).toEqual([])
            }
          }
        }).pipe(Effect.provide(Owner.layer({ name: "server" })), hearing().by)
    )
  }
})
