import { CancelReason, currentReason, fromCause } from "@curfew/reason"
import {
  CancelScope,
  inspect,
  type LiveNode,
  Owner,
  ownerClosedTotal,
  siblingFailures,
  type TaskScope
} from "@curfew/scope"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import { MixedScheduler, Scheduler } from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import {
  cancellable,
  causeOf,
  forked,
  hows,
  isPureInterrupt,
  requested
} from "../../shield/test/support/cancelling.ts"
import { hearing, numRuns } from "../../shield/test/support/unhandled.ts"
import { ChildCancelled, gather } from "../src/index.ts"

type AnyItem = Effect.Effect<unknown> | Option.Option<Effect.Effect<unknown>> | null | undefined

describe("what is an exit already", () => {
  const broken = Exit.die("broken")

  it.effect("stands in its place, beside work and what is none", () =>
    Effect.gen(function* () {
      const later = Effect.as(Effect.yieldNow, "later")
      const items = [Effect.succeed(1), later, Option.some(Effect.succeed(2)), null, Option.none(), later]
      for (const concurrency of [1, 2, "unbounded"] as const)
        expect(yield* gather(items, { concurrency })).toEqual([
          1,
          "later",
          Option.some(2),
          null,
          Option.none(),
          "later"
        ])
      expect(yield* gather({ a: Effect.succeed(1), b: undefined, c: later })).toEqual({
        a: 1,
        b: undefined,
        c: "later"
      })
    })
  )

  it.effect("cancels the others when it is a failure, and none after it starts", () =>
    Effect.gen(function* () {
      const ends: Array<string> = []
      const before = Effect.onInterrupt(Effect.never, () => Effect.sync(() => ends.push("cancelled")))
      const after = Effect.sync(() => ends.push("started"))
      const exit = yield* Effect.exit(gather([before, Effect.fail("no"), after]))
      expect(exit).toEqual(Exit.fail("no"))
      expect(ends).toEqual(["cancelled"])
      expect(yield* Effect.exit(gather([Effect.succeed(1), broken]))).toEqual(broken)
    })
  )

  it.effect("is ChildCancelled when it is an interrupt, as it is in a fiber", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(gather([Effect.succeed(1), Exit.failCause(Cause.interrupt())]))
      expect(error).toMatchObject({ _tag: "ChildCancelled", index: 1, reason: { _tag: "Unknown" } })
    })
  )

  it.effect("does not start below a cancelled scope", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const outcome = yield* CancelScope.run((scope) =>
        Effect.andThen(
          scope.cancel(requested),
          Effect.andThen(
            gather([Effect.succeed(1)]),
            Effect.sync(() => seen.push("went on"))
          )
        )
      )
      expect([outcome._tag, seen]).toEqual(["Cancelled", []])
    })
  )
})

describe("shape", () => {
  it.effect("L20: a tuple keeps its order, whichever item ends first", () =>
    Effect.gen(function* () {
      const first = yield* Deferred.make<string>()
      const fiber = yield* forked(
        gather([Deferred.await(first), Effect.andThen(Deferred.succeed(first, "a"), Effect.succeed(2))])
      )
      expect(yield* Fiber.join(fiber)).toEqual(["a", 2])
    })
  )

  it.effect("L20: a record keeps its keys, in their order", () =>
    Effect.gen(function* () {
      const result = yield* gather({ b: Effect.succeed(1), a: undefined, c: Effect.succeed("c"), d: null })
      expect(result).toEqual({ b: 1, a: undefined, c: "c", d: null })
      expect(Object.keys(result)).toEqual(["b", "a", "c", "d"])
    })
  )

  it.effect("L20: a record with a key __proto__ keeps it as a key", () =>
    Effect.gen(function* () {
      const items = JSON.parse(`{"__proto__": null, "a": null}`) as Record<string, null>
      const result = yield* gather(items)
      expect(Object.keys(result)).toEqual(["__proto__", "a"])
    })
  )

  it.effect("L20: null, undefined and Options stay in place, and undefined in gives undefined out", () =>
    Effect.gen(function* () {
      const result = yield* gather([
        undefined,
        Effect.succeed(1),
        null,
        Option.some(Effect.succeed("x")),
        Option.none<Effect.Effect<string>>(),
        Effect.succeed(undefined)
      ])
      expect(result).toEqual([undefined, 1, null, Option.some("x"), Option.none(), undefined])
    })
  )

  it.effect("L20: a sparse array keeps its length", () =>
    Effect.gen(function* () {
      const items = new Array<Effect.Effect<number> | undefined>(3)
      items[2] = Effect.succeed(3)
      expect(yield* gather(items)).toEqual([undefined, undefined, 3])
    })
  )

  it.effect("L20: an iterable is read once and gives an array", () =>
    Effect.gen(function* () {
      let reads = 0
      const items = {
        *[Symbol.iterator]() {
          reads++
          yield Effect.succeed(1)
          yield undefined
          yield Effect.succeed(2)
        }
      }
      const program = gather(items)
      expect(reads).toBe(0)
      expect(yield* program).toEqual([1, undefined, 2])
      expect(reads).toBe(1)
      expect(yield* gather(new Set([Effect.succeed(1), Effect.succeed(2)]))).toEqual([1, 2])
    })
  )

  it.effect("L20: nothing in gives nothing out", () =>
    Effect.gen(function* () {
      expect(yield* gather([])).toEqual([])
      expect(yield* gather({})).toEqual({})
      expect(yield* gather(new Set<Effect.Effect<number>>())).toEqual([])
      expect(yield* gather([null, undefined])).toEqual([null, undefined])
    })
  )

  it.effect("an iterable that throws is a defect, and no item has started", () =>
    Effect.gen(function* () {
      let started = false
      const items = {
        *[Symbol.iterator]() {
          yield Effect.sync(() => {
            started = true
          })
          throw new Error("broken iterable")
        }
      }
      const exit = yield* Effect.exit(gather(items))
      expect(Cause.squash(causeOf(exit))).toEqual(new Error("broken iterable"))
      expect(started).toBe(false)
    })
  )

  it("L20: any shape comes out as it went in", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.record({ kind: fc.constant("now" as const), value: fc.integer() }),
            fc.record({ kind: fc.constant("later" as const), value: fc.integer(), turns: fc.nat(4) }),
            fc.record({ kind: fc.constant("some" as const), value: fc.integer() }),
            fc.constantFrom(
              { kind: "none" as const },
              { kind: "null" as const },
              { kind: "undefined" as const }
            )
          ),
          { maxLength: 12 }
        ),
        fc.constantFrom<"list" | "record" | "set">("list", "record", "set"),
        fc.oneof(fc.constant("unbounded" as const), fc.integer({ min: 1, max: 4 })),
        async (specs, shape, concurrency) => {
          const yields = (turns: number) =>
            Effect.forEach(Array.from({ length: turns }), () => Effect.yieldNow)
          const pairs = specs.map((spec): readonly [AnyItem, unknown] => {
            switch (spec.kind) {
              case "now":
                return [Effect.succeed(spec.value), spec.value] as const
              case "later":
                return [Effect.as(yields(spec.turns), spec.value), spec.value] as const
              case "some":
                return [Option.some(Effect.succeed(spec.value)), Option.some(spec.value)] as const
              case "none":
                return [Option.none<Effect.Effect<number>>(), Option.none<number>()] as const
              case "null":
                return [null, null] as const
              default:
                return [undefined, undefined] as const
            }
          })
          const items = pairs.map(([item]) => item)
          const wanted = pairs.map(([, result]) => result)
          if (shape === "list") {
            expect(await Effect.runPromise(gather(items, { concurrency }))).toEqual(wanted)
          } else if (shape === "set") {
            const iterable = { [Symbol.iterator]: () => items[Symbol.iterator]() }
            expect(await Effect.runPromise(gather(iterable, { concurrency }))).toEqual(wanted)
          } else {
            const keyed = <T>(values: ReadonlyArray<T>) =>
              Object.fromEntries(values.map((value, i) => [`key ${i}`, value]))
            expect(await Effect.runPromise(gather(keyed(items), { concurrency }))).toEqual(keyed(wanted))
          }
        }
      ),
      { numRuns }
    ))
})

describe("concurrency", () => {
  /** Items that wait for their gate, driven from outside one by one. */
  interface Plan {
    readonly outcomes: ReadonlyArray<"value" | "fail" | "die">
    readonly concurrency: number
    readonly picks: ReadonlyArray<number>
  }
  const plans: fc.Arbitrary<Plan> = fc.record({
    outcomes: fc.array(fc.constantFrom("value", "value", "value", "value", "fail", "die"), {
      minLength: 1,
      maxLength: 10
    }),
    concurrency: fc.integer({ min: 1, max: 5 }),
    picks: fc.array(fc.nat(20), { minLength: 10, maxLength: 10 })
  })

  it("L21, L23: items start in order, never more than the limit, none after the first failure, which comes out", () =>
    fc.assert(
      fc.asyncProperty(plans, ({ concurrency, outcomes, picks }) =>
        Effect.runPromise(
          Effect.gen(function* () {
            const started: Array<number> = []
            let running = 0
            let most = 0
            const gates = outcomes.map(() => Deferred.makeUnsafe<number, string>())
            const items = gates.map((gate, i) =>
              Effect.suspend(() => {
                started.push(i)
                running++
                most = Math.max(most, running)
                return Effect.ensuring(
                  Deferred.await(gate),
                  Effect.sync(() => {
                    running--
                  })
                )
              })
            )
            const fiber = yield* forked(gather(items, { concurrency }))
            // The model: what runs, and what has started.
            const inModel = outcomes.map((_, i) => i).slice(0, concurrency)
            let next = Math.min(concurrency, outcomes.length)
            let failure: string | undefined
            for (let step = 0; inModel.length > 0 && failure === undefined; step++) {
              expect(started).toEqual(outcomes.map((_, i) => i).slice(0, next))
              expect(running).toBe(inModel.length)
              const [i] = inModel.splice((picks[step] ?? 0) % inModel.length, 1) as [number]
              const gate = gates[i] as Deferred.Deferred<number, string>
              if (outcomes[i] === "value") {
                if (next < outcomes.length) inModel.push(next++)
                yield* Deferred.succeed(gate, i)
              } else {
                failure = `${outcomes[i]} ${i}`
                yield* outcomes[i] === "fail" ? Deferred.fail(gate, failure) : Deferred.die(gate, failure)
              }
              yield* Effect.yieldNow
            }
            const exit = yield* Fiber.await(fiber)
            expect(running).toBe(0)
            expect(most).toBeLessThanOrEqual(concurrency)
            expect(started).toEqual(outcomes.map((_, i) => i).slice(0, next))
            if (failure === undefined) expect(exit).toEqual(Exit.succeed(outcomes.map((_, i) => i)))
            else {
              expect(causeOf(exit).reasons).toHaveLength(1)
              expect(Cause.squash(causeOf(exit))).toBe(failure)
            }
          })
        )
      ),
      { numRuns }
    ))

  it.effect("items that end while a scheduler holds the waiter up, before it waits, are not waited for", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<string>()
      let begun = false
      let held = false
      const item = Effect.suspend(() => {
        begun = true
        return Deferred.await(gate)
      })
      const fiber = yield* forked(
        Effect.withFiber((waiting) => {
          const scheduler = new MixedScheduler()
          scheduler.shouldYield = (fiber) => {
            if (fiber !== waiting || !begun || held) return false
            held = true
            return true
          }
          return Effect.provideService(gather([item, item]), Scheduler, scheduler)
        })
      )
      expect([held, fiber.pollUnsafe()]).toEqual([true, undefined])
      Deferred.doneUnsafe(gate, Effect.succeed("ended"))
      for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow
      expect(fiber.pollUnsafe()).toEqual(Exit.succeed(["ended", "ended"]))
    })
  )

  it.effect("ten thousand items that end at once need no stack, whatever the limit", () =>
    Effect.gen(function* () {
      const count = 10_000
      const items = Array.from({ length: count }, (_, i) => Effect.succeed(i))
      for (const concurrency of [1, 7, "unbounded"] as const) {
        const results = yield* gather(items, { concurrency })
        expect(results).toHaveLength(count)
        expect(results[count - 1]).toBe(count - 1)
      }
      // The first one holds the others back; their run starts from its end.
      const late = [Effect.as(Effect.yieldNow, -1), ...items]
      expect(yield* gather(late, { concurrency: 1 })).toHaveLength(count + 1)
    })
  )

  it.effect("ten thousand running items are cancelled by one failure, and by an interrupt", () =>
    Effect.gen(function* () {
      const count = 10_000
      let ended = 0
      const item = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => {
          ended++
        })
      )
      const items = Array.from({ length: count }, () => item)
      expect(yield* Effect.flip(gather([...items, Effect.fail("one")]))).toBe("one")
      expect(ended).toBe(count)
      const fiber = yield* forked(gather(items))
      yield* Fiber.interrupt(fiber)
      expect(ended).toBe(2 * count)
    })
  )

  it("the operations per item do not grow with the number of items", async () => {
    class Counting extends MixedScheduler {
      operations = 0
      override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
        this.operations++
        return super.shouldYield(fiber)
      }
    }
    const perItem = async (count: number, item: Effect.Effect<number>, concurrency: number | "unbounded") => {
      const scheduler = new Counting()
      const items = Array.from({ length: count }, () => item)
      await Effect.runPromise(gather(items, { concurrency }), { scheduler })
      return scheduler.operations / count
    }
    for (const item of [Effect.succeed(1), Effect.as(Effect.yieldNow, 1)]) {
      for (const concurrency of [3, "unbounded"] as const) {
        const many = await perItem(10_000, item, concurrency)
        expect(many).toBeLessThan(1.1 * (await perItem(1000, item, concurrency)))
      }
    }
  })

  it("L45: gathers nest ten thousand deep, and results, failures and cancels come through them", async () => {
    const nested = (leaf: Effect.Effect<number, string>) => {
      let nest: Effect.Effect<unknown, string | ChildCancelled> = leaf
      for (let i = 0; i < 10_000; i++) {
        const inner = nest
        nest = Effect.suspend(() => gather([inner]))
      }
      return nest
    }
    for (const leaf of [Effect.succeed(1), Effect.as(Effect.yieldNow, 1)]) {
      expect((await Effect.runPromiseExit(nested(leaf)))._tag).toBe("Success")
    }
    expect(await Effect.runPromise(Effect.flip(nested(Effect.fail("deep"))))).toBe("deep")
    const fiber = Effect.runFork(nested(Effect.never))
    await Effect.runPromise(Fiber.interrupt(fiber))
    expect(isPureInterrupt(await Effect.runPromise(Fiber.await(fiber)))).toBe(true)
    const scoped = CancelScope.run((scope) =>
      Effect.andThen(Effect.forkChild(scope.cancel(requested)), nested(Effect.never))
    )
    expect(await Effect.runPromise(scoped)).toEqual({ _tag: "Cancelled", reason: requested })
  })
})

describe("failures", () => {
  it.effect("L21: the first failure in time comes out unwrapped, and a handler catches it", () =>
    Effect.gen(function* () {
      const slow = yield* Deferred.make<never, "slow">()
      const quick = yield* Deferred.make<never, "quick">()
      const fiber = yield* forked(
        gather([Deferred.await(slow), Deferred.await(quick)]).pipe(
          Effect.catch((error) => Effect.succeed(`caught ${error}`))
        )
      )
      yield* Deferred.fail(quick, "quick")
      yield* Deferred.fail(slow, "slow")
      expect(yield* Fiber.join(fiber)).toBe("caught quick")
    })
  )

  it.effect("L21: siblings that fail while they are cancelled are annotations, each reported once", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const failing = (message: string) => Effect.ensuring(Effect.never, Effect.die(message))
      const exit = yield* heard.by(
        Effect.exit(gather([failing("clean-up 0"), failing("clean-up 1"), Effect.fail("first")]))
      )
      const cause = causeOf(exit)
      expect(cause.reasons.map((reason) => reason._tag)).toEqual(["Fail"])
      expect(siblingFailures(cause).map(Cause.squash)).toEqual(["clean-up 0", "clean-up 1"])
      expect(heard.causes()).toEqual(["clean-up 0", "clean-up 1"])
      expect(heard.all.map(({ origin }) => origin)).toEqual(["sibling", "sibling"])
    })
  )

  it.effect("L21: with siblings that failed, a tag still catches the first failure", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const result = yield* heard.by(
        gather([
          Effect.ensuring(Effect.never, Effect.die("clean-up")),
          Effect.fail({ _tag: "Mine" as const })
        ]).pipe(Effect.catchTag("Mine", () => Effect.succeed("caught")))
      )
      expect(result).toBe("caught")
      expect(heard.causes()).toEqual(["clean-up"])
    })
  )

  it.effect("L21: a defect is a first failure like any other", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const exit = yield* heard.by(Effect.exit(gather([Effect.never, Effect.die("defect")])))
      expect(causeOf(exit).reasons.map((reason) => reason._tag)).toEqual(["Die"])
      expect(Cause.squash(causeOf(exit))).toBe("defect")
      expect(heard.all).toEqual([])
    })
  )

  it.effect("L21: an item that fails and whose clean-up dies keeps both reasons in its own cause", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(gather([Effect.ensuring(Effect.fail("f"), Effect.die("d"))]))
      const own = yield* Effect.exit(Effect.ensuring(Effect.fail("f"), Effect.die("d")))
      expect(causeOf(exit).reasons.length).toBe(causeOf(own).reasons.length)
    })
  )

  it.effect("L21: a typed failure that a cancelled sibling's clean-up raises is attached, too", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const masked = yield* Deferred.make<void>()
      const sibling = Effect.uninterruptible(Effect.andThen(Deferred.await(masked), Effect.fail("second")))
      const fiber = yield* forked(heard.by(Effect.exit(gather([sibling, Effect.fail("first")]))))
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* Deferred.succeed(masked, undefined)
      const cause = causeOf(yield* Fiber.join(fiber))
      expect(Cause.squash(cause)).toBe("first")
      expect(siblingFailures(cause).map(Cause.squash)).toEqual(["second"])
      expect(heard.causes()).toEqual(["second"])
    })
  )

  it.effect("L21: siblings learn of the first failure as their reason", () =>
    Effect.gen(function* () {
      const reasons: Array<CancelReason | undefined> = []
      const item = Effect.onExit(Effect.never, (exit) =>
        Effect.sync(() => {
          reasons.push(Option.getOrUndefined(fromCause(causeOf(exit))))
        })
      )
      yield* Effect.exit(gather([item, Effect.fail("first")]))
      expect(reasons.map((reason) => reason?._tag)).toEqual(["SiblingFailed"])
    })
  )

  it.effect("L21: in a traced function, too, what the waiter is given is not reported as well", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const traced = Effect.fn("traced")(function* () {
        return yield* gather([Effect.ensuring(Effect.never, Effect.die("clean-up")), Effect.fail("first")])
      })
      const exit = yield* heard.by(Effect.exit(Effect.withSpan(traced(), "span")))
      expect(Cause.squash(causeOf(exit))).toBe("first")
      expect(siblingFailures(causeOf(exit)).map(Cause.squash)).toEqual(["clean-up"])
      expect(heard.causes()).toEqual(["clean-up"])
    })
  )

  it.effect("L21: a failure that an item raises while it cancels its own gather is reported, not lost", () =>
    Effect.gen(function* () {
      for (const before of [Effect.void, Effect.yieldNow]) {
        for (const after of [Effect.void, Effect.yieldNow, Effect.never]) {
          const heard = hearing()
          const outcome = yield* heard.by(
            CancelScope.run((scope) => {
              const item = Effect.andThen(before, Effect.andThen(scope.cancel(requested), after))
              return gather([Effect.ensuring(item, Effect.die("clean-up"))])
            })
          )
          expect(outcome).toEqual({ _tag: "Cancelled", reason: requested })
          expect(heard.causes()).toEqual(["clean-up"])
        }
      }
    })
  )
})

describe("foreign interrupts", () => {
  const dead = Effect.gen(function* () {
    const fiber = yield* forked(Effect.never)
    yield* Fiber.interrupt(fiber)
    return fiber
  })

  it.effect("L22: an item that joins a fiber somebody else interrupted is a typed ChildCancelled", () =>
    Effect.gen(function* () {
      const fiber = yield* dead
      const error = yield* Effect.flip(gather([Effect.succeed(1), Fiber.join(fiber)]))
      expect(error).toBeInstanceOf(ChildCancelled)
      expect(error).toMatchObject({ _tag: "ChildCancelled", index: 1, reason: { _tag: "Unknown" } })
      expect(error.message).toContain("1")
    })
  )

  it.effect("L22: the index is the key in a record, and the reason travels", () =>
    Effect.gen(function* () {
      const ended = yield* Deferred.make<never>()
      yield* CancelScope.run((scope) =>
        Effect.onExit(Effect.andThen(scope.cancel(requested), Effect.never), (exit) =>
          Deferred.failCause(ended, causeOf(exit) as Cause.Cause<never>)
        )
      )
      const error = yield* Effect.flip(gather({ here: Deferred.await(ended) }))
      expect(error).toMatchObject({ index: "here", reason: requested })
    })
  )

  it.effect("L22: an item that interrupts itself is a ChildCancelled and cancels the siblings", () =>
    Effect.gen(function* () {
      let sibling = false
      const waiting = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => {
          sibling = true
        })
      )
      const error = yield* Effect.flip(gather([waiting, Effect.interrupt]))
      expect(error.index).toBe(1)
      expect(sibling).toBe(true)
    })
  )
})

describe("the gather's own cancel", () => {
  it.effect("L22: before the start no item starts", () =>
    Effect.gen(function* () {
      let started = 0
      const item = Effect.sync(() => {
        started++
      })
      const fiber = yield* Effect.forkChild(gather([item, item]))
      yield* Fiber.interrupt(fiber)
      expect(started).toBe(0)
    })
  )

  it.effect("L44: in a finalizer of a cancelled scope, and in what that forks, a gather runs", () =>
    Effect.gen(function* () {
      let started = 0
      const item = Effect.sync(() => {
        started++
      })
      yield* CancelScope.run((scope) =>
        Effect.ensuring(
          Effect.andThen(scope.cancel(requested), Effect.never),
          Effect.ignore(Effect.andThen(gather([item, item]), Effect.timeout(gather([item]), "1 second")))
        )
      )
      expect(started).toBe(3)
    })
  )

  for (const how of hows) {
    it.effect(`L22: during, it is a pure interrupt after every item has ended, by a ${how} cancel`, () =>
      Effect.gen(function* () {
        const heard = hearing()
        const log: Array<string> = []
        const release = yield* Deferred.make<void>()
        const item = (name: string, cleanUp: Effect.Effect<void>) =>
          Effect.ensuring(
            Effect.never,
            Effect.andThen(
              cleanUp,
              Effect.sync(() => {
                log.push(name)
              })
            )
          )
        const running = yield* cancellable(
          how,
          heard.by(
            Effect.onExit(
              gather([
                item("quick", Effect.void),
                item("slow", Deferred.await(release)),
                item("bad", Effect.die("d"))
              ]),
              () =>
                Effect.sync(() => {
                  log.push("gather")
                })
            )
          )
        )
        yield* running.cancel
        yield* Effect.yieldNow
        expect(log).toEqual(["quick"])
        // Twice changes nothing.
        yield* running.cancel
        yield* Effect.yieldNow
        expect(log).toEqual(["quick"])
        yield* Deferred.succeed(release, undefined)
        const exit = yield* running.exit
        expect(log).toEqual(["quick", "slow", "gather"])
        expect(isPureInterrupt(exit)).toBe(true)
        expect(heard.causes()).toEqual(["d"])
      })
    )

    it.effect(
      `L22: after the first failure it is still a pure interrupt, and the failure is reported once, by a ${how} cancel`,
      () =>
        Effect.gen(function* () {
          const heard = hearing()
          const release = yield* Deferred.make<void>()
          const slow = Effect.ensuring(
            Effect.never,
            Effect.andThen(Deferred.await(release), Effect.die("second"))
          )
          const running = yield* cancellable(how, heard.by(gather([slow, Effect.fail("first")])))
          yield* running.cancel
          yield* Deferred.succeed(release, undefined)
          expect(isPureInterrupt(yield* running.exit)).toBe(true)
          expect([...heard.causes()].sort()).toEqual(["first", "second"])
        })
    )

    it.effect(`L22: after its end nothing changes, by a ${how} cancel`, () =>
      Effect.gen(function* () {
        const running = yield* cancellable(how, gather([Effect.succeed(1)]))
        const exit = yield* running.exit
        yield* running.cancel
        expect(exit).toEqual(Exit.succeed([1]))
      })
    )

    it.effect(`L44: inside a mask a ${how} cancel does not reach the items`, () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<number>()
        const seen: Array<unknown> = []
        const running = yield* cancellable(
          how,
          Effect.uninterruptible(
            Effect.tap(
              gather([Deferred.await(gate), CancelScope.run(() => Deferred.await(gate))]),
              (results) =>
                Effect.sync(() => {
                  seen.push(results)
                })
            )
          )
        )
        yield* running.cancel
        yield* Effect.yieldNow
        yield* Deferred.succeed(gate, 1)
        expect(isPureInterrupt(yield* running.exit)).toBe(true)
        expect(seen).toEqual([[1, { _tag: "Done", value: 1, cancelCalled: false }]])
      })
    )
  }

  it.effect("L22: after the cancel no further item starts", () =>
    Effect.gen(function* () {
      let started = 0
      const item = Effect.sync(() => {
        started++
      })
      for (const how of hows) {
        const running = yield* cancellable(how, gather([Effect.never, item, item], { concurrency: 1 }))
        yield* running.cancel
        expect(isPureInterrupt(yield* running.exit)).toBe(true)
      }
      expect(started).toBe(0)
    })
  )

  it.effect("L22: by a native interrupt the items read Unknown", () =>
    Effect.gen(function* () {
      const reasons: Array<unknown> = []
      const item = Effect.onInterrupt(Effect.never, () =>
        Effect.map(currentReason, (reason) => reasons.push(reason))
      )
      const running = yield* cancellable("native", gather([item, item]))
      yield* running.cancel
      yield* running.exit
      expect(reasons).toEqual([Option.some(CancelReason.Unknown()), Option.some(CancelReason.Unknown())])
    })
  )

  it.effect("L22: the items get the reason of the gather's cancel", () =>
    Effect.gen(function* () {
      const reasons: Array<unknown> = []
      const item = Effect.onExit(Effect.never, (exit) =>
        Effect.sync(() => {
          reasons.push(Option.getOrUndefined(fromCause(causeOf(exit)))?._tag)
        })
      )
      yield* CancelScope.run((scope) => gather([item, item, scope.cancel(CancelReason.Superseded())]))
      expect(reasons).toEqual(["Superseded", "Superseded"])
    })
  )

  it.effect(
    "L22: a gather in a native child, whose items a scope's cancel reaches first, is not a success",
    () =>
      Effect.gen(function* () {
        const exits: Array<Exit.Exit<unknown, unknown>> = []
        const release = yield* Deferred.make<void>()
        const fiber = yield* forked(
          CancelScope.run((scope) =>
            Effect.gen(function* () {
              yield* forked(
                Effect.onExit(gather([Effect.succeed(1), Effect.never]), (exit) =>
                  Effect.sync(() => {
                    exits.push(exit)
                  })
                )
              )
              // The native child is interrupted after this clean-up only; the items are signalled at once.
              yield* Effect.ensuring(
                Effect.andThen(scope.cancel(requested), Effect.never),
                Deferred.await(release)
              )
            })
          )
        )
        yield* Effect.yieldNow
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.await(fiber)
        expect(exits).toHaveLength(1)
        expect(exits.map(isPureInterrupt)).toEqual([true])
        expect(fromCause(causeOf(exits[0] as Exit.Exit<unknown, unknown>))).toEqual(Option.some(requested))
      })
  )
})

describe("letFinish", () => {
  const owned = <A, E>(body: (owner: TaskScope.TaskScope) => Effect.Effect<A, E, Owner>) =>
    Effect.provide(Effect.flatMap(Owner, body), Owner.layer())
  const closedCount = Effect.map(Metric.value(ownerClosedTotal), ({ count }) => count)

  it.effect(
    "L23: those still running belong to the owner, with their failures, and the gather returns at once",
    () =>
      Effect.gen(function* () {
        const heard = hearing()
        const gates = yield* Effect.all([
          Deferred.make<string, string>(),
          Deferred.make<string, string>(),
          Deferred.make<string, string>()
        ])
        yield* heard.by(
          owned((owner) =>
            Effect.gen(function* () {
              const exit = yield* Effect.exit(
                gather([...gates.map((gate) => Deferred.await(gate)), Effect.fail("first")], {
                  onFailure: "letFinish"
                })
              )
              expect(Cause.squash(causeOf(exit))).toBe("first")
              expect(yield* owner.size).toBe(3)
              yield* Deferred.succeed(gates[0], "done")
              yield* Deferred.fail(gates[1], "second")
              yield* Deferred.die(gates[2], "third")
              yield* Effect.yieldNow
              expect(yield* owner.size).toBe(0)
            })
          )
        )
        expect(heard.causes()).toEqual(["second", "third"])
      })
  )

  it.effect("L23: without a failure the owner gets nothing", () =>
    owned((owner) =>
      Effect.gen(function* () {
        const items = [Effect.succeed(1), Effect.as(Effect.yieldNow, 2)] as const
        expect(yield* gather(items, { onFailure: "letFinish" })).toEqual([1, 2])
        expect(yield* owner.size).toBe(0)
      })
    )
  )

  it.effect("L23: after the first failure no further item starts, with the rest running on or not", () =>
    owned((owner) =>
      Effect.gen(function* () {
        let started = 0
        const item = Effect.sync(() => {
          started++
        })
        for (const onFailure of ["letFinish", "cancel"] as const) {
          yield* Effect.flip(gather([Effect.fail("first"), item, item], { concurrency: 1, onFailure }))
          yield* Effect.flip(
            gather([Effect.never, Effect.andThen(Effect.yieldNow, Effect.fail("first")), item], {
              concurrency: 2,
              onFailure
            })
          )
        }
        expect(started).toBe(0)
        yield* owner.cancel()
      })
    )
  )

  it.effect("L23: what the owner has taken is not touched by the gather's cancel, but by the owner's", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const item = Effect.onExit(Effect.never, (exit) =>
        Effect.sync(() => {
          log.push(
            Option.match(fromCause(causeOf(exit)), { onNone: () => "none", onSome: (reason) => reason._tag })
          )
        })
      )
      yield* owned((owner) =>
        Effect.gen(function* () {
          yield* CancelScope.run((scope) =>
            Effect.gen(function* () {
              yield* Effect.exit(gather([item, Effect.fail("first")], { onFailure: "letFinish" }))
              yield* scope.cancel(requested)
              yield* Effect.never
            })
          )
          expect(log).toEqual([])
          expect(yield* owner.size).toBe(1)
          yield* owner.cancel(CancelReason.Shutdown({ phase: "force" }))
          expect(log).toEqual(["Shutdown"])
        })
      )
    })
  )

  it.effect(
    "L23, L46: a closed owner takes nothing: the gather waits, attaches what fails, and that is counted once",
    () =>
      Effect.gen(function* () {
        const heard = hearing()
        const gate = yield* Deferred.make<string, string>()
        const before = yield* closedCount
        yield* heard.by(
          owned((owner) =>
            Effect.gen(function* () {
              yield* owner.close
              const fiber = yield* forked(
                Effect.exit(
                  gather([Deferred.await(gate), Deferred.await(gate), Effect.fail("first")], {
                    onFailure: "letFinish"
                  })
                )
              )
              yield* Effect.yieldNow
              expect(fiber.pollUnsafe()).toBeUndefined()
              yield* Deferred.fail(gate, "late")
              const cause = causeOf(yield* Fiber.join(fiber))
              expect(Cause.squash(cause)).toBe("first")
              expect(siblingFailures(cause).map(Cause.squash)).toEqual(["late", "late"])
            })
          )
        )
        expect(heard.causes()).toEqual(["late", "late"])
        expect((yield* closedCount) - before).toBe(1)
      })
  )

  it.effect(
    "L21, L23: what was given to the owner is reported once, also when it fails before the waiter goes on",
    () =>
      Effect.gen(function* () {
        const heard = hearing()
        const first = yield* Deferred.make<never, string>()
        const given = yield* Deferred.make<never, string>()
        const cause = yield* heard.by(
          owned(() =>
            Effect.gen(function* () {
              const items = [Deferred.await(given), Deferred.await(first)]
              let hold = false
              const fiber = yield* forked(
                Effect.withFiber((waiting) => {
                  // Holds the waiter up once.
                  const scheduler = new MixedScheduler()
                  scheduler.shouldYield = (fiber) => {
                    if (fiber !== waiting || !hold) return false
                    hold = false
                    return true
                  }
                  return Effect.provideService(
                    Effect.exit(gather(items, { onFailure: "letFinish" })),
                    Scheduler,
                    scheduler
                  )
                })
              )
              hold = true
              Deferred.doneUnsafe(first, Effect.fail("first"))
              expect(hold).toBe(false)
              Deferred.doneUnsafe(given, Effect.fail("late"))
              return causeOf(yield* Fiber.join(fiber))
            })
          )
        )
        expect(Cause.squash(cause)).toBe("first")
        expect(siblingFailures(cause)).toEqual([])
        expect(heard.causes()).toEqual(["late"])
      })
  )

  it.effect("L22: with letFinish, too, the own cancel waits for every item", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const release = yield* Deferred.make<void>()
      let ended = 0
      const slow = Effect.ensuring(
        Effect.never,
        Effect.andThen(
          Deferred.await(release),
          Effect.sync(() => {
            ended++
          })
        )
      )
      yield* heard.by(
        owned(() =>
          Effect.gen(function* () {
            const failing = Effect.ensuring(Effect.never, Effect.die("clean-up"))
            const fiber = yield* forked(gather([failing, slow], { onFailure: "letFinish" }))
            fiber.interruptUnsafe()
            yield* Effect.yieldNow
            expect(fiber.pollUnsafe()).toBeUndefined()
            yield* Deferred.succeed(release, undefined)
            expect(isPureInterrupt(yield* Fiber.await(fiber))).toBe(true)
            expect(ended).toBe(1)
          })
        )
      )
      expect(heard.causes()).toEqual(["clean-up"])
    })
  )

  it.effect(
    "L21, L23: an item whose work has failed already, and only cleans up, does not lose its failure",
    () =>
      Effect.gen(function* () {
        const heard = hearing()
        const release = yield* Deferred.make<void>()
        const other = yield* Deferred.make<never, string>()
        yield* heard.by(
          owned((owner) =>
            Effect.gen(function* () {
              // Its fiber ends only after its own child's clean-up.
              const ending = Effect.gen(function* () {
                yield* forked(Effect.ensuring(Effect.never, Deferred.await(release)))
                return yield* Effect.fail("early")
              })
              const fiber = yield* forked(
                Effect.exit(gather([ending, Deferred.await(other)], { onFailure: "letFinish" }))
              )
              yield* Effect.yieldNow
              yield* Deferred.fail(other, "first")
              const cause = causeOf(yield* Fiber.join(fiber))
              expect(Cause.squash(cause)).toBe("first")
              expect(siblingFailures(cause).map(Cause.squash)).toEqual(["early"])
              expect(yield* owner.size).toBe(1)
              yield* Deferred.succeed(release, undefined)
            })
          )
        )
        expect(heard.causes()).toEqual(["early"])
      })
  )

  it.effect("L22, L23: an owned item that somebody else interrupts is reported as ChildCancelled", () =>
    Effect.gen(function* () {
      const heard = hearing()
      yield* heard.by(
        owned(() =>
          Effect.gen(function* () {
            const elsewhere = yield* forked(Effect.never)
            const exit = yield* Effect.exit(
              gather([Fiber.join(elsewhere), Effect.fail("first")], { onFailure: "letFinish" })
            )
            expect(Cause.squash(causeOf(exit))).toBe("first")
            yield* Fiber.interrupt(elsewhere)
          })
        )
      )
      expect(heard.causes()).toMatchObject([{ _tag: "ChildCancelled", index: 0 }])
    })
  )

  it.effect("L23, L46: what has ended is offered to no owner, also while its end is still being told", () =>
    Effect.gen(function* () {
      const heard = hearing()
      const ends = yield* Deferred.make<never, string>()
      const fails = yield* Deferred.make<never, string>()
      const before = yield* closedCount
      // Whoever observed the item before the gather is told before it, and makes its sibling fail.
      const ending = Effect.withFiber((fiber) => {
        fiber.addObserver(() => Deferred.doneUnsafe(fails, Effect.fail("first")))
        return Deferred.await(ends)
      })
      yield* heard.by(
        owned((owner) =>
          Effect.gen(function* () {
            yield* owner.close
            const items = [ending, Deferred.await(fails)]
            const fiber = yield* forked(Effect.exit(gather(items, { onFailure: "letFinish" })))
            Deferred.doneUnsafe(ends, Effect.fail("sibling"))
            const cause = causeOf(yield* Fiber.join(fiber))
            expect(Cause.squash(cause)).toBe("first")
            expect(siblingFailures(cause).map(Cause.squash)).toEqual(["sibling"])
          })
        )
      )
      expect(heard.causes()).toEqual(["sibling"])
      expect((yield* closedCount) - before).toBe(0)
    })
  )

  it.effect("L23: an item that makes a sibling fail in its first step is handed over, too", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<never, string>()
      yield* owned((owner) =>
        Effect.gen(function* () {
          const culprit = Effect.andThen(Deferred.fail(gate, "first"), Effect.never)
          const fiber = yield* forked(
            Effect.exit(gather([Deferred.await(gate), culprit], { onFailure: "letFinish" }))
          )
          yield* Effect.yieldNow
          expect(fiber.pollUnsafe()).toBeDefined()
          expect(yield* owner.size).toBe(1)
          yield* owner.cancel()
        })
      )
    })
  )

  it.effect("L23: with cancel it returns only when no item runs", () =>
    Effect.gen(function* () {
      let ended = false
      const slow = Effect.ensuring(
        Effect.never,
        Effect.andThen(
          Effect.sleep("1 minute"),
          Effect.sync(() => {
            ended = true
          })
        )
      )
      // The clock's first sleep may not be a masked one.
      yield* TestClock.adjust(0)
      const fiber = yield* forked(Effect.exit(gather([slow, Effect.fail("first")])))
      yield* TestClock.adjust("59 seconds")
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust("1 second")
      expect(Exit.isFailure(yield* Fiber.join(fiber))).toBe(true)
      expect(ended).toBe(true)
    })
  )
})

describe("the live tree", () => {
  const namesIn = (nodes: ReadonlyArray<LiveNode>): ReadonlyArray<string> =>
    nodes.flatMap(({ children, kind, name }) => [`${kind} ${name}`, ...namesIn(children)])
  const alive = Effect.map(inspect, ({ roots }) => namesIn(roots))

  it.effect("L47: holds an item until it has ended, and the gather until all have", () =>
    Effect.gen(function* () {
      const first = yield* Deferred.make<void>()
      const second = yield* Deferred.make<void>()
      const fiber = yield* forked(gather([Deferred.await(first), Deferred.await(second)]))
      expect(yield* alive).toEqual(["tasks gather", "task gather[0]", "task gather[1]"])
      yield* Deferred.succeed(first, undefined)
      expect(yield* alive).toEqual(["tasks gather", "task gather[1]"])
      yield* Deferred.succeed(second, undefined)
      expect(yield* alive).toEqual([])
      yield* Fiber.join(fiber)
    })
  )

  it.effect("L47: holds nothing after a failure, a cancel, or without any item", () =>
    Effect.gen(function* () {
      yield* Effect.exit(gather([Effect.never, Effect.fail("first")]))
      expect(yield* alive).toEqual([])
      const fiber = yield* forked(gather({ a: Effect.never, b: Effect.never }))
      yield* Fiber.interrupt(fiber)
      expect(yield* alive).toEqual([])
      yield* gather([])
      expect(yield* alive).toEqual([])
    })
  )

  it.effect("L47: with letFinish shows what runs on under its owner, until it ends", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const program = Effect.gen(function* () {
        yield* Effect.exit(gather([Deferred.await(gate), Effect.fail("first")], { onFailure: "letFinish" }))
        expect(yield* alive).toEqual(["owner server", "task gather[0]"])
        yield* Deferred.succeed(gate, undefined)
        expect(yield* alive).toEqual(["owner server"])
      })
      yield* Effect.provide(program, Owner.layer({ name: "server" }))
    })
  )
})
